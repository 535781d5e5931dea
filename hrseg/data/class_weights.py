"""Weights of classes and labels for the loss, from the pixels that a data set has of each."""

from __future__ import annotations

import numpy as np


def class_weights(pixels: np.ndarray) -> list[float]:
    """The weight of each class in the cross entropy: 1 / ln(1.02 + share), with mean 1 over the classes that occur.

    pixels: int64 [K]. Rounded to four digits. A class that does not occur has the largest weight there is.
    Source: ENet, Paszke et al. 2016, arXiv 1606.02147, section 5.2: bounded, where the inverse of a share is not.
    """
    weights = 1 / np.log(1.02 + pixels / max(pixels.sum(), 1))
    scaled = weights / (weights[pixels > 0].mean() if pixels.any() else 1)
    return [round(float(w), 4) for w in scaled]


def positive_weights(pixels: np.ndarray, valid: np.ndarray) -> list[float]:
    """The weight of each label's ones in the binary cross entropy, no / yes in pixels; 1 where there is no yes.

    pixels, valid: int64 [L], the ones of each label, and the pixels that count for it.
    Source: documentation of torch.nn.BCEWithLogitsLoss, pos_weight.
    """
    weights = np.where(pixels > 0, (valid - pixels) / np.maximum(pixels, 1), 1)
    return [round(float(w), 4) for w in weights]
