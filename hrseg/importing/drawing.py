"""Annotations become a mask: later ones lie on top, and what lies under others is counted."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from hrseg.importing.records import IGNORED, UNLABELLED, BrokenError, Picture, Problem, Size

MOST_OBJECTS = 999  # of one class in an image, as Cityscapes counts them


class Values(NamedTuple):
    """What masks hold.

    fill: where no annotation is. shift: added to a category's index. ignore: the ignored value. dtype, objects: number
    types of masks, and of numbers of objects.
    """

    fill: int
    shift: int
    ignore: int
    dtype: type
    objects: type


class Mask(NamedTuple):
    """One image's mask, and what was counted. objects: [H, W], id * 1000 + number, or None without objects.

    labelled, overlapping: pixels under any annotation, and under annotations of different classes.
    """

    values: np.ndarray
    objects: np.ndarray | None
    labelled: int
    overlapping: int
    drawn: list[int]  # category of each annotation


def draw(picture: Picture, size: Size, values: Values, problems: list[Problem]) -> Mask | None:
    """The mask of a picture; None where nothing in it is labelled and the rest is ignored.

    Adds a problem for each annotation that is broken, which is left out.
    """
    if picture.raster is not None:
        return _of_raster(picture, size, values)
    mask: np.ndarray = np.full(size, values.fill, values.dtype)
    covered, twice = np.zeros(size, bool), np.zeros(size, bool)
    has_objects = any(annotation.instance is not None for annotation in picture.annotations)
    objects: np.ndarray | None = np.full(size, values.fill, values.objects) if has_objects else None
    numbers = _Numbers(values)
    drawn = []
    for annotation in sorted(picture.annotations, key=lambda a: a.order):
        try:
            top, left, pixels = annotation.area.draw(size)
        except BrokenError as error:
            problems.append(Problem(annotation.where, error.what))
            continue
        place = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
        value = values.ignore if annotation.category == IGNORED else annotation.category + values.shift
        under = covered[place]
        both = pixels & under
        if both.any():
            twice[place] |= both & (mask[place] != value)
        np.copyto(mask[place], value, where=pixels)
        under |= pixels
        drawn.append(annotation.category)
        if objects is not None:
            np.copyto(objects[place], numbers.of(annotation.category, annotation.instance) or value, where=pixels)
    if not drawn and values.fill == values.ignore:
        return None
    return Mask(mask, objects, int(np.count_nonzero(covered)), int(np.count_nonzero(twice)), drawn)


def _of_raster(picture: Picture, size: Size, values: Values) -> Mask | None:
    assert picture.raster is not None
    read = picture.raster(size)
    if read is None:
        return None
    labels, found = read
    mask = np.where(labels >= 0, labels + values.shift, values.ignore)
    mask[labels == UNLABELLED] = values.fill
    mask = mask.astype(values.dtype)
    objects: np.ndarray | None = None
    drawn: list[int] = []
    if found is not None and found.any():
        numbers = _Numbers(values)
        unique, first, index = np.unique(found, return_index=True, return_inverse=True)
        categories = labels.ravel()[first].tolist()
        table = [0 if n == 0 else numbers.of(c, n) for n, c in zip(unique.tolist(), categories, strict=True)]
        objects = np.array(table, values.objects)[index.reshape(size)]
        objects = np.where(objects == 0, mask, objects)
        drawn = [c for n, c in zip(unique.tolist(), categories, strict=True) if n]
    return Mask(mask, objects, int(np.count_nonzero(labels != UNLABELLED)), 0, drawn)


class _Numbers:
    """Cityscapes' numbers of objects: the class's id times 1000, plus its number among the objects of the class."""

    def __init__(self, values: Values):
        self._shift = values.shift
        self._known: dict[tuple[int, Hashable], int] = {}
        self._count: dict[int, int] = {}

    def of(self, category: int, instance: Hashable | None) -> int:
        """The number of an object; 0 for what is none, and for the thousandth of a class."""
        if instance is None or category < 0 or category + self._shift == 0:
            return 0  # an object of class 0 would have a number below 1000, which means "no object"
        key = (category, instance)
        if key not in self._known:
            count = self._count.get(category, 0)
            if count == MOST_OBJECTS:
                return 0
            self._count[category] = count + 1
            self._known[key] = (category + self._shift) * 1000 + count + 1
        return self._known[key]
