"""Folders of images and masks: masks by colour or value with a table of classes, masks of 0 and 255, soft masks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from hrseg.console import counted
from hrseg.data.images import IMAGE_ENDINGS, ending_of, read_image, read_mask
from hrseg.data.pairs import size_mismatch, value_ranges
from hrseg.errors import DataError
from hrseg.importing.class_tables import Entry, read_table
from hrseg.importing.image_index import split_in_folders
from hrseg.importing.mask_files import by_color, by_value, packed
from hrseg.importing.records import (
    IGNORED,
    UNLABELLED,
    BrokenError,
    Categories,
    Drawn,
    Options,
    Picture,
    Problem,
    Size,
    Source,
    Tree,
)

IMAGE_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "rgb", "photos"}
MASK_FOLDERS = {"masks", "mask", "labels", "label", "annotations", "annotation", "gt", "groundtruth", "ground_truth"}
MASK_FOLDERS |= {"segmentation", "segmentations", "segmentationclass"}
SUFFIX = re.compile(r"[_-](mask|masks|label|labels|gt|seg|segmentation|groundtruth)$", re.IGNORECASE)
TABLES = ("class_dict.csv", "classes.csv", "classes.json", "labels.csv", "colors.csv", "colors.json", "labelmap.json")
SAMPLE = 40  # masks that are looked at where no table says what values mean
CLEAR = 32  # a soft pixel is clear if no channel is farther than this from a class's colour
JPEG = (".jpg", ".jpeg")
SOFT = (
    "Choose: --soft threshold (a pixel becomes the class that is nearest) or --soft ignore (pixels in between are left "
    "out of training and scores)."
)


def _key(path: str) -> tuple[str, bool]:
    """What an image and its mask have in common in their paths, and whether this is the mask."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    is_mask = any(part.lower() in MASK_FOLDERS for part in parts[:-1]) or SUFFIX.search(parts[-1]) is not None
    parts[-1] = SUFFIX.sub("", parts[-1])
    kept = [part for part in parts[:-1] if part.lower() not in IMAGE_FOLDERS | MASK_FOLDERS]
    return "/".join([*kept, parts[-1]]), is_mask


def _pairs(tree: Tree) -> tuple[dict[str, str], dict[str, str]]:
    """The images and the masks of a folder by what they have in common."""
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    for path in tree.files:
        if ending_of(path) in IMAGE_ENDINGS:
            key, is_mask = _key(path)
            found = masks if is_mask else images
            if key in found:
                raise DataError(tree.root / path, f"belongs to the same image as {found[key]}.", "Keep one of the two.")
            found[key] = path
    return images, masks


def recognises(trees: Sequence[Tree]) -> bool:
    return any(tree.is_folder and all(_pairs(tree)) for tree in trees)


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Images and masks of the same name, in folders such as images/ and masks/, or as x.jpg and x_mask.png."""
    if len(trees) != 1 or not trees[0].is_folder:
        raise DataError(trees[0].root, "is read as images with masks: give the one folder that holds both.")
    tree = trees[0]
    images, masks = _pairs(tree)
    jpeg = [path for path in masks.values() if ending_of(path) in JPEG]
    if jpeg and options.soft is None:
        what = f"{counted(len(jpeg), 'mask')} in JPEG, which changes values ({jpeg[0]})."
        raise DataError(tree.root, f"has {what}", SOFT)
    entries = _table(tree, masks, options)
    categories = Categories()
    meaning = {
        (packed(e.color) if e.color else e.value or 0): IGNORED if e.ignored else categories.index(e.name, e.color)
        for e in entries
    }
    by_colors = entries[0].color is not None
    if not by_colors and options.soft is None:
        meaning.setdefault(255, IGNORED)
    problems = [
        Problem(str(tree.root / path), "it is a mask without an image.", "image")
        for key, path in masks.items()
        if key not in images
    ]
    pictures = []
    for key, image in images.items():
        where = str(tree.root / image)
        raster: Callable[[Size], Drawn]
        if key in masks:
            raster = partial(_drawn, tree.root / masks[key], meaning, by_colors, options.soft)
        elif options.unlabelled == "background":
            raster = _nothing
        elif options.unlabelled == "ignore":
            continue
        else:
            what = "it has no mask. If nothing is there: --unlabelled background; to leave it out: --unlabelled ignore."
            problems.append(Problem(where, what, "image"))
            continue
        pictures.append(Picture(where, tree.root / image, image, split_in_folders(image), raster=raster))
    return Source("masks", categories.all, pictures, problems, complete=True, chooses=True)


def _nothing(size: Size) -> Drawn:
    return Drawn(np.full(size, UNLABELLED, np.int32))


def _drawn(path: Path, meaning: dict[int, int], by_colors: bool, soft: str | None, size: Size) -> Drawn:
    if soft is None:
        try:
            return (by_color if by_colors else by_value)(path, size, meaning)
        except BrokenError as error:
            raise BrokenError(f"{error.what} Soft edges? --soft threshold or --soft ignore.") from None
    return _nearest(path, meaning, by_colors, soft, size)


def _nearest(path: Path, meaning: dict[int, int], by_colors: bool, soft: str, size: Size) -> Drawn:
    """The class of the nearest colour or value; with "ignore", only where it is clear."""
    image = read_image(path)[:, :, :3].astype(np.int32)
    if image.shape[:2] != tuple(size):
        raise BrokenError(f"{size_mismatch(size, image.shape[:2])[:-1]} ({path.name}).")
    if by_colors and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    nearest = np.full(size, np.iinfo(np.int32).max)
    off = np.zeros(size, np.int32)
    labels = np.full(size, IGNORED, np.int32)
    for value, category in meaning.items():
        color = [value >> 16, value >> 8 & 255, value & 255] if by_colors else [value]
        difference = np.abs(image[:, :, : len(color)] - np.array(color))
        distance = (difference**2).sum(axis=2)
        closer = distance < nearest
        nearest[closer], labels[closer], off[closer] = distance[closer], category, difference.max(axis=2)[closer]
    if soft == "ignore":
        labels[off > CLEAR] = IGNORED
    return Drawn(labels)


def _table(tree: Tree, masks: dict[str, str], options: Options) -> list[Entry]:
    """The classes: of --classes, of a table in the folder, or of masks that hold 0 and one other value."""
    if options.classes:
        return read_table(options.classes)
    for name in TABLES:
        if name in tree.files:
            return read_table(tree.root / name)
    paths = sorted(masks.values())
    sample = paths[:: max(1, len(paths) // SAMPLE)]
    seen: set[int] = set()
    for path in sample:
        mask = read_image(tree.root / path) if options.soft else read_mask(tree.root / path)
        grey = mask[:, :, 0] if mask.ndim == 3 else mask
        if mask.ndim == 3 and not (mask[:, :, :1] == mask).all() and not options.soft:
            raise DataError(tree.root / path, "has colours, and no table says which class each is.", _example(True))
        seen |= {int(v) for v in np.unique(grey)}
    if seen <= {0, 1}:
        return [Entry("background", value=0), Entry("foreground", value=1)]
    if seen <= {0, 255} or options.soft:
        return [Entry("background", value=0), Entry("foreground", value=255)]
    if {0, 255} <= seen and len(seen) > 20:
        raise DataError(tree.root, f"has masks with soft edges: {len(seen)} values between 0 and 255.", SOFT)
    what = f"has masks with the values {value_ranges(seen)}, and no table says what they mean."
    raise DataError(tree.root, what, _example(False))


def _example(colors: bool) -> str:
    lines = "road,128,64,128 and sky,70,130,180" if colors else "background,0 and road,1"
    return f"Write one, classes.csv in that folder, with lines such as {lines}; or name it by --classes."
