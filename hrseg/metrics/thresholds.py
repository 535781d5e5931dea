"""A yes-or-no answer at every threshold: the counts behind precision, recall, Dice and IoU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEPS = 100
THRESHOLDS = np.arange(1, STEPS) / STEPS  # 0.01, 0.02, ... 0.99
HALF = 49  # the place of 0.5


class AtThreshold(NamedTuple):
    """Scores of a label's yes: shares in [0, 1], NaN where there is nothing to score. threshold: None: not known."""

    threshold: float | None
    precision: float
    recall: float
    dice: float
    iou: float


class LabelScores(NamedTuple):
    """A label, or the foreground of a binary task: as it was predicted, at 0.5, and at the threshold of the best IoU.

    half, best: None where no probabilities were there, or no pixel of it.
    """

    name: str
    used: AtThreshold
    half: AtThreshold | None = None
    best: AtThreshold | None = None


def threshold_counts(passed: np.ndarray, target: np.ndarray, ignore_index: int) -> np.ndarray:
    """Pixels by their target and by how many of `THRESHOLDS` their probability is above.

    passed: 0 to 99, integers [L, H, W]. target: {0, 1, ignore}, [H, W] or [L, H, W]. Returns uint32 [L, 2, 100].
    """
    planes = zip(passed, target.reshape(passed.shape), strict=True)
    return np.stack([_counts(one, truth, ignore_index) for one, truth in planes])


def _counts(passed: np.ndarray, target: np.ndarray, ignore_index: int) -> np.ndarray:
    counted = target != ignore_index
    cells = target[counted].astype(np.int64) * STEPS + passed[counted]
    return np.bincount(cells, minlength=2 * STEPS).reshape(2, STEPS).astype(np.uint32)


def yes_pixels(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels that are rightly said yes at each threshold, all that are said yes, and all that are yes.

    counts: integers [..., 2, 100], sums of `threshold_counts`. Returns int64 [..., 99] twice, and [..., 1].
    """
    counts = np.asarray(counts).astype(np.int64)
    above = counts[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]  # above threshold j: passed more than j of them
    return above[..., 1, :], above.sum(axis=-2), counts[..., 1, :].sum(axis=-1, keepdims=True)
