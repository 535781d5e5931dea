"""Whole jobs, from the command to its last file, beside scripts as people write them without hrseg."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from hrseg import config
from hrseg.benchmark import plain_scripts, scenes, textbook
from hrseg.benchmark.measure import Case, Options, Row, Side, missing
from hrseg.data.cityscapes_labels import CLASSES
from hrseg.fast import torch_private
from hrseg.task import LabelSpace, Normalisation
from hrseg.weights import checkpoint

SCRIPTS = Path(plain_scripts.__file__).parent
VARIANT, SMALL = "w18", "w18_small_v1"
MIN_AGREEMENT = 0.97  # of the labels of a large picture: where tiles meet, the two sides blend them differently
POLL_S = 0.02


class Job:
    """A command that runs in a process of its own and writes into a new folder each time; a call returns its seconds.

    words: the command; {out} in it becomes the folder. until: the job counts as done when this file below the folder
    is there and has content, or has appeared at all where `empty` is set; then its processes are killed.
    """

    def __init__(self, words: Sequence[str | Path], out: Path, *, until: str = "", empty: bool = False):
        self.words, self.out, self.until, self.empty = [str(word) for word in words], out, until, empty
        self.peak_mib = 0.0
        self._count = 0

    @property
    def folder(self) -> Path:
        """The folder of the latest run."""
        return self.out / str(self._count)

    def __call__(self) -> float:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._count += 1
        self.out.mkdir(parents=True, exist_ok=True)
        log = self.out / "log"
        words = [word.replace("{out}", str(self.folder)) for word in self.words]
        with log.open("wb") as file:
            start = time.perf_counter()
            process = subprocess.Popen(words, cwd=self.out, stdout=file, stderr=file, start_new_session=True)
            while process.poll() is None and not self._has_begun():
                # Not ru_maxrss: it also counts what this process held when it started that one.
                self.peak_mib = max(self.peak_mib, _peak_mib(process.pid))
                time.sleep(POLL_S)
            elapsed_s = time.perf_counter() - start
        if self._has_begun():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            assert process.returncode == 0 and not self.until, f"{words} ended with {process.returncode}: {said}"
        return elapsed_s

    def _has_begun(self) -> bool:
        """Whether the file is there that says so; never for a job that is run to its end."""
        path = self.folder / self.until
        return bool(self.until) and path.exists() and (self.empty or path.stat().st_size > 0)


def _peak_mib(pid: int) -> float:
    """The most memory that a process has had so far; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def cases(options: Options) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scenes.write(root / "data", 8 if options.short else 40)
        weights = _weights(root)
        yield scoring(root, weights)
        yield predicting(root, weights, 8 if options.short else 100)
        yield from large_picture(root, weights, 4096 if options.short else 20_000)
        yield from training(root, 20 if options.short else 100)


def scoring(root: Path, weights: tuple[Path, Path]) -> Case:
    """From PNG files to mean IoU."""
    data = root / "data"
    count = len(list((data / "leftImg8bit").rglob("*.png")))
    ours = _hrseg("test", "--checkpoint", weights[0], f"data.root={data}", "--out", "{out}")
    jobs = {
        "hrseg test": Job(ours, root / "ours"),
        "hrseg test, bf16": Job([*ours, "eval.precision=bf16"], root / "ours_bf16"),
        "plain script": _script("score.py", data, "val", weights[1], VARIANT, root / "plain.json", out=root / "plain"),
    }
    sides: dict[str, Side | str] = {**jobs}
    if reason := missing("torchmetrics"):
        sides["plain script"] = reason
    if not torch_private.cpu_computes_bf16():
        sides["hrseg test, bf16"] = "the processor does not compute in bf16"

    def equal() -> str:
        jobs["hrseg test"](), jobs["plain script"]()
        found = json.loads((jobs["hrseg test"].folder / "metrics.json").read_text())["miou"]
        theirs = json.loads((root / "plain.json").read_text())["miou"]
        assert abs(found - theirs) < 1e-4, f"mean IoU {found:.5f} and {theirs:.5f}"
        return f"mean IoU within {abs(found - theirs):.0e}"

    what = f"tools/test.py, {VARIANT}, {count} images of 1024x2048"
    against = "timm and textbook head, cv2, eager, torchmetrics"
    rows = [
        Row(f"{what}, fp32", against, ["hrseg test"], ["plain script"], 0.40, equal=equal),
        Row(f"{what}, bf16", f"{against}, fp32", ["hrseg test, bf16"], ["plain script"], 0.20),
    ]
    return Case(sides, rows, unit="s, self-timed")


def predicting(root: Path, weights: tuple[Path, Path], count: int) -> Case:
    """From pictures to class indices and overlays."""
    pictures = root / "pictures"
    pictures.mkdir()
    drawn = sorted((root / "data" / "leftImg8bit").rglob("*.png"))
    for number in range(count):
        os.link(drawn[number % len(drawn)], pictures / f"{number:03}.png")
    ours = Job(
        _hrseg("predict", "--checkpoint", weights[0], pictures, "--out", "{out}", "--no-colors"), root / "predict"
    )
    plain = _script("segment.py", pictures, weights[1], VARIANT, "{out}", out=root / "segment")

    def equal() -> str:
        ours(), plain()
        shares = [_agreement(path, ours.folder / "ids" / path.name) for path in (plain.folder / "ids").iterdir()]
        assert min(shares) > 0.999, f"{min(shares):.2%} of a picture's labels agree"
        return f"{np.mean(shares):.3%} of the labels"

    what = f"tools/predict.py, {VARIANT}, {count} pictures of 1024x2048 to class indices and overlays"
    row = Row(what, "timm and textbook head in a loop, PIL", ["hrseg predict"], ["plain script"], 0.45, equal=equal)
    return Case({"hrseg predict": ours, "plain script": plain}, [row], unit="s, self-timed")


def large_picture(root: Path, weights: tuple[Path, Path], side: int) -> Iterator[Case]:
    """A picture that is predicted in tiles: time, then the memory of the same runs."""
    picture = root / "large.png"
    tile = np.asarray(Image.open(next((root / "data" / "leftImg8bit").rglob("*.png"))))
    repeats = -(-side // tile.shape[0]), -(-side // tile.shape[1]), 1
    cv2.imwrite(str(picture), np.tile(tile, repeats)[:side, :side, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    ours = Job(
        _hrseg("predict", "--checkpoint", weights[0], picture, "--out", "{out}", "--no-colors", "--no-overlay"),
        root / "large",
    )
    plain = _script("segment_large.py", picture, weights[1], VARIANT, "{out}/large.tif", out=root / "large_plain")
    sides: dict[str, Side | str] = {"hrseg predict": ours, "plain script": missing("rasterio") or plain}

    def equal() -> str:
        import rasterio

        ours(), plain()
        with rasterio.open(plain.folder / "large.tif") as file:
            theirs = file.read(1)
        share = float((theirs == np.asarray(Image.open(ours.folder / "ids" / "large.png"))).mean())
        assert share > MIN_AGREEMENT, f"{share:.2%} of the labels agree"
        return f"{share:.2%} of the labels; tiles overlap differently"

    what, against = f"tools/predict.py, {VARIANT}, a PNG of {side}x{side}", "timm and textbook head, rasterio windows"
    yield Case(sides, [Row(what, against, ["hrseg predict"], ["plain script"], 0.6, equal=equal)], unit="s, self-timed")
    peaks: dict[str, Side | str] = {"hrseg predict": lambda: ours.peak_mib}
    peaks["plain script"] = missing("rasterio") or (lambda: plain.peak_mib)
    yield Case(peaks, [Row(f"{what}, peak memory", against, ["hrseg predict"], ["plain script"], 1.0)], unit="MiB")


def training(root: Path, iterations: int) -> Iterator[Case]:
    """A short training on CamVid with one validation and its checkpoints, and the time to its first iteration."""
    data = Path(os.environ.get("HRSEG_SHARED", "../shared")) / "data" / "camvid"
    reason = missing("lightning") or ("" if data.is_dir() else f"{data} is not there: CamVid is not part of hrseg")
    settings = [f"data.root={data.absolute()}", "loss=[{name: cross_entropy}]", "train.batch_size=6", "run.dir={out}",
                "train.ema=null"]  # fmt: skip
    lightning = data.absolute(), SMALL, str(iterations), "6", "{out}"

    def ours(name: str, *words: str, until: str = "") -> Job:
        return Job([*_hrseg("train", "camvid.yaml"), *settings, *words], root / name, until=until)

    whole: dict[str, Side | str] = {
        "hrseg train": reason or ours("train", f"train.iterations={iterations}", f"train.val_every={iterations}"),
        "Lightning": reason or _script("train.py", *lightning, out=root / "lightning"),
    }
    what = f"tools/train.py, {SMALL}, CamVid, {iterations} iterations of 6 images of 240x320, one validation"
    against = "Lightning, albumentations, timm and textbook head"
    yield Case(whole, [Row(what, against, ["hrseg train"], ["Lightning"], 0.70)], unit="s, self-timed")
    first: dict[str, Side | str] = {
        "hrseg train": reason or ours("start", "train.log_every=1", until="log.jsonl"),
        "Lightning": reason
        or _script("train.py", *lightning, out=root / "lightning_start", until="first_step", empty=True),
    }
    row = Row(f"{what}: to the end of the first", against, ["hrseg train"], ["Lightning"], 0.70)
    yield Case(first, [row], unit="s, self-timed")


def _weights(root: Path) -> tuple[Path, Path]:
    """The same weights as a checkpoint of hrseg and as the plain scripts' file."""
    theirs, ours = textbook.pair(VARIANT)
    settings = config.parse({"model": {"encoder": f"hrnetv2_{VARIANT}_nearest"}, "data": {"dataset": "cityscapes"}})
    paths = root / "hrseg.pt", root / "textbook.pth"
    state = {"model": ours.state_dict(), "ema": None, "step": 0, "config": settings.to_plain()}
    meaning = {"normalisation": Normalisation().to_plain(), **LabelSpace(CLASSES).to_plain()}
    checkpoint.save(paths[0], state | meaning)
    torch.save(theirs.state_dict(), paths[1])
    return paths


def _hrseg(*words: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "hrseg", *words]


def _script(name: str, *words: str | Path, out: Path, until: str = "", empty: bool = False) -> Job:
    return Job([sys.executable, SCRIPTS / name, *words], out, until=until, empty=empty)


def _agreement(one: Path, other: Path) -> float:
    return float((np.asarray(Image.open(one)) == np.asarray(Image.open(other))).mean())
