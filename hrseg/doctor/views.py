"""What a model says of one image, small enough to be kept for every image."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from hrseg.errors import DataError
from hrseg.files import whole_file

BINS = 16  # of how sure a model is, in which pixels are counted


class View(NamedTuple):
    """A model's view of an image.

    predicted: class indices [H, W]. sure, given: the probabilities of the predicted class and of the labelled one, in
    255ths, uint8 [H, W]; given is 0 where the label is ignored.
    """

    predicted: np.ndarray
    sure: np.ndarray
    given: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, target: np.ndarray) -> View:
        """probabilities: float [K, H, W]; target: class indices [H, W], of which those from K on are ignored."""
        predicted = probabilities.argmax(axis=0)
        known = target < len(probabilities)
        label = np.where(known, target, 0).astype(np.int64)
        given = np.where(known, np.take_along_axis(probabilities, label[None], 0)[0], 0)
        sure = np.take_along_axis(probabilities, predicted[None], 0)[0]
        index_type = np.uint8 if len(probabilities) <= 255 else np.uint16
        return cls(predicted.astype(index_type), _in_255ths(sure), _in_255ths(given))

    def save(self, path: Path) -> None:
        """As a PNG of three channels. Raises HrsegError where it cannot be written."""
        planes = np.stack([plane.astype(self.predicted.dtype) for plane in self], axis=-1)
        content = cv2.imencode(".png", planes, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        with whole_file(path) as temporary:
            temporary.write_bytes(content)

    @classmethod
    def load(cls, path: Path) -> View:
        """Raises DataError where the file is missing or broken."""
        planes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if planes is None or planes.ndim != 3 or planes.shape[2] != 3:
            raise DataError(path, "holds no view of a model.", "Run the doctor again.")
        return cls(planes[..., 0].copy(), planes[..., 1].astype(np.uint8), planes[..., 2].astype(np.uint8))


def _in_255ths(share: np.ndarray) -> np.ndarray:
    return (np.clip(share, 0, 1) * 255).round().astype(np.uint8)


class Habits:
    """What models usually say of each label, added up over all images: the background against which a fault stands out.

    A few numbers for each pair of classes, however many images there are.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self._counts = np.zeros((classes, classes, BINS), np.int64)  # label, prediction, how sure
        self._given = np.zeros(classes)

    def add(self, target: np.ndarray, view: View) -> None:
        known = target < self.classes
        label = target[known].astype(np.int64)
        place = (label * self.classes + view.predicted[known]) * BINS + (view.sure[known].astype(np.int64) * BINS >> 8)
        self._counts += np.bincount(place, minlength=self._counts.size).reshape(self._counts.shape)
        self._given += np.bincount(label, view.given[known], self.classes)

    @property
    def pixels(self) -> np.ndarray:
        """int64 [K]: pixels of each label."""
        return self._counts.sum((1, 2))

    def thresholds(self) -> np.ndarray:
        """How sure the models are on average of each class where it is the label, in 255ths [K].

        A prediction that is as sure as that is a confident one. Source: confident learning (Northcutt et al. 2021).
        """
        return np.where(self.pixels > 0, self._given / np.maximum(self.pixels, 1), 255.0)

    def confident(self) -> np.ndarray:
        """int64 [K, K]: pixels by label and confident prediction."""
        least = (self.thresholds() * BINS / 256).astype(int)
        sure_enough = np.arange(BINS)[None] >= least[:, None]
        return (self._counts * sure_enough[None]).sum(2)
