"""Boundary IoU: intersection over union of what lies within a narrow band along the edge of a class."""

from __future__ import annotations

import math

import cv2
import numpy as np
from torch import Tensor

from hrseg.metrics.confusion import confusion_matrix
from hrseg.metrics.scores import areas, ratio
from hrseg.task import IGNORE_INDEX


def boundary_areas(
    prediction: np.ndarray | Tensor,
    target: np.ndarray | Tensor,
    classes: int,
    ignore_index: int = IGNORE_INDEX,
    *,
    dilation_ratio: float = 0.02,
) -> np.ndarray:
    """Intersection and union, in one image, of each class's pixels near an edge.

    A pixel is near an edge if another class, or the image's border, lies in the (2 d + 1) x (2 d + 1) square around it;
    d is the diagonal of the image times dilation_ratio, rounded, at least 1. Ignored pixels count nowhere, and against
    them there is no edge.
    prediction, target: integers [H, W] on the CPU. Add the areas of all images, then `boundary_iou`.
    Returns int64 [2, K], in pixels. Raises ValueError for values that are no class.
    Source: Cheng et al., Boundary IoU, CVPR 2021, who take 0.02, and 0.005 for Cityscapes.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    ignored = target == ignore_index
    d = max(1, round(dilation_ratio * math.hypot(*target.shape)))
    dtype = np.uint8 if classes < 255 else np.uint16
    void = int(np.iinfo(dtype).max)

    def near_edges(labels: np.ndarray) -> np.ndarray:
        """The labels, with the class K for what is not near an edge."""
        if np.where(ignored, 0, labels).max(initial=0) >= classes or np.where(ignored, 0, labels).min(initial=0) < 0:
            raise ValueError(f"labels lie outside the {classes} classes")
        labels = np.where(ignored, dtype(void), labels.astype(dtype, copy=False))
        return np.where(_near_edge(labels, ignored, void, d), labels, dtype(classes))

    prediction, target = near_edges(prediction), near_edges(target)
    target[ignored] = void
    intersection, union = areas(confusion_matrix(prediction, target, classes + 1, void, void_predictions=True))
    return np.stack([intersection, union])[:, :classes]


def boundary_iou(areas: np.ndarray) -> np.ndarray:
    """Boundary IoU of each class, float64 [K] in [0, 1], from a sum of `boundary_areas`; NaN without edges."""
    return ratio(*np.asarray(areas))


def _near_edge(labels: np.ndarray, ignored: np.ndarray, void: int, d: int) -> np.ndarray:
    """Whether a square of side 2 d + 1 holds another label; the ignored (value void) match any. [H, W] to bool."""
    square = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
    # The square is of one class exactly if its least and its greatest label are the pixel's own: two passes serve all
    # classes, where an erosion a class would take K.
    least = cv2.erode(labels, square)
    greatest = cv2.dilate(np.where(ignored, labels.dtype.type(0), labels), square)
    near = (least != labels) | (greatest != labels)
    near[:d], near[-d:], near[:, :d], near[:, -d:] = True, True, True, True
    return near
