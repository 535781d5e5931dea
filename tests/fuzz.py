"""Mutated settings, checkpoints and pictures: the readers give a result or an HrsegError, soon, and within bounds.

`python -m tests.fuzz --minutes 10` goes on until the time is up and keeps what it finds. Seeded: a seed gives the same
files again. A find becomes a test in tests/test_finds.py.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyogrio
import tifffile
import torch
from label_studio_converter.brush import encode_rle
from PIL import Image

from hrseg import config, weights
from hrseg.data.classes_file import read_classes_file
from hrseg.data.images import inspect_image, read_image, read_mask, read_palette
from hrseg.errors import HrsegError
from hrseg.importing.class_tables import read_table
from hrseg.importing.importer import import_data
from hrseg.importing.rasters import Tile, tile_as_tiff
from hrseg.importing.records import Options
from hrseg.weights import checkpoint
from tests.conftest import ROOT

SECONDS = 20  # for one file, on a busy machine
GIB = 4  # of memory, more than the process has when it starts
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1)
WORDS = (
    b"&a ",
    b"*a ",
    b"!!python/object:os.system ",
    b"- ",
    b"? ",
    b"{",
    b"[",
    b": ",
    b"<<: ",
    b"\t",
    b"\x00",
    b"1e999",
    b".nan",
)


# Seeds


def settings_files() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))] + [
        b"[road, {name: sky, id: 3, color: [1, 2, 3]}]",
        b"a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}}\n",
    ]


def checkpoint_files() -> list[bytes]:
    tensors = {"conv.weight": torch.arange(12.0).reshape(1, 3, 2, 2), "bn.num_batches_tracked": torch.tensor(3)}
    whole = {
        **{"format": 1, "model": tensors, "ema": None, "optimizer": None, "scaler": None, "step": 1, "epoch": 0},
        **{
            "rng": {"seed": 0},
            "best": {"miou": 0.5, "step": 1},
            "config": config.Config().to_plain(),
            "task": "binary",
        },
        **{"classes": [["a", [0, 0, 0], None]], "ignore_index": 255},
        "normalisation": {"mean": [0.5], "std": [0.5], "input_range": [[0, 255]]},
    }
    files = []
    for content in (tensors, whole):
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            file = io.BytesIO()
            torch.save(content, file, **options)
            files.append(file.getvalue())
    arrays = {"conv.weight": np.arange(6.0, dtype=np.float32), "scalar": np.float64(2)}
    files += [pickle.dumps(arrays, protocol) for protocol in (2, 4, 5)]
    import safetensors.torch

    return [*files, safetensors.torch.save(tensors, {"hrseg": "{}"})]


def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    files = []
    for array in (rng.integers(0, 256, (9, 7, 3), np.uint8), rng.integers(0, 5, (9, 7), np.uint8)):
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
            file = io.BytesIO()
            Image.fromarray(array).save(file, kind)
            files.append(file.getvalue())
        file = io.BytesIO()
        Image.fromarray(array).convert("P").save(file, "PNG")
        files.append(file.getvalue())
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 2**16, (9, 7), np.uint16)).save(file, "PNG")
    files.append(file.getvalue())
    for dtype in (np.uint8, np.uint16, np.float32):
        for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}):
            file = io.BytesIO()
            tifffile.imwrite(file, (rng.random((9, 7, 3)) * 200).astype(dtype), photometric="rgb", **options)
            files.append(file.getvalue())
    return files


def annotation_files() -> list[bytes]:
    """Exports of labelling tools in JSON, all about an image a.png."""
    runs = {"size": [9, 7], "counts": [3, 5, 55]}
    packed = {"size": [9, 7], "counts": "35g1"}
    areas = ([[1.5, 1, 6, 1, 6, 8]], [[0, 0, 3, 0, 3, 3], [4, 4, 6, 4, 6, 6]], runs, packed)
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 9, "width": 7}],
        "categories": [{"id": 2, "name": "cat", "supercategory": "pet"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 2 if i % 2 else 9, "segmentation": area, "iscrowd": i // 3}
            for i, area in enumerate(areas)
        ],
    }
    kinds = {"polygon": [[1, 1], [6, 1], [6, 8.5]], "circle": [[3, 3], [3, 5]], "rectangle": [[1, 1], [4, 6]]}
    kinds |= {"linestrip": [[1, 1], [4, 4], [1, 7]], "mask": [[1, 1], [4, 4]]}
    blob = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(blob, "PNG")
    mask = base64.b64encode(blob.getvalue()).decode()
    shapes = [{"label": k, "points": p, "shape_type": k, "group_id": None, "mask": mask} for k, p in kinds.items()]
    labelme = {"shapes": shapes, "imagePath": "a.png", "imageData": None, "imageHeight": 9, "imageWidth": 7}
    sized = {"id": "r", "original_width": 7, "original_height": 9}
    points = {"points": [[10, 10], [80, 10], [80, 90]], "polygonlabels": ["cat"]}
    brush = {"format": "rle", "rle": [int(v) for v in encode_rle(np.eye(9, 28, dtype=np.uint8).ravel() * 255)]}
    results = [
        {**sized, "type": "polygonlabels", "value": points},
        {**sized, "type": "brushlabels", "value": {**brush, "brushlabels": ["dog"]}},
    ]
    studio = [{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [{"result": results}]}]
    inside = {**labelme, "imagePath": "", "imageData": mask}
    return [json.dumps(plain).encode() for plain in (coco, labelme, inside, studio)]


def xml_files() -> list[bytes]:
    """CVAT's, about the same image."""
    shapes = """<polygon label="cat" points="1.0,1.5;6,1;6,8" z_order="1"></polygon>
    <box label="dog" xtl="1" ytl="1" xbr="3.5" ybr="4"/>
    <mask label="dog" rle="1, 2, 3, 2, 1" left="2" top="3" width="3" height="3"/>"""
    labels = "".join(f"<label><name>{name}</name><color>#0102ff</color></label>" for name in ("cat", "dog"))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    image = f'<image id="0" name="a.png" width="7" height="9">{shapes}</image>'
    entities = '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>'
    return [f"{head}<annotations>{meta}{image}</annotations>".encode() for head in ('<?xml version="1.0"?>', entities)]


# Mutations


def mutated(seed: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The seed after one to eight changes: bits, bytes, numbers at the limits, pieces cut, doubled or from another."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randrange(len(data) + 1)
        length = min(len(data) - place, rng.choice((1, 2, 4, 8, 32, 256)))
        kind = rng.randrange(8)
        if kind == 0 and length:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and length:
            data[place] = rng.randrange(256)
        elif kind == 2:
            width, order = rng.choice((1, 2, 4, 8)), rng.choice(("big", "little"))
            number = rng.choice(NUMBERS) % 2 ** (8 * width)
            data[place : place + width] = number.to_bytes(width, order)
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = bytes(data[place : place + length]) * rng.choice((1, 2, 50))
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[place : place + length] = other[start : start + length]
        elif kind == 6:
            data[place:place] = rng.choice(WORDS) * rng.choice((1, 1, 3, 400))
        elif kind == 7 and rng.random() < 0.2:
            del data[place:]
    return bytes(data)


# Readers


def read_settings(path: Path) -> None:
    for read in (lambda: config.load(path), lambda: read_classes_file(path)):
        quiet(read)


def read_checkpoint(path: Path) -> None:
    for read in (lambda: weights.inspect(str(path)), lambda: checkpoint.load(path)):
        quiet(read)


def read_picture(path: Path) -> None:
    for read in (lambda: read_image(path), lambda: read_mask(path), lambda: read_mask(path, colors=True)):
        quiet(read)
    quiet(lambda: read_palette(path))
    quiet(lambda: inspect_image(path))


def read_annotations(path: Path) -> None:
    image, out = path.parent / "a.png", path.parent / "out"
    if not image.is_file():
        Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(image)

    def read(name: str | None) -> None:
        try:
            options = Options((path,), out, unlabelled="background", skip_broken=True, format=name)
            import_data(options, told=lambda text: None)
        finally:
            shutil.rmtree(out, ignore_errors=True)
            assert {*path.parent.iterdir()} == {path, image}, "something was left behind"

    for name in (None, *FORMATS_OF[path.suffix]):
        quiet(partial(read, name))


def quiet(read: Callable[[], object]) -> None:
    try:
        read()
    except HrsegError as error:
        assert str(error.where) and error.what, "an error without a place or a reason"


def text_files() -> list[bytes]:
    """YOLO's polygons of one image."""
    return [b"0 0.1 0.1 0.9 0.1 0.9 0.9\n1 0.2 0.2 0.5 0.3 0.4 0.6 0.1 0.5\n"]


def read_yolo(path: Path) -> None:
    folder = path.parent / "source"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "a.txt")
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(folder / "a.png")
    (folder / "data.yaml").write_text("train: .\nval: .\nnames: [cat, dog]\n")
    options = Options((folder,), path.parent / "out", unlabelled="background", skip_broken=True)
    shutil.rmtree(options.out, ignore_errors=True)
    quiet(lambda: import_data(options, told=lambda text: None))


def tables() -> list[bytes]:
    return [b"name,r,g,b\nroad,128,64,128\nsky,1,2,3\n", b"0;road\n4;sky\n", b"a,#010203\nb,#ff0203\n"]


def geojson_files() -> list[bytes]:
    ring = [[1, -1], [6, -1], [6, -8.5], [1, -1]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    both = {"type": "MultiPolygon", "coordinates": [[ring], [[[0, 0], [1, 0], [1, -1], [0, 0]]]]}
    features = [{"type": "Feature", "properties": {"a": "x"}, "geometry": g} for g in (polygon, both)]
    return [json.dumps({"type": "FeatureCollection", "features": features}).encode()]


def geopackages() -> list[bytes]:
    shape = b"\1" + struct.pack("<IIIdddddddd", 3, 1, 4, 1, -1, 6, -1, 6, -8, 1, -1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gpkg"
        fields = {"fields": ["a"], "field_data": [np.array(["x"], object)], "geometry_type": "Polygon"}
        pyogrio.raw.write(path, geometry=np.array([shape], object), crs="EPSG:32632", **fields)
        return [path.read_bytes()]


def read_map_labels(path: Path) -> None:
    image, out = path.parent / "map.tif", path.parent / "out"
    tifffile.imwrite(image, np.ones((9, 7), np.uint8))
    options = Options((image,), out, labels=path, class_field="a", unlabelled="ignore", skip_broken=True)
    shutil.rmtree(out, ignore_errors=True)
    quiet(lambda: import_data(options, told=lambda text: None))


def archives() -> list[bytes]:
    image = io.BytesIO()
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(image, "PNG")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", image.getvalue())
        archive.writestr("x.json", annotation_files()[0])
    return [file.getvalue()]


def read_archive(path: Path) -> None:
    out = path.parent / "out"

    def read() -> None:
        try:
            options = Options((path,), out, unlabelled="background", skip_broken=True)
            import_data(options, told=lambda text: None)
        finally:
            shutil.rmtree(out, ignore_errors=True)
            assert {*path.parent.iterdir()} == {path}, "something was left behind"

    quiet(read)


FORMATS_OF = {".json": ("coco", "coco_panoptic", "labelme", "label_studio"), ".xml": ("cvat",)}
READERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Path], None], str]] = {
    "settings": (settings_files, read_settings, ".yaml"),
    "checkpoint": (checkpoint_files, read_checkpoint, ".pth"),
    "picture": (pictures, read_picture, ".png"),
    "annotations": (annotation_files, read_annotations, ".json"),
    "annotations in XML": (xml_files, read_annotations, ".xml"),
    "annotations in text": (text_files, read_yolo, ".txt"),
    "table of classes": (tables, lambda path: quiet(lambda: read_table(path)), ".csv"),
    "GeoJSON": (geojson_files, read_map_labels, ".geojson"),
    "GeoPackage": (geopackages, read_map_labels, ".gpkg"),
    "map": (pictures, lambda path: quiet(lambda: tile_as_tiff(path, Tile(0, 0, (5, 5)))), ".tif"),
    "archive": (archives, read_archive, ".zip"),
}


def files(kind: str, seed: int) -> Iterator[tuple[int, bytes]]:
    """Mutated files without end, each with its number."""
    seeds = READERS[kind][0]()
    number = 0
    while True:
        rng = random.Random(f"{kind} {seed} {number}")
        yield number, mutated(rng.choice(seeds), seeds, rng)
        number += 1


class TooLong(BaseException):
    """Not an Exception: nothing on the way catches it."""


def _too_long(*_: object) -> None:
    raise TooLong


def outcome(kind: str, data: bytes, folder: Path) -> str:
    """What went wrong with a file; "" where it was read or refused as it should be."""
    _, read, ending = READERS[kind]
    path = folder / f"file{ending}"
    path.write_bytes(data)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        read(path)
    except TooLong:
        return f"took more than {SECONDS} s\n{traceback.format_exc()}"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=READERS, action="append")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_finds"), help="folder for the files that were found")
    args = parser.parse_args()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + GIB * 2**30 + 2**33, resource.RLIM_INFINITY))
    kinds = args.kind or list(READERS)
    tried, seen = dict.fromkeys(kinds, 0), set()
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            end = time.monotonic() + 60 * args.minutes / len(kinds)
            for number, data in files(kind, args.seed):
                if time.monotonic() > end:
                    break
                tried[kind] += 1
                found = outcome(kind, data, Path(folder))
                place = [line.strip() for line in found.splitlines() if line.strip()][-4:]
                if found and (mark := (kind, *place[:1], place[-1][:60])) not in seen:
                    seen.add(mark)
                    args.keep.mkdir(exist_ok=True)
                    (args.keep / f"{kind}_{args.seed}_{number}").write_bytes(data)
                    print(f"--- {kind} {number}\n{found}", flush=True)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"tried {tried}, seed {args.seed}: {len(seen)} finds, {most:.1f} GiB at most")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
