"""Boundary IoU is that of the paper, in two passes instead of one a class."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from hrseg.metrics import boundary_areas, boundary_iou, confusion_matrix, iou


def as_in_the_paper(prediction, target, classes: int, ratio: float) -> np.ndarray:
    """A mask a class, less its erosion, the outside of the image counted as another class."""
    d = max(1, round(ratio * math.hypot(*target.shape)))

    def band(labels, k):
        mask = (labels == k).astype(np.uint8)
        eroded = cv2.erode(np.pad(mask, 1), np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1]
        return (mask - eroded).astype(bool)

    result = np.full(classes, np.nan)
    for k in range(classes):
        p, t = band(prediction, k), band(target, k)
        if (p | t).any():
            result[k] = (p & t).sum() / (p | t).sum()
    return result


@pytest.mark.parametrize("classes", [5, 300])
@pytest.mark.parametrize("dilation_ratio", [0.0, 0.02, 0.1])
def test_it_is_the_papers_erosion_class_by_class(classes, dilation_ratio):
    rng = np.random.default_rng(0)
    target = cv2.resize(rng.integers(0, 4, (6, 8)).astype(np.uint16), (101, 83), interpolation=cv2.INTER_NEAREST)
    prediction = np.roll(target, (2, -3), (0, 1))
    measured = boundary_iou(boundary_areas(prediction, target, classes, 999, dilation_ratio=dilation_ratio))
    np.testing.assert_allclose(measured, as_in_the_paper(prediction, target, classes, dilation_ratio))


def test_an_ignored_region_has_no_edge_and_counts_nowhere():
    target = np.zeros((40, 40), np.uint8)
    target[:, 30:] = 1
    prediction = target.copy()
    around = target.copy()
    around[10:20, 10:20] = 255
    areas = boundary_areas(prediction, around, 2)
    assert np.array_equal(areas, boundary_areas(prediction, target, 2))  # it lies where nothing is near an edge
    prediction[12:18, 12:18] = 1  # a mistake where nothing counts
    assert np.array_equal(boundary_areas(prediction, around, 2), areas)
    around[:, 25:] = 255  # the edge itself
    assert np.array_equal(boundary_areas(prediction, around, 2)[:, 1], [0, 0])


def test_a_class_without_pixels_has_no_boundary_iou_and_a_shift_costs_more_than_in_iou():
    target = np.zeros((100, 100), np.uint8)
    target[:, 50:] = 1
    shifted = np.roll(target, 2, 1)
    measured = boundary_iou(boundary_areas(shifted, target, 3))
    assert np.isnan(measured[2]) and measured[0] < iou(confusion_matrix(shifted, target, 3))[0]


def test_a_label_that_is_no_class_is_refused():
    target = np.zeros((10, 10), np.uint8)
    with pytest.raises(ValueError, match="2 classes"):
        boundary_areas(np.full_like(target, 2), target, 2)
