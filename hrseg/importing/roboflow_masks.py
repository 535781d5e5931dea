"""Roboflow's semantic masks: x_mask.png beside x.jpg, and _classes.csv with the class of each value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from hrseg.data.images import IMAGE_ENDINGS
from hrseg.errors import DataError
from hrseg.importing.image_index import split_of
from hrseg.importing.mask_files import by_value
from hrseg.importing.records import Categories, Options, Picture, Problem, Source, Tree
from hrseg.importing.text_files import read_csv

TABLE, SUFFIX = "_classes.csv", "_mask.png"


def recognises(trees: Sequence[Tree]) -> bool:
    return any(tree.named(TABLE) and tree.ending(SUFFIX) for tree in trees)


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Each folder with a _classes.csv is a split."""
    categories, pictures = Categories(), []
    problems: list[Problem] = []
    for tree in trees:
        files = set(tree.files)
        for table in tree.named(TABLE):
            meaning = {value: categories.index(name) for value, name in _classes(tree, table)}
            folder = table[: -len(TABLE)]
            masks = [f for f in tree.ending(SUFFIX) if f.startswith(folder) and "/" not in f[len(folder) :]]
            for mask in masks:
                stem = mask[: -len(SUFFIX)]
                image = next((stem + e for e in (*IMAGE_ENDINGS, ".JPG", ".JPEG", ".PNG") if stem + e in files), None)
                where = str(tree.root / mask)
                if image is None:
                    problems.append(Problem(where, "it is a mask without an image.", "image"))
                    continue
                raster = partial(by_value, tree.root / mask, meaning=meaning)
                split = split_of(PurePosixPath(table).parent.name)
                pictures.append(Picture(where, tree.root / image, image, split, raster=raster))
    return Source("roboflow_masks", categories.all, pictures, problems, complete=True)


def _classes(tree: Tree, table: str) -> list[tuple[int, str]]:
    path = tree.root / table
    rows = read_csv(path)
    if rows and rows[0] and not rows[0][0].isdecimal():
        rows = rows[1:]  # Pixel Value, Class
    if not rows or not all(len(row) >= 2 and row[0].isdecimal() and len(row[0]) < 6 and row[1] for row in rows):
        raise DataError(path, "is not a table of pixel values and classes.", "For example: 1, road")
    return [(int(row[0]), row[1]) for row in rows]
