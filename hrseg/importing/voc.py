"""PASCAL VOC's SegmentationClass with a labelmap.txt, which is also CVAT's "Segmentation mask 1.1"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hrseg.errors import DataError
from hrseg.importing.image_index import ImageIndex, split_of
from hrseg.importing.mask_files import named, packed, read_colors, translated
from hrseg.importing.records import (
    IGNORED,
    BrokenError,
    Categories,
    Color,
    Drawn,
    Options,
    Picture,
    Problem,
    Size,
    Source,
    Tree,
)
from hrseg.importing.text_files import read_text

LABELS, MASKS, OBJECTS, LISTS = "labelmap.txt", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"
VOID = (224, 224, 192)  # the border around objects
# Of the benchmark itself, which has no labelmap.txt. Source: the VOC 2012 development kit.
NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def _bases(tree: Tree) -> list[str]:
    """The folders, with '/' at the end, that hold a SegmentationClass."""
    found = {path.partition(f"{MASKS}/")[0] for path in tree.ending(".png") if f"/{MASKS}/" in f"/{path}"}
    return sorted(found)


def recognises(trees: Sequence[Tree]) -> bool:
    return any(_bases(tree) for tree in trees)


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Colours that labelmap.txt lists are classes, the border colour is ignored, any other one is an error."""
    categories, pictures = Categories(), []
    problems: list[Problem] = []
    for tree in trees:
        for base in _bases(tree):
            colors = _colors(tree, base)
            meaning = {packed(VOID): IGNORED}
            meaning |= {packed(color): categories.index(name, color) for name, color in colors}
            but = (f"{base}{MASKS}/", f"{base}{OBJECTS}/")
            index = ImageIndex([options.images] if options.images else [tree.root], but=() if options.images else but)
            splits = _splits(tree, base)
            for path in tree.ending(".png"):
                if not path.startswith(but[0]):
                    continue
                name = path[len(but[0]) : -len(".png")]
                where = str(tree.root / path)
                try:
                    key = index.find_stem(name, f"{base}JPEGImages")
                except BrokenError as error:
                    problems.append(Problem(where, error.what, "image"))
                    continue
                objects = tree.root / f"{but[1]}{name}.png"
                raster = partial(_drawn, tree.root / path, objects, meaning)
                pictures.append(Picture(where, index.by_path[key], key, splits.get(name), raster=raster))
    return Source("voc", categories.all, pictures, problems, complete=True)


def _colors(tree: Tree, base: str) -> list[tuple[str, Color]]:
    """name:red,green,blue:parts:actions in each line."""
    path = f"{base}{LABELS}"
    if path not in tree.files:
        return [(name, _voc_color(i)) for i, name in enumerate(NAMES)]
    entries: list[tuple[str, Color]] = []
    for number, line in enumerate(read_text(tree.root / path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = [part.strip() for part in rest.partition(":")[0].split(",")]
        if not name.strip() or len(values) != 3 or not all(v.isdecimal() and len(v) < 4 for v in values):
            raise DataError(
                f"{tree.root / path}, line {number}", "is not name:red,green,blue::, for example road:128,64,128::"
            )
        red, green, blue = map(int, values)
        if max(red, green, blue) > 255:
            raise DataError(f"{tree.root / path}, line {number}", "has a colour above 255.")
        if (red, green, blue) in [color for _, color in entries]:
            raise DataError(f"{tree.root / path}, line {number}", "has the colour of another class.")
        entries.append((name.strip(), (red, green, blue)))
    return entries


def _voc_color(index: int) -> Color:
    """The bits of an index, spread over the three channels. Source: VOClabelcolormap of the development kit."""
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue


def _splits(tree: Tree, base: str) -> dict[str, str]:
    splits: dict[str, str] = {}
    for path in tree.ending(".txt"):
        if path.startswith(f"{base}{LISTS}/") and (split := split_of(Path(path).stem)):
            splits |= dict.fromkeys((line.strip() for line in read_text(tree.root / path).splitlines()), split)
    return splits


def _drawn(path: Path, objects: Path, meaning: dict[int, int], size: Size) -> Drawn:
    labels = translated(read_colors(path, size), meaning, path, named)
    if not objects.is_file():
        return Drawn(labels)
    found = read_colors(objects, size)
    found[(found == packed(VOID)) | (labels == IGNORED)] = 0
    # An object of several classes is one of each.
    return Drawn(labels, np.where(found == 0, 0, found * 256 + labels % 256).astype(np.int64))
