"""What a data set is like, as far as a first recipe depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from hrseg.data.checks import Examination, examine
from hrseg.data.dataset import Dataset
from hrseg.data.image_checks import measure_values, nice_range
from hrseg.data.images.kinds import spread
from hrseg.errors import DataError, HrsegError
from hrseg.task import LabelSpace, Task, full_range

MASKS = 64  # whose objects are measured
THUMBNAILS = 500  # of a split, which are compared
SMALLEST_OBJECT = 9  # pixels; less is noise at borders
ALIKE = 0.999  # correlation of two thumbnails


@dataclass(frozen=True)
class Survey:
    """size: the median (height, width) of the training images. shares: of each class in the labelled pixels.

    values: lowest and highest of some images. input_range: that fits them; None: the whole range of their type does.
    object_side: the median square root of an object's area, in pixels, of the class with the smallest; None: none seen.
    alike: pairs of a training and a validation image that look the same, by name.
    """

    space: LabelSpace
    images: tuple[int, int]
    size: tuple[int, int]
    channels: int
    dtype: np.dtype
    values: tuple[float, float]
    input_range: tuple[float, float] | None
    examination: Examination
    object_side: float | None
    alike: list[tuple[str, str]]

    @property
    def shares(self) -> np.ndarray:
        return self.examination.pixels / np.maximum(self.examination.valid, 1)

    @property
    def rarest(self) -> tuple[str, float] | None:
        """The class with the fewest pixels that has some, and its share; of a binary task, the foreground."""
        found = [(share, name) for share, name in zip(self.shares, self.space.names, strict=True) if share > 0]
        found = found[-1:] if self.space.task is Task.BINARY else found
        return (min(found)[1], float(min(found)[0])) if found else None


def survey(sets: Mapping[str, Dataset], workers: int = 0) -> Survey:
    """Look at the training and the validation set, in this order. Raises DataError where nothing can be read."""
    train, val = sets.values()
    looked = examine(train, workers=workers, at_most=1000)
    values, first = measure_values(train), train[0].image
    if values is None or not looked.sizes:
        raise DataError("data", "no training image can be read.", "tools/check_data.py says why.")
    sizes = np.array(list(looked.sizes.elements()))
    low, high = float(values.lowest.min()), float(values.highest.max())
    span, fitting = full_range(first.dtype), nice_range(low, high)
    fits = first.dtype == np.uint8 or fitting[1] <= fitting[0] or fitting[1] - fitting[0] > (span[1] - span[0]) / 2
    outside = low < span[0] or high > span[1]
    return Survey(
        train.space,
        (len(train), len(val)),
        (int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))),
        first.shape[2],
        first.dtype,
        (low, high),
        fitting if outside or not fits else None,
        looked,
        _object_side(train),
        _alike(train, val),
    )


def _object_side(dataset: Dataset) -> float | None:
    sides: dict[int, list[float]] = {}
    for i in spread(range(len(dataset)), MASKS):
        try:
            target = dataset[i].target
        except HrsegError:
            continue
        if target is None:
            continue
        for k in range(len(dataset.space.classes)):
            if k == dataset.space.background:
                continue
            mask = target[k] == 1 if dataset.space.task is Task.MULTILABEL else target == k
            areas = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
            sides.setdefault(k, []).extend(np.sqrt(areas[areas >= SMALLEST_OBJECT]).tolist())
    medians = [float(np.median(found)) for found in sides.values() if found]
    return min(medians, default=None)


def _alike(train: Dataset, val: Dataset) -> list[tuple[str, str]]:
    """Pairs whose thumbnails are the same but for noise. Images without any structure are left out."""
    (one, names), (other, others) = _thumbnails(train), _thumbnails(val)
    if not len(one) or not len(other):
        return []
    rows, columns = np.nonzero(one @ other.T > ALIKE)
    return [
        (names[r], others[c]) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if names[r] != others[c]
    ]


def _thumbnails(dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    rows, names = [], []
    for i in spread(range(len(dataset)), THUMBNAILS):
        try:
            image = dataset[i].image
        except HrsegError:
            continue
        small = cv2.resize(image.astype(np.float32).mean(axis=2), (16, 16), interpolation=cv2.INTER_AREA).ravel()
        small -= small.mean()
        if (length := float(np.linalg.norm(small))) > 1e-3 * max(1.0, float(np.abs(image).max())):
            rows.append(small / length)
            names.append(dataset.names[i])
    return np.array(rows), names
