"""Scores of single images and of confidence are their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from hrseg.inference import Inference
from hrseg.metrics import ImageCounts, PerImage, calibration_counts, confusion_matrix, ece, scores_of_images
from hrseg.task import Task
from tests.metrics.test_per_image import evidence, matrices, space


def image_miou(prediction: np.ndarray, target: np.ndarray) -> float:
    """The mean IoU, in one image, of the classes that its truth has."""
    counted = target != 255
    classes = np.unique(target[counted])
    ious = [((prediction == c) & (target == c)).sum() / (((prediction == c) | (target == c)) & counted).sum()
            for c in classes]  # fmt: skip
    return float(np.mean(ious)) if len(classes) else np.nan


@pytest.mark.parametrize("images", [1, 9, 37])
def test_image_level_scores_are_those_of_single_images(images):
    rng = np.random.default_rng(images)
    per_image, expected = PerImage(space(6)), []
    for index in range(images):
        target = rng.choice([255, *rng.integers(0, 6, 3)], (8, 9))
        if index == 1:
            target[:] = 255  # nothing to score
        prediction = np.where(rng.random(target.shape) < rng.random(), target, rng.integers(0, 6, target.shape)) % 6
        expected.append(image_miou(prediction, target))
        per_image.add(index, str(index), ImageCounts(confusion_matrix(prediction, target, 6)))
    found = np.sort(np.array(expected)[~np.isnan(expected)])
    scored = scores_of_images(per_image)
    assert scored.means["image_miou"] == pytest.approx(found.mean(), abs=1e-12)
    assert scored.means["worst_decile_miou"] == pytest.approx(found[: max(1, len(found) // 10)].mean(), abs=1e-12)


def test_the_calibration_error_is_that_of_torchmetrics():
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, 5, 30, 40)
    target = torch.where(torch.rand(4, 30, 40) < 0.1, 255, torch.randint(0, 5, (4, 30, 40)))
    inference = Inference(Task.MULTICLASS)
    confidence, prediction = inference.confidence(logits), inference.labels(logits)
    counts = sum(calibration_counts(*image) for image in zip(confidence, prediction, target, strict=True))
    expected = multiclass_calibration_error(logits.softmax(1), target, 5, n_bins=15, ignore_index=255)
    assert ece(counts) == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTILABEL])
def test_the_confidence_of_a_no_is_that_in_the_no(task):
    logits = torch.logit(torch.tensor([0.9, 0.2])).reshape(1, 1, 1, 2)
    expected = torch.tensor([0.9, 0.8]).reshape((1, 1, 2) if task is Task.BINARY else (1, 1, 1, 2))
    torch.testing.assert_close(Inference(task).confidence(logits), expected)


def test_certain_and_wrong_is_the_worst_calibration():
    wrong = calibration_counts(np.ones(9), np.zeros(9, int), np.ones(9, int))
    assert ece(wrong) == 1 and ece(0 * wrong) != ece(0 * wrong)  # of no pixels: NaN


def test_a_mean_over_classes_follows_the_definition_and_one_over_categories_the_judge():
    counts = matrices(10, 6)
    counts[:, 4:] = counts[:, :, 4:] = 0  # the last category is absent
    per_image = evidence(counts)
    zero, left_out = (scores_of_images(per_image, definition) for definition in ("hrnet", "cityscapes"))
    assert zero.miou == pytest.approx(left_out.miou * 4 / 6)
    assert zero.means["category_miou"] == left_out.means["category_miou"]
