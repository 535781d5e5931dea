"""Expected calibration error: how far the confidence of a prediction is from its chance to be right."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hrseg.metrics.scores import ratio
from hrseg.task import IGNORE_INDEX

BINS = 15


def calibration_counts(
    confidence: np.ndarray | Tensor,
    prediction: np.ndarray | Tensor,
    target: np.ndarray | Tensor,
    ignore_index: int = IGNORE_INDEX,
) -> np.ndarray:
    """Pixels by confidence, in 15 bins of equal width: how many, how many right, and the sum of their confidences.

    confidence: the probability of the predicted class, floats in [0, 1] of any shape; prediction, target: integers of
    that shape; all on the CPU. Where the target is ignored, nothing counts. Add the counts of all images, then `ece`.
    Returns float64 [3, 15].
    """
    confidence, prediction, target = (np.asarray(plane).ravel() for plane in (confidence, prediction, target))
    counted = target != ignore_index
    confidence, right = confidence[counted].astype(np.float64), prediction[counted] == target[counted]
    # A bin holds its upper end: (0, 1/15], (1/15, 2/15], ...
    of_bin = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return np.stack([np.bincount(of_bin, weights, BINS) for weights in (None, right, confidence)])


def ece(counts: np.ndarray) -> np.ndarray:
    """Expected calibration error: |share of right pixels - mean confidence| of each bin, averaged over all pixels.

    counts: float64 [..., 3, 15], sums of `calibration_counts`. Returns float64 [...] in [0, 1]; NaN without pixels.
    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    pixels, right, confidence = np.moveaxis(np.asarray(counts), -2, 0)
    return ratio(np.abs(right - confidence).sum(axis=-1), pixels.sum(axis=-1))
