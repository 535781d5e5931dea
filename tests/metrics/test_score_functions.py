"""Scores of single images and of confidence are their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from hrseg.inference import Inference
from hrseg.metrics import (
    ImageCounts,
    PerImage,
    calibration_counts,
    confusion_matrix,
    ece,
    false_pixels_of_clean_images,
    image_costs,
    image_ious,
    interval,
    miou,
    multilabel_confusion,
    scores_of_images,
    summed_scores,
)
from hrseg.task import LabelSpace, SegmentationClass, Task
from tests.metrics.test_per_image import evidence, matrices, space


def image_miou(prediction: np.ndarray, target: np.ndarray) -> float:
    """The mean IoU, in one image, of the classes that its truth or its prediction has."""
    counted = target != 255
    classes = np.unique([target[counted], prediction[counted]])
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


def inspection(false_pixels: int, images: int = 12, task: Task = Task.BINARY) -> PerImage:
    """Photos with a defect each, found but for a few pixels, and a last one that is clean but for false pixels."""
    names = ("background", "defect") if task is Task.BINARY else ("scratch", "dent")
    space = LabelSpace(tuple(SegmentationClass(n, (9 * i, 0, 0)) for i, n in enumerate(names)), task)
    per_image = PerImage(space)
    for index in range(images):
        target = np.zeros((40, 50), int)
        target[5:15, 5 : 10 + index] = index < images - 1
        prediction = target.copy()
        prediction[5, 5 : 6 + index % 3] = 0
        if index == images - 1:
            prediction.ravel()[:false_pixels] = 1
        if task is Task.MULTILABEL:
            counts = multilabel_confusion(*(np.stack([plane, 0 * plane]) for plane in (prediction, target)), 2)
        else:
            counts = confusion_matrix(prediction, target, 2)
        per_image.add(index, str(index), ImageCounts(counts))
    return per_image


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTILABEL])
def test_false_pixels_on_a_clean_image_are_seen_in_every_score_of_single_images(task):
    clean, alarmed = inspection(0, task=task), inspection(300, task=task)
    before, after = scores_of_images(clean).means, scores_of_images(alarmed).means
    assert after["image_miou"] < before["image_miou"] - 0.03
    assert after["worst_decile_miou"] < before["worst_decile_miou"] - 0.3
    assert np.nanargmin(image_ious(alarmed)) == 11 == image_costs(alarmed, "cityscapes").argmax()
    assert false_pixels_of_clean_images(alarmed).tolist() == [0] * 11 + [300]
    assert not false_pixels_of_clean_images(clean).any()


def test_a_data_set_without_background_has_no_clean_images():
    street = LabelSpace(tuple(SegmentationClass(n, (9, 9, 9 * i)) for i, n in enumerate(("road", "car"))))
    per_image = PerImage(street)
    per_image.add(0, "a", ImageCounts(np.array([[90, 10], [0, 0]])))
    assert street.background is None and not false_pixels_of_clean_images(per_image).any()


@pytest.mark.parametrize("definition", ["cityscapes", "ade20k", "smp"])
def test_an_image_costs_what_the_mean_gains_where_it_is_right(definition):
    counts = matrices(12, 5)
    counts[3:, :, 4] = counts[:, 4] = 0  # class 4 is there by false pixels of the first images alone
    counts[0, 1, 4] = 9
    found = image_costs(evidence(counts), definition)
    for index in range(len(counts)):
        mended = counts.copy()
        mended[index] = np.diag(counts[index].sum(axis=1))
        gain = miou(mended.sum(axis=0), definition) - miou(counts.sum(axis=0), definition)
        assert found[index] == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize(("images", "there"), [(7, False), (11, False), (29, False), (30, True)])
def test_the_worst_tenth_has_no_interval_where_it_is_one_or_two_images(images, there):
    per_image = inspection(50, images)
    found = interval(summed_scores(per_image, "cityscapes")["worst_decile_miou"], per_image.clusters)
    assert (found is not None) == there and (not there or found[0] < found[1])
    assert (scores_of_images(per_image).to_plain()["intervals"]["worst_decile_miou"] is not None) == there
