"""Boundary IoU: intersection over union of what lies within a narrow band along the edge of a class."""

from __future__ import annotations

import math

import cv2
import numpy as np
from torch import Tensor

from hrseg.metrics.confusion import confusion_matrix
from hrseg.metrics.scores import iou
from hrseg.task import IGNORE_INDEX


def boundary_confusion(
    prediction: np.ndarray | Tensor,
    target: np.ndarray | Tensor,
    classes: int,
    ignore_index: int = IGNORE_INDEX,
    *,
    dilation_ratio: float = 0.02,
) -> np.ndarray:
    """Pixels of one image by true and predicted class, where all that is not near an edge falls in a class of its own.

    A pixel is near an edge if another class, or the image's border, lies in the (2 d + 1) x (2 d + 1) square around it;
    d is the diagonal of the image times dilation_ratio, rounded, at least 1. Ignored pixels count nowhere, and against
    them there is no edge.
    prediction, target: integers [H, W] on the CPU. Add the matrices of all images, then `boundary_iou`.
    Returns int64 [K + 1, K + 1], row = truth, column = prediction. Raises ValueError for values that are no class.
    Source: Cheng et al., Boundary IoU, CVPR 2021.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    ignored = target == ignore_index
    d = max(1, round(dilation_ratio * math.hypot(*target.shape)))
    dtype = np.uint8 if classes < 255 else np.uint16
    void = np.iinfo(dtype).max
    inner = dtype(classes)  # the class of what is not near an edge

    def edges(labels: np.ndarray) -> np.ndarray:
        if ((labels < 0) | (labels >= classes))[~ignored].any():
            raise ValueError(f"labels lie outside the {classes} classes")
        labels = np.where(ignored, void, labels).astype(dtype)
        return np.where(_near_edge(labels, ignored, d) | ignored, labels, inner)

    return confusion_matrix(edges(prediction), edges(target), classes + 1, int(void))


def boundary_iou(confusion: np.ndarray) -> np.ndarray:
    """Boundary IoU of each class, float64 [K] in [0, 1], from a sum of `boundary_confusion`; NaN without edges."""
    return iou(confusion)[:-1]


def _near_edge(labels: np.ndarray, ignored: np.ndarray, d: int) -> np.ndarray:
    """Whether a square of side 2 d + 1 holds another label; the ignored match any. [H, W] to bool [H, W]."""
    square = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
    # The square is of one class exactly if its least and its greatest label are the pixel's own: two passes serve all
    # classes, where an erosion a class would take K.
    least = cv2.erode(np.where(ignored, np.iinfo(labels.dtype).max, labels), square)
    greatest = cv2.dilate(np.where(ignored, 0, labels), square)
    near = (least != labels) | (greatest != labels)
    near[:d], near[-d:], near[:, :d], near[:, -d:] = True, True, True, True
    return near
