"""Some rows of a prediction, and what its classes cover."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hrseg.task import LabelSpace


class Band(NamedTuple):
    """Some rows of a prediction, from `top` on.

    image: uint8 RGB [h, W, 3], for people. labels: class indices [h, W]; multilabel {0, 1} [L, h, W]; without data the
    space's `nodata_index`. probabilities: float32 [K, h, W], NaN without data; or None. confidence: the mean
    probability of what was chosen, over every eighth pixel. notes: what is strange about the values of the image.
    """

    top: int
    image: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None
    confidence: float
    notes: tuple[str, ...] = ()


def different_notes(bands: Iterable[Band]) -> tuple[str, ...]:
    """The notes of some bands, each once."""
    return tuple(dict.fromkeys(note for band in bands for note in band.notes))


def class_shares(counted: np.ndarray, pixels: int, space: LabelSpace) -> dict[str, float]:
    """The share of the pixels per class, largest first; classes without pixels are left out."""
    counted_names = [(int(n), name) for n, name in zip(counted, space.names, strict=True) if n]
    return {name: n / pixels for n, name in sorted(counted_names, key=lambda pair: -pair[0])}
