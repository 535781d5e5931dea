"""YOLO segmentation: data.yaml, and for each image a text file of polygons in shares of its width and height.

Polygons are filled by OpenCV at whole pixels, as Ultralytics does it (ultralytics.data.utils.polygon2mask).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from hrseg.config import read_yaml
from hrseg.errors import DataError, HrsegError
from hrseg.importing.image_index import ImageIndex, split_in_folders, split_of
from hrseg.importing.polygons import require_sound_rings
from hrseg.importing.records import (
    Annotation,
    BrokenError,
    Categories,
    Options,
    Picture,
    Problem,
    Size,
    Source,
    Tree,
    Window,
)
from hrseg.importing.text_files import read_text

KEYS = ("train", "val", "valid", "test")


def _settings(trees: Sequence[Tree]) -> list[tuple[Tree, str, dict]]:
    """The YAML files with names of classes."""
    found = []
    for tree in trees:
        for path in tree.ending(".yaml", ".yml"):
            try:
                plain = read_yaml(tree.root / path)
            except HrsegError:
                continue
            if isinstance(plain, dict) and "names" in plain and any(key in plain for key in KEYS):
                found.append((tree, path, plain))
    return found


def recognises(trees: Sequence[Tree]) -> bool:
    return any(tree.is_folder and tree.ending(".txt") for tree in trees) and bool(_settings(trees))


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Every image below the folder of data.yaml; one without a text file has no objects."""
    found = _settings(trees)
    if len(found) != 1:
        where = trees[0].root
        raise DataError(where, f"has {len(found)} YAML files with names of classes and a split, such as data.yaml.")
    tree, path, plain = found[0]
    names = _names(tree.root / path, plain["names"])
    categories = Categories()
    for name in names.values():
        categories.index(name)
    index = ImageIndex([tree.root])
    listed = _listed(tree, plain, index)
    files = set(tree.files)
    problems: list[Problem] = []
    pictures = []
    for key, file in index.by_path.items():
        split = listed.get(key) or split_in_folders(key)
        picture = Picture(str(tree.root / key), file, key, split)
        labels = _label_file(key)
        if labels in files:
            picture.annotations += _annotations(tree.root / labels, names, categories, problems)
        pictures.append(picture)
    return Source("yolo", categories.all, pictures, problems)


def _names(path: Path, plain: Any) -> dict[int, str]:
    entries = dict(enumerate(plain)) if isinstance(plain, list) else plain
    sound = isinstance(entries, dict) and all(
        type(i) is int and isinstance(name, str) and name for i, name in entries.items()
    )
    if not sound or not entries:
        raise DataError(path, "its 'names' are not names of classes.", "For example names: [cat, dog].")
    return {i: entries[i] for i in sorted(entries)}


def _label_file(key: str) -> str:
    """The last folder `images` becomes `labels`; without one, the file lies beside the image."""
    parts = list(PurePosixPath(key).with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return "/".join(parts)


def _listed(tree: Tree, plain: dict, index: ImageIndex) -> dict[str, str]:
    """The split of each image in the list files that data.yaml names."""
    splits: dict[str, str] = {}
    for name in KEYS:
        entry = plain.get(name)
        for path in tree.ending(".txt"):
            if isinstance(entry, str) and PurePosixPath(entry).name == PurePosixPath(path).name:
                for line in read_text(tree.root / path).splitlines():
                    try:
                        splits[index.find(line.strip())] = split_of(name) or name
                    except BrokenError as error:
                        raise DataError(tree.root / path, error.what) from None
    return splits


def _annotations(
    path: Path, names: dict[int, str], categories: Categories, problems: list[Problem]
) -> list[Annotation]:
    annotations = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            words = line.split()
            try:
                category, shares = int(words[0]), np.array(words[1:], np.float32)
            except (ValueError, OverflowError):
                raise BrokenError("it is not a class and numbers.") from None
            if category not in names:
                raise BrokenError(f"there is no class {category} in data.yaml.")
            if len(shares) == 4:
                raise BrokenError("it has a box only, no polygon.")
            if len(shares) % 2 or not len(shares):
                raise BrokenError("its numbers are not pairs of x and y.")
            area = _Shares(shares.reshape(-1, 2))
            annotations.append(Annotation(where, categories.index(names[category]), area, instance=number))
        except BrokenError as error:
            problems.append(Problem(where, error.what))
    return annotations


@dataclass(frozen=True)
class _Shares:
    """A polygon, float32 [n, 2], in shares of the image's width and height."""

    points: np.ndarray

    def draw(self, size: Size) -> Window:
        points = self.points * np.array([size[1], size[0]], np.float32)
        require_sound_rings([points.ravel().tolist()], size)
        return filled([points.astype(np.int32)], (), size)


def filled(rings: Sequence[np.ndarray], holes: Sequence[np.ndarray], size: Size) -> Window:
    """Polygons at whole pixels, int32 [n, 2], filled with their outlines; then the holes are taken out."""
    picture = np.zeros(size, np.uint8)
    for ring in rings:
        cv2.fillPoly(picture, [ring], 1)
    for hole in holes:
        cv2.fillPoly(picture, [hole], 0)
    left, top, width, height = cv2.boundingRect(picture)
    if not width:
        raise BrokenError("it covers no pixel of the image.")
    return Window(top, left, picture[top : top + height, left : left + width].view(bool))
