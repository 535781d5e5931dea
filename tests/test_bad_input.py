"""Bad input of every kind, through every command: exit code 2, one message, no traceback, nothing left behind."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from hrseg import build
from hrseg.config import parse
from hrseg.task import Normalisation
from hrseg.weights import checkpoint
from tests.conftest import ROOT

MODULES = {
    "train": "hrseg.commands.train",
    "test": "hrseg.commands.test",
    "convert": "hrseg.commands.convert",
    "check_data": "hrseg.commands.check_data",
    "report": "hrseg.commands.report",
    "benchmark": "hrseg.commands.benchmark",
    "predict": "hrseg.commands.predict",
    "export": "hrseg.commands.export",
    "cache": "hrseg.commands.cache",
    "compare": "hrseg.commands.compare",
    "serve": "hrseg.commands.serve",
    "folds": "hrseg.commands.folds",
    "doctor": "hrseg.commands.doctor",
    "sweep": "hrseg.commands.sweep",
    "import": "hrseg.commands.importing",
}


class Place:
    """A folder with a sound data set and mine.yaml, to be spoilt; model.pt is a checkpoint of it."""

    def __init__(self, folder: Path):
        self.folder, self.checkpoint = folder, folder.parent / "model.pt"

    def config(self, text: str) -> list[str]:
        """The words of a command with these settings alone."""
        (self.folder / "other.yaml").write_text(text, encoding="utf-8")
        return ["other.yaml"]

    def image(self, content: bytes, name: str = "c.png") -> list[str]:
        """The words of a command on the data set with this file as an image of the training split."""
        (self.folder / "images/train/c.png").unlink()
        (self.folder / "images/train" / name).write_bytes(content)
        return ["mine.yaml"]

    def mask(self, content: bytes, name: str = "c.png") -> list[str]:
        (self.folder / "masks/train/c.png").unlink()
        (self.folder / "masks/train" / name).write_bytes(content)
        return ["mine.yaml"]

    def file(self, name: str, content: bytes | str = b"") -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def state(self, **changes: Any) -> list[str]:
        """The words of tools/test.py on a checkpoint in which this is otherwise."""
        saved = torch.load(self.checkpoint, weights_only=True)
        torch.save({k: v for k, v in {**saved, **changes}.items() if v is not ...}, self.folder / "changed.pt")
        return ["--checkpoint", "changed.pt"]


def encoded(array: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(np.asarray(array))
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, color: int, data: bytes = b"") -> bytes:
    """A PNG by hand: its header may promise anything."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(data)) + part(b"IEND", b"")


def animation() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(np.full((32, 32, 3), v, np.uint8)) for v in (0, 99)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(np.zeros((24, 32, 3), np.uint8), "JPEG", exif=exif)


class Runs:
    """What pickle would run: it leaves a file behind."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch run_by_the_checkpoint",)


def zipped(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def symlink(place: Place, link: str, target: str) -> list[str]:
    (place.folder / link).symlink_to(target)
    return ["mine.yaml"]


def flipped(content: bytes) -> bytes:
    """With another byte in the middle, where the numbers are."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def removed(place: Place, *names: str) -> list[str]:
    for name in names:
        path = place.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return ["mine.yaml"]


def many_aliases() -> str:
    """Nine levels of nine: 387 million entries in 300 bytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    return "\n".join(lines)


RGB, GREY = np.full((32, 32, 3), 90, np.uint8), np.full((32, 32), 90, np.uint8)
LABELS = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32) % 3
NORMALISATION = {"mean": [0.5], "std": [0.2], "input_range": [[0.0, 255.0]]}


class Case(NamedTuple):
    """What it is; the command; how the place is spoilt, giving the command's words; what the message must hold."""

    what: str
    command: str
    words: Callable[[Place], Sequence[str]]
    told: tuple[str, ...]


# Settings

SETTINGS = [
    Case("no config", "train", lambda p: ["none.yaml"], ("none.yaml: no such file.",)),
    Case("a folder as config", "train", lambda p: ["images"], ("images: is a folder.",)),
    Case("an empty config", "train", lambda p: p.config(""), ("data/images: no such folder.",)),
    Case("a list", "train", lambda p: p.config("[1, 2]"), ("other.yaml: holds a list, not settings.",)),
    Case("a word", "train", lambda p: p.config("settings"), ("holds a str, not settings.",)),
    Case("a Python tag", "train", lambda p: p.config("a: !!python/object/apply:os.system [touch ran]"), ("line 1", "Python tags")),
    Case("a tab", "train", lambda p: p.config("train:\n\tepochs: 3"), ("other.yaml, line 2: is not plain YAML",)),
    Case("a key twice", "train", lambda p: p.config("train: {epochs: 1}\ntrain: {epochs: 2}"), ("line 2", "'train'", "twice")),
    Case("a checkpoint as config", "train", lambda p: [p.file("x.yaml", b"PK\x03\x04\xff\xfe")], ("x.yaml: is not a text file",)),
    Case("aliases that explode", "train", lambda p: p.config(many_aliases()), ("other.yaml", "more than 100,000 entries")),
    Case("an alias of itself", "train", lambda p: p.config("data: &a {x: *a}"), ("other.yaml", "refers to what it is part of")),
    Case("deep nesting", "train", lambda p: p.config("[" * 400), ("other.yaml",)),
    Case("a base that is not there", "train", lambda p: p.config("base: none.yaml"), ("none.yaml: no such file.",)),
    Case("bases in a circle", "train", lambda p: p.config("base: other.yaml"), ("other.yaml, base: the files name each other",)),
    Case("two bases", "train", lambda p: p.config("base: [a.yaml, b.yaml]"), ("other.yaml, base: must be the path of one",)),
    Case("a misspelt key", "train", lambda p: p.config("train: {iteration: 3}"), ("train.iteration", "Did you mean 'iterations'?")),
    Case("a misspelt section", "train", lambda p: p.config("modell: {}"), ("modell", "Did you mean 'model'?")),
    Case("a wrong type", "train", lambda p: ["mine.yaml", "train.batch_size=many"], ("train.batch_size", "not 'many'")),
    Case("a negative learning rate", "train", lambda p: ["mine.yaml", "optim.lr=-0.1"], ("optim.lr", "not -0.1")),
    Case("an infinite learning rate", "train", lambda p: ["mine.yaml", "optim.lr=.inf"], ("optim.lr", "finite")),
    Case("a learning rate that is no number", "train", lambda p: ["mine.yaml", "optim.lr=.nan"], ("optim.lr",)),
    Case("no images in a batch", "train", lambda p: ["mine.yaml", "train.batch_size=0"], ("train.batch_size",)),
    Case("a batch that does not divide", "train", lambda p: ["mine.yaml", "train.accumulate=3"], ("train.batch_size", "multiple")),
    Case("two lengths", "train", lambda p: ["mine.yaml", "train.epochs=2"], ("iterations and epochs are both set",)),
    Case("a window that is not said", "train", lambda p: ["mine.yaml", "eval.mode=slide"], ("eval.window",)),
    Case("no key", "train", lambda p: ["mine.yaml", "=3"], ("'=3': is not key=value.",)),
    Case("an entry that is not there", "train", lambda p: ["mine.yaml", "loss.4.weight=1"], ("'loss.4.weight=1'", "the list has 1")),
    Case("a setting below a value", "train", lambda p: ["mine.yaml", "train.iterations.x=1"], ("holds a value",)),
    Case("an architecture that is not", "train", lambda p: ["mine.yaml", "model.arch=ocrr"], ("model.arch", "Did you mean 'ocrnet'?")),
    Case("an encoder that is not", "train", lambda p: ["mine.yaml", "model.encoder=hrnet_w18"], ("model.encoder", "hrnetv2_w18")),
    Case("weights that are not published", "train", lambda p: ["mine.yaml", "model.encoder_weights=mine"], ("model.encoder_weights",)),
    Case("an option of no architecture", "train", lambda p: ["mine.yaml", "model.droput=1"], ("model.droput: no such setting.",)),
    Case("a loss that is not", "train", lambda p: ["mine.yaml", "loss.0.name=dise"], ("loss.0.name", "Did you mean 'dice'?")),
    Case("weights of other classes", "train", lambda p: ["mine.yaml", "loss.0.class_weights=[1, 2]"], ("loss.0.class_weights", "3 classes")),
    Case("a loss of another task", "train", lambda p: ["mine.yaml", "loss.0.name=mcc"], ("loss.0.name", "not for a multiclass task")),
    Case("an optimizer that is not", "train", lambda p: ["mine.yaml", "optim.name=adm"], ("optim.name",)),
    Case("a device that is not", "train", lambda p: ["mine.yaml", "run.device=gpu"], ("run.device",)),
    Case("code that is not there", "train", lambda p: ["mine.yaml", "model.arch=mylab.heads:Net"], ("model.arch: no module 'mylab'.",)),
    Case("a module that is not", "train", lambda p: ["mine.yaml", "train.freeze=[encoder.conv9]"], ("train.freeze", "'encoder.conv9'")),
    Case("an extra that is not", "train", lambda p: ["mine.yaml", "augment.extra=[{name: Bluur}]"], ("augment.extra.0.name", "'Blur'")),
    Case("a parameter of no extra", "train", lambda p: ["mine.yaml", "augment.extra=[{name: Blur, size: 3}]"], ("augment.extra.0.size",)),
    Case("a crop beyond memory", "train", lambda p: ["mine.yaml", "augment.crop=[300000, 300000]"], ("augment.crop", "GiB")),
    Case("a batch beyond memory", "train", lambda p: ["mine.yaml", "augment.crop=[64, 64]", "train.batch_size=8000000"], ("train.batch_size", "GiB")),
    Case("a scale beyond memory", "train", lambda p: ["mine.yaml", "augment.scale=[1, 90000]"], ("augment.scale", "GiB")),
    Case("an evaluation beyond memory", "test", lambda p: ["--checkpoint", str(p.checkpoint), f"data.root={p.folder}", "eval.scales=[90000]"], ("eval.scales", "GiB")),
    Case("crops of one pixel", "train", lambda p: ["mine.yaml", "augment.crop=[1, 1]", "train.batch_size=1"], ("augment.crop",)),
    Case("a mean of other channels", "train", lambda p: ["mine.yaml", "data.mean=[0.5]"], ("data.mean", "3 channels")),
    Case("a run folder below a file", "train", lambda p: ["mine.yaml", "run.dir=mine.yaml/run"], ("mine.yaml/run",)),
    Case("a run folder that cannot be written", "train", lambda p: ["mine.yaml", "run.dir=/proc/run"], ("/proc/run",)),
    Case("a run that is there", "train", lambda p: [*removed(p, "images/val/b.png"), f"run.dir={p.folder.parent / 'old'}"], ("already contains a run.", "--resume")),
    Case("a resume from nothing", "train", lambda p: ["mine.yaml", "--resume", "none.pt"], ("none.pt: no such file.",)),
    Case("a resume from another family", "train", lambda p: ["mine.yaml", "--resume", str(p.folder.parent / "flat.pth")], ("flat.pth: is not a checkpoint of hrseg.",)),
    Case("no such option", "train", lambda p: ["mine.yaml", "--iterations", "3"], ("usage:",)),
    Case("a data set that is not", "check_data", lambda p: ["mine.yaml", "data.dataset=cityscape"], ("data.dataset", "Did you mean 'cityscapes'?")),
    Case("a task of no data set", "check_data", lambda p: ["mine.yaml", "data.dataset=camvid", "data.task=binary"], ("data.task",)),
]  # fmt: skip

# Data sets

DATA = [
    Case("a root that is not there", "check_data", lambda p: ["mine.yaml", "data.root=none"], ("none/images: no such folder.", "classes.yaml beside them")),
    Case("no images", "check_data", lambda p: removed(p, "images/train/a.png", "images/train/c.png"), ("split 'train' is empty",)),
    Case("no split", "check_data", lambda p: removed(p, "images/val"), ("has no split 'val'",)),
    Case("no masks", "check_data", lambda p: removed(p, "masks/train"), ("masks/train: no such folder.",)),
    Case("a mask too few", "check_data", lambda p: removed(p, "masks/train/c.png"), ("images/train/c.png: has no mask",)),
    Case("a mask too many", "check_data", lambda p: removed(p, "images/train/c.png"), ("masks/train/c.png: a mask without an image.",)),
    Case("no classes", "check_data", lambda p: removed(p, "classes.yaml"), ("classes.yaml: no such file; the masks hold 0 to 2.", "- class_1")),
    Case("an empty list of classes", "check_data", lambda p: [p.file("classes.yaml", "[]"), "mine.yaml"][1:], ("classes.yaml: classes: the list is empty.",)),
    Case("a class twice", "check_data", lambda p: [p.file("classes.yaml", "[a, b, a]"), "mine.yaml"][1:], ("two classes have the name a.",)),
    Case("a tag in the classes", "check_data", lambda p: [p.file("classes.yaml", "!!python/name:os.system"), "mine.yaml"][1:], ("classes.yaml, line 1",)),
    Case("a split that leads out", "check_data", lambda p: ["mine.yaml", "data.train_split=../train"], ("is not the name of a split",)),
    Case("a list that leads out", "check_data", lambda p: [p.file("list.txt", "../../etc/passwd"), "mine.yaml", "data.train_split=list"][1:], ("list.txt, line 1", "leads out of images/")),
    Case("a list of what is not there", "check_data", lambda p: [p.file("list.txt", "train/zz"), "mine.yaml", "data.train_split=list"][1:], ("list.txt, line 1: there is no image 'train/zz'.",)),
    Case("an image of no bytes", "check_data", lambda p: p.image(b""), ("c.png: is empty (0 bytes).",)),
    Case("an image of words", "check_data", lambda p: p.image(b"not an image"), ("c.png: is not an image in PNG, JPEG, TIFF or BMP",)),
    Case("half a PNG", "check_data", lambda p: p.image(encoded(RGB)[:70]), ("c.png: cannot be",)),
    Case("half a JPEG", "check_data", lambda p: p.image(encoded(RGB, "JPEG")[:-300], "c.jpg"), ("c.jpg: cannot be read",)),
    Case("half a TIFF", "check_data", lambda p: p.image(tiff(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))[:2000], "c.tif"), ("c.tif",)),
    Case("a flipped bit", "check_data", lambda p: p.image(encoded(RGB).replace(b"IDATx", b"IDATy")), ("c.png: cannot be",)),
    Case("CMYK", "check_data", lambda p: p.image(encoded(RGB, "JPEG", "CMYK"), "c.jpg"), ("c.jpg: has CMYK colours.",)),
    Case("an animation", "check_data", lambda p: p.image(animation()), ("c.png: is an animation of 2 pictures.",)),
    Case("a GIF by another name", "check_data", lambda p: p.image(encoded(GREY, "GIF")), ("c.png: is not an image in PNG",)),
    Case("a WebP", "check_data", lambda p: p.image(encoded(RGB, "WEBP"), "c.webp"), ("c.webp: is in a format that is not read.",)),
    Case("16 bits among 8", "check_data", lambda p: p.image(png(32, 32, 16, 2, bytes(32 * (1 + 32 * 6)))), ("c.png: has uint16 values",)),
    Case("16 bits with alpha", "check_data", lambda p: p.image(png(32, 32, 16, 4, bytes(32 * (1 + 32 * 4)))), ("c.png: is 16-bit grey with alpha",)),
    Case("not a number", "check_data", lambda p: p.image(tiff(np.full((32, 32, 3), np.nan, np.float32)), "c.tif"), ("c.tif",)),
    Case("two channels", "check_data", lambda p: p.image(tiff(np.zeros((32, 32, 2), np.uint8), photometric="minisblack", planarconfig="contig"), "c.tif"), ("c.tif: has 2 channels",)),
    Case("a TIFF of pages", "check_data", lambda p: p.image(tiff(np.zeros((4, 32, 32), np.uint8), photometric="minisblack"), "c.tif"), ("c.tif: holds 4 pages",)),
    Case("one pixel", "check_data", lambda p: p.image(encoded(RGB[:1, :1])), ("c.png: the image is 1x1 (height x width), its mask 32x32.",)),
    Case("a turned photograph", "check_data", lambda p: p.image(rotated(), "c.jpg"), ("the image is 32x24 (height x width), its mask 32x32",)),
    Case("a bomb", "check_data", lambda p: p.image(png(60000, 60000, 8, 2)), ("c.png: has more than 178 million pixels.",)),
    Case("a bomb as a TIFF", "check_data", lambda p: p.image(tiff(np.zeros((1, 1), np.uint8)).replace(b"\0\1\4\0\1\0\0\0\1\0\0\0", b"\0\1\4\0\1\0\0\0\xff\xff\xff\0"), "c.tif"), ("c.tif",)),
    Case("a promise not kept", "check_data", lambda p: p.mask(png(32, 32, 8, 0, b"\0" * 40)), ("c.png: cannot be",)),
    Case("a folder by an image's name", "check_data", lambda p: [(removed(p, "images/train/c.png"), (p.folder / "images/train/c.png").mkdir()), "mine.yaml"][1:], ("a mask without an image",)),
    Case("a link to nothing", "check_data", lambda p: [removed(p, "images/train/c.png"), *symlink(p, "images/train/c.png", "none.png")][1:], ("c.png: no such file.",)),
    Case("a link to itself", "check_data", lambda p: [removed(p, "images/train/c.png"), *symlink(p, "images/train/c.png", "c.png")][1:], ("c.png: cannot be read",)),
    Case("a circle of links", "check_data", lambda p: symlink(p, "images/train/again", ".."), ("leads back, by a link, into a folder that it lies in.",)),
    Case("a name of three scripts on two lines", "check_data", lambda p: [p.file("images/train/a b\nü 図.png"), p.file("masks/train/a b\nü 図.png"), "mine.yaml"][2:], ("ü 図.png: is empty",)),
    Case("a mask of colours", "check_data", lambda p: p.mask(encoded(RGB + np.arange(3, dtype=np.uint8))), ("masks/train/c.png: is an RGB picture",)),
    Case("a mask in JPEG", "check_data", lambda p: p.mask(encoded(LABELS, "JPEG")), ("masks/train/c.png: is a mask in JPEG, whose compression changes label values. Save it as PNG.",)),
    Case("a mask one can see through", "check_data", lambda p: p.mask(encoded(np.dstack([RGB, LABELS]))), ("transparent",)),
    Case("a mask of fractions", "check_data", lambda p: p.mask(tiff(np.full((32, 32), 0.5, np.float32)), "c.tif"), ("c.tif: is a mask of float32 values, 0.5 at row 0",)),
    Case("a mask of another size", "check_data", lambda p: p.mask(encoded(LABELS[:20])), ("the image is 32x32 (height x width), its mask 20x32.",)),
    Case("a value of no class", "check_data", lambda p: p.mask(encoded(LABELS + 40)), ("value 40 (row 0, column 0) is not in classes.yaml",)),
    Case("a mask that is ignored", "check_data", lambda p: p.mask(encoded(np.full((32, 32), 255, np.uint8))), ("every pixel is ignored.",)),
    Case("one class alone", "check_data", lambda p: [[p.file(f"masks/{n}", encoded(LABELS * 0)) for n in ("train/a.png", "train/c.png")], "mine.yaml"][1:], ("hold the class ground alone",)),
    Case("one image in two splits", "check_data", lambda p: [shutil.copy(p.folder / "images/train/a.png", p.folder / "images/val/b.png"), "mine.yaml"][1:], ("byte by byte",)),
    Case("training on a broken image", "train", lambda p: p.image(encoded(RGB)[:70]), ("c.png: cannot be", "Fix these first.")),
    Case("training on a broken image, unchecked", "train", lambda p: [p.file("images/train/a.png", encoded(RGB)[:70]), "mine.yaml", "data.check=false"][1:], ("a.png: cannot be",)),
    Case("training without labels", "train", lambda p: [*removed(p, "masks/train"), "data.train_split=train"], ("masks/train: no such folder.",)),
    Case("scoring without labels", "test", lambda p: [(p.folder / "images/val").rename(p.folder / "images/test"), "--checkpoint", str(p.checkpoint), f"data.root={p.folder}", "data.val_split=test", "--out", "out"][1:], ("has no labels to score against.",)),
]  # fmt: skip

# Checkpoints

TEST = ["--checkpoint", "x.pt"]
CHECKPOINTS = [
    Case("no checkpoint", "test", lambda p: TEST, ("x.pt: no such file.",)),
    Case("a folder as checkpoint", "test", lambda p: ["--checkpoint", "images"], ("images: is a folder.",)),
    Case("a checkpoint of no bytes", "test", lambda p: [p.file("x.pt"), *TEST][1:], ("x.pt: cannot be read",)),
    Case("a checkpoint of words", "test", lambda p: [p.file("x.pt", "weights"), *TEST][1:], ("x.pt: cannot be read",)),
    Case("half a checkpoint", "test", lambda p: [p.file("x.pt", p.checkpoint.read_bytes()[:200_000]), *TEST][1:], ("x.pt: cannot be read",)),
    Case("a pickle that runs code", "test", lambda p: [p.file("x.pt", pickle.dumps(Runs())), *TEST][1:], ("x.pt: cannot be read safely", "nothing was executed")),
    Case("a checkpoint that runs code", "test", lambda p: [torch.save({"model": Runs()}, p.folder / "x.pt"), *TEST][1:], ("x.pt: cannot be read safely", "nothing was executed")),
    Case("an archive of something else", "test", lambda p: [p.file("x.pt", zipped({"a.txt": b"a"})), *TEST][1:], ("x.pt: cannot be read safely",)),
    Case("a tensor larger than the world", "test", lambda p: [p.file("x.pt", safetensors_of(10**15)), *TEST][1:], ("x.pt: cannot be read",)),
    Case("a checkpoint without tensors", "test", lambda p: [torch.save({"a": 1}, p.folder / "x.pt"), *TEST][1:], ("x.pt: holds no tensors",)),
    Case("a network of no known family", "test", lambda p: [torch.save({"a": torch.zeros(3)}, p.folder / "x.pt"), *TEST][1:], ("x.pt",)),
    Case("a checkpoint of the future", "test", lambda p: p.state(format=99), ("has format 99", "Update hrseg.")),
    Case("settings of no hrseg", "test", lambda p: p.state(config={"modell": {}}), ("changed.pt", "modell")),
    Case("settings of no kind", "test", lambda p: p.state(config=3), ("data/images: no such folder.",)),
    Case("classes of no kind", "test", lambda p: p.state(classes=7), ("changed.pt",)),
    Case("a task of no kind", "test", lambda p: p.state(task="guess"), ("changed.pt",)),
    Case("a normalisation of no kind", "test", lambda p: p.state(normalisation={"mean": "x"}), ("changed.pt",)),
    Case("a normalisation of other images", "test", lambda p: p.state(normalisation=NORMALISATION), ("changed.pt",)),
    Case("weights of another network", "test", lambda p: p.state(model={"a": torch.zeros(2)}, ema=None), ("changed.pt",)),
    Case("code out of a checkpoint", "test", lambda p: p.state(config={**torch.load(p.checkpoint)["config"], "model": {"arch": "os:system"}}), ("os:system", "--trust-code")),
    Case("classes of another data set", "test", lambda p: [p.file("classes.yaml", "[a, b, c]"), "--checkpoint", str(p.checkpoint), f"data.root={p.folder}"][1:], ("are not the checkpoint's",)),
    Case("a data set that is gone", "test", lambda p: ["--checkpoint", str(p.checkpoint), "data.root=gone"], ("gone/images: no such folder.",)),
    Case("two configs", "test", lambda p: ["a.yaml", "b.yaml", "--checkpoint", "x.pt"], ("one word too many",)),
    Case("a definition that is not", "test", lambda p: ["--checkpoint", str(p.checkpoint), f"data.root={p.folder}", "--definition", "voc"], ("voc",)),
    Case("scores below a file", "test", lambda p: ["--checkpoint", str(p.checkpoint), f"data.root={p.folder}", "--out", "mine.yaml/out"], ("mine.yaml/out",)),
    Case("start weights of another size", "train", lambda p: ["mine.yaml", f"model.weights={p.checkpoint}", "model.encoder=hrnetv2_w18"], ("Set model.encoder=hrnetv2_w18_small_v1",)),
    Case("nothing to convert", "convert", lambda p: ["x.pth"], ("x.pth: no such file.",)),
    Case("a folder to convert", "convert", lambda p: ["images", "--inspect"], ("images: is a folder.",)),
    Case("code to convert", "convert", lambda p: [p.file("x.pth", pickle.dumps(Runs()))], ("x.pth: cannot be read safely",)),
    Case("JSON to convert", "convert", lambda p: [p.file("x.pth", '{"a": 1}')], ("x.pth: cannot be read as a checkpoint: it is text that begins with '{\"a\": 1}'.",)),
    Case("a checkpoint with a flipped bit", "test", lambda p: [p.file("x.pt", flipped(p.checkpoint.read_bytes())), *TEST][1:], ("x.pt: is damaged: the checksum of",)),
    Case("half a safetensors", "convert", lambda p: [p.file("x.safetensors", safetensors_of(4)[:-3])], ("x.safetensors: cannot be read",)),
    Case("a header without end", "convert", lambda p: [p.file("x.safetensors", struct.pack("<Q", 2**62) + b"{}")], ("x.safetensors: cannot be read",)),
    Case("a family that is not", "convert", lambda p: [str(p.checkpoint), "--to", "keras"], ("usage:", "keras")),
    Case("a family of other heads", "convert", lambda p: [str(p.checkpoint), "--to", "openmmlab_pose"], ()),
    Case("itself as target", "convert", lambda p: [str(p.checkpoint), "--out", str(p.checkpoint)], ("is the source itself.",)),
    Case("a target below a file", "convert", lambda p: [str(p.checkpoint), "--out", "mine.yaml/x.pth"], ("mine.yaml/x.pth: cannot be written",)),
    Case("an address without a checksum", "convert", lambda p: ["https://example.org/w.pth"], ("#sha256=",)),
    Case("a recipe of no kind", "convert", lambda p: [p.file("r.yaml", "[1]")], ("r.yaml",)),
    Case("a recipe with a tag", "convert", lambda p: [p.file("r.yaml", "!!python/name:os.system")], ("r.yaml, line 1",)),
    Case("no run to report", "report", lambda p: ["none"], ("none",)),
    Case("a run without scores", "report", lambda p: ["images"], ("images",)),
    Case("nothing to predict with", "predict", lambda p: ["--checkpoint", "x.pt", "images/train/a.png", "--out", "out"], ("x.pt: no such file.",)),
    Case("a broken image to predict", "predict", lambda p: [*p.image(encoded(RGB)[:70])[1:], "--checkpoint", str(p.checkpoint), "images/train/c.png", "--out", "out"], ("c.png: cannot be",)),
    Case("an image that is not there", "predict", lambda p: ["--checkpoint", str(p.checkpoint), "none.png", "--out", "out"], ("none.png",)),
    Case("predictions below a file", "predict", lambda p: ["--checkpoint", str(p.checkpoint), "images/train/a.png", "--out", "mine.yaml/out"], ("mine.yaml/out",)),
    Case("nothing to export", "export", lambda p: ["--checkpoint", "x.pt", "--format", "onnx", "--out", "x.onnx"], ("x.pt: no such file.",)),
    Case("no picture for the card", "export", lambda p: ["--checkpoint", "x.pt", "--format", "hub", "--out", "x", "--picture", "none.png"], ("none.png",)),
    Case("a format that is not", "export", lambda p: ["--checkpoint", str(p.checkpoint), "--format", "tflite", "--out", "x"], ("usage:", "tflite")),
    Case("no config for a cache", "cache", lambda p: ["build", "none.yaml"], ("none.yaml: no such file.",)),
    Case("a cache of a broken image", "cache", lambda p: ["build", *p.image(encoded(RGB)[:70]), "data.cache=raw"], ("c.png: cannot be",)),
    Case("no runs to compare", "compare", lambda p: ["none", "images"], ("none",)),
    Case("runs without evidence", "compare", lambda p: [p.file("a.npz", b"PK"), "a.npz"], ("a.npz",)),
    Case("evidence that runs code", "compare", lambda p: [p.file("a.npz", pickled_array()), "a.npz"], ("a.npz",)),
    Case("nothing to serve", "serve", lambda p: ["--checkpoint", "x.pt"], ("x.pt: no such file.",)),
    Case("no folds", "folds", lambda p: ["none"], ("none",)),
    Case("no model to ask", "doctor", lambda p: ["none", "--out", "out"], ("none",)),
    Case("no decisions", "doctor", lambda p: ["apply", p.file("d.json", "[1]"), "--out", "out"], ("d.json: holds no decisions",)),
    Case("no sweep", "sweep", lambda p: ["none.yaml"], ("none.yaml: no such file.",)),
    Case("a sweep of no kind", "sweep", lambda p: [p.file("s.yaml", "[1]")], ("s.yaml",)),
    Case("nothing to measure", "benchmark", lambda p: ["everything"], ("usage:", "everything")),
]  # fmt: skip

# Exports of labelling tools


def export(place: Place, content: Any, name: str = "x.json", *words: str) -> list[str]:
    """The words that import a file of annotations beside an image a.png. The target lies outside, for its folder changes."""
    shutil.copy(place.folder / "images/train/a.png", place.folder / "a.png")
    place.file(name, content if isinstance(content, str | bytes) else json.dumps(content))
    return [name, "--out", str(place.folder.parent.parent / "imported"), *(words or ("--unlabelled", "ignore"))]


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 32}],
    "categories": [{"id": 1, "name": "box"}],
}
TRIANGLE = {"id": 5, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 20, 1, 20, 20]]}
COCO["annotations"] = [TRIANGLE]
IMPORTS = [
    Case("nothing to import", "import", lambda p: ["none", "--out", "out"], ("none: no such file or folder.",)),
    Case("no place to import to", "import", lambda p: ["images"], ("usage:", "--out")),
    Case("an import onto a data set", "import", lambda p: [*export(p, COCO)[:2], "images"], ("images: is there already.",)),
    Case("an import below a file", "import", lambda p: [*export(p, COCO)[:2], "mine.yaml/out", "--unlabelled", "ignore"], ("mine.yaml/out: cannot be written",)),
    Case("an import of words", "import", lambda p: export(p, "words", "x.txt"), ("x.txt: is in no format that is recognised.",)),
    Case("half a JSON", "import", lambda p: export(p, json.dumps(COCO)[:-30]), ("x.json: is not JSON",)),
    Case("a deep JSON", "import", lambda p: export(p, "[" * 100_000), ("x.json: is not JSON", "nested")),
    Case("JSON of no kind", "import", lambda p: export(p, [1, 2]), ("x.json: is in no format that is recognised.",)),
    Case("a format that is not known", "import", lambda p: export(p, COCO, "x.json", "--format", "coko"), ("--format", "Did you mean 'coco'?")),
    Case("another format than said", "import", lambda p: export(p, [1], "x.json", "--format", "coco"), ("x.json",)),
    Case("pixels of which nothing is said", "import", lambda p: export(p, COCO, "x.json", "--copy"), ("--unlabelled background",)),
    Case("categories of no kind", "import", lambda p: export(p, {**COCO, "categories": [7]}), ("x.json: categories.0",)),
    Case("a broken annotation", "import", lambda p: export(p, {**COCO, "annotations": [{**TRIANGLE, "category_id": 2}]}), ("annotation id 5: there is no category with the id 2.", "--skip-broken")),
    Case("an image of another size", "import", lambda p: export(p, {**COCO, "images": [{**COCO["images"][0], "width": 31}]}), ("32x32", "32x31")),
    Case("an image that leads out", "import", lambda p: export(p, {**COCO, "images": [{**COCO["images"][0], "file_name": "../../../etc/passwd"}]}), ("there is no image '../../../etc/passwd'",)),
    Case("entities in XML", "import", lambda p: export(p, '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "b">]><annotations>&a;</annotations>', "x.xml", "--format", "cvat"), ("x.xml: declares entities",)),
    Case("half an XML", "import", lambda p: export(p, "<annotations><image", "x.xml"), ("x.xml: is not XML",)),
    Case("an option of another format", "import", lambda p: export(p, COCO, "x.json", "--line-width", "3"), ("--line-width", "is for labelme")),
    Case("a line of no width", "import", lambda p: export(p, COCO, "x.json", "--line-width", "0"), ("usage:", "--line-width")),
    Case("an archive of words", "import", lambda p: export(p, "words", "x.zip"), ("x.zip: cannot be unpacked",)),
    Case("an archive that leads out", "import", lambda p: export(p, zipped({"../../x.json": b"{}"}), "x.zip"), ("x.zip: holds a file whose name leads out",)),
    Case("an archive that explodes", "import", lambda p: export(p, zipped({"x.json": bytes(10**8)}), "x.zip"), ("x.zip: would grow to",)),
    Case("half an archive", "import", lambda p: export(p, zipped({"x.json": json.dumps(COCO).encode()})[:-40], "x.zip"), ("x.zip: cannot be unpacked",)),
]  # fmt: skip

CASES = [*SETTINGS, *DATA, *CHECKPOINTS, *IMPORTS]


def pickled_array() -> bytes:
    file = io.BytesIO()
    np.savez(file, names=np.array([Runs()], object))
    return file.getvalue()


def safetensors_of(numbers: int) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The sound data set, a checkpoint of it, the weights alone, and the folder of a run."""
    folder = tmp_path_factory.mktemp("input")
    rng = np.random.default_rng(0)
    for name in ("train/a", "train/c", "val/b"):
        for kind, array in (("images", rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)), ("masks", LABELS)):
            path = folder / "sound" / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(array))
    (folder / "sound" / "classes.yaml").write_text("[ground, box, disc]")
    plain = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"root": ".", "workers": 0},
        "augment": {"crop": [32, 32]},
        "loss": [{"name": "cross_entropy"}],
        "train": {"iterations": 2, "batch_size": 2},
        "run": {"dir": "run"},
    }
    (folder / "sound" / "mine.yaml").write_text(yaml.safe_dump(plain))
    config = parse({**plain, "data": {"root": str(folder / "sound"), "workers": 0}})
    space = build.dataset(config, "train").space
    model = build.model(config, space, 3)
    state = {"model": model.state_dict(), "ema": None, "optimizer": None, "scaler": None, "step": 1, "epoch": 0}
    meaning = {"config": config.to_plain(), "normalisation": Normalisation().to_plain(), **space.to_plain()}
    checkpoint.save(folder / "model.pt", {**state, "rng": {"seed": 0}, "best": {"miou": 0.1, "step": 1}, **meaning})
    torch.save(model.state_dict(), folder / "flat.pth")
    (folder / "old").mkdir()
    (folder / "old" / "log.jsonl").write_text("")
    return folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    stats = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.fixture
def place(sound, monkeypatch):
    """A fresh copy, in which the command starts."""
    folder = sound / "place"
    shutil.copytree(sound / "sound", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["tools/command.py"])  # which argparse puts before its own errors
    yield Place(folder)
    shutil.rmtree(folder)


def refused(err: str, told: Sequence[str]) -> None:
    found = list(
        re.finditer(r"^.{0,9}?(error|usage): ", re.sub(r"[^\n]*\r", "", err), re.MULTILINE)
    )  # \r: a progress bar
    assert len(found) == 1 and "Traceback" not in err, err
    message = err[err.index(f"{found[0][1]}: ") :] if found[0][1] == "error" else err
    assert all(text in message for text in told), message
    where, _, what = message.partition(": ")[2].partition(": ")
    assert where and (what or found[0][1] == "usage")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.command}: {case.what}")
def test_bad_input_is_answered_with_a_sentence(case, place, sound, capsys):
    words = list(case.words(place))
    before = listing(sound)
    code = importlib.import_module(MODULES[case.command]).main(words)
    out, err = capsys.readouterr()
    assert code == 2, f"{code}\n{out}\n{err}"
    refused(err, case.told)
    assert listing(sound) == before


def test_the_place_is_sound(place, capsys):
    # Else the cases above would be refused for something else.
    main = importlib.import_module(MODULES["check_data"]).main
    assert main(["mine.yaml"]) == 0, capsys.readouterr().err


PROCESSES = [next(case for case in CASES if case.what == what) for what in (
    "a misspelt key", "half a checkpoint", "an image of no bytes", "code to convert", "a negative learning rate",
)]  # fmt: skip


@pytest.mark.parametrize("case", PROCESSES, ids=lambda case: f"{case.command}: {case.what}")
def test_so_it_is_in_a_process_of_its_own(case, place, sound):
    # Forked, so that the seconds in which torch is imported are spent once.
    words = list(case.words(place))
    before = listing(sound)
    code, out, err = forked(ROOT / "tools" / f"{case.command}.py", words)
    assert code == 2, err
    refused(err, case.told)
    assert listing(sound) == before and "Traceback" not in out


def forked(script: Path, words: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a script that runs in a child of this process."""
    import runpy
    import tempfile

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                sys.argv = [str(script), *words]
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as exit:
                code = int(exit.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return os.waitstatus_to_exitcode(status), *texts


@pytest.mark.long
@pytest.mark.parametrize("case", PROCESSES, ids=lambda case: f"{case.command}: {case.what}")
def test_so_it_is_from_a_shell(case, place, sound):
    words = list(case.words(place))
    before = listing(sound)
    command = [sys.executable, str(ROOT / "tools" / f"{case.command}.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 2
    refused(done.stderr, case.told)
    assert listing(sound) == before
