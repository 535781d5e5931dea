"""Scores: what each tool's definition makes of one matrix."""

from __future__ import annotations

import json

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from hrseg.data.ade20k import ADE20K
from hrseg.errors import ConfigError
from hrseg.metrics import (
    ConfusionMatrix,
    category_iou,
    class_accuracy,
    confusion_matrix,
    iou,
    miou,
    multilabel_confusion,
    pixel_accuracy,
    scores,
    table,
)
from hrseg.task import LabelSpace, SegmentationClass, Task

# Four classes, the last in neither truth nor prediction: 6 / 10, 3 / 9 and 4 / 8 pixels.
CONFUSION = np.array([[6, 1, 1, 0], [2, 3, 1, 0], [0, 2, 4, 0], [0, 0, 0, 0]])
SPACE = LabelSpace(
    tuple(
        SegmentationClass(name, (0, 0, 0), category)
        for name, category in (("road", "flat"), ("path", "flat"), ("car", "vehicle"), ("train", None))
    )
)


def test_an_absent_class_has_no_iou():
    np.testing.assert_allclose(iou(CONFUSION), [6 / 10, 3 / 9, 4 / 8, np.nan])
    np.testing.assert_allclose(class_accuracy(CONFUSION), [6 / 8, 3 / 6, 4 / 6, np.nan])
    assert pixel_accuracy(CONFUSION) == 13 / 20


@pytest.mark.parametrize(
    ("definition", "absent"), [("cityscapes", None), ("mmseg", None), ("ade20k", 0), ("hrnet", 0), ("smp", 1)]
)
def test_the_definition_says_what_an_absent_class_counts_for(definition, absent):
    present = [6 / 10, 3 / 9, 4 / 8]
    assert miou(CONFUSION, definition) == pytest.approx(np.mean(present if absent is None else [*present, absent]))
    scored = scores(CONFUSION, SPACE, definition)
    found = [6 / 8, 3 / 6, 4 / 6]
    assert scored.class_accuracy == pytest.approx(np.mean(found if absent is None else [*found, absent]))


def test_the_smp_definition_is_what_smp_answers():
    rng = np.random.default_rng(0)
    target, prediction = rng.integers(0, 3, (2, 1, 20, 20))
    stats = smp.metrics.get_stats(torch.from_numpy(prediction), torch.from_numpy(target), "multiclass", num_classes=4)
    expected = smp.metrics.iou_score(*stats, reduction="macro").item()
    assert miou(confusion_matrix(prediction, target, 4), "smp") == pytest.approx(expected, rel=1e-6)


def as_ade20k_does(predictions, targets, classes: int) -> tuple[float, float]:
    """Pixel accuracy and mean IoU by the benchmark's rules: 0 is unlabelled, classes count from 1.

    Right over labelled pixels of the whole set; areas summed, 1e-10 added to each union, the mean over all classes.
    """
    right = labelled = 0
    intersection, union = np.zeros((2, classes))
    for prediction, target in zip(predictions + 1, targets, strict=True):
        prediction = prediction * (target > 0)
        right, labelled = right + (prediction == target)[target > 0].sum(), labelled + (target > 0).sum()
        for k in range(classes):
            p, t = prediction == k + 1, target == k + 1
            intersection[k], union[k] = intersection[k] + (p & t).sum(), union[k] + (p | t).sum()
    return right / (labelled + 1e-10), float((intersection / (union + 1e-10)).mean())


def test_ade20k_is_scored_as_the_challenge_does():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 120, (4, 40, 50))  # 30 classes are in no truth, some of them in no prediction
    predictions = np.where(
        rng.random(targets.shape) < 0.7, np.maximum(targets, 1) - 1, rng.integers(0, 130, targets.shape)
    )
    counts = ConfusionMatrix(150)
    for prediction, target in zip(predictions, targets, strict=True):
        counts.update(prediction, np.where(target == 0, 255, target - 1))
    found = counts.compute()
    assert (pixel_accuracy(found), miou(found, "ade20k")) == pytest.approx(as_ade20k_does(predictions, targets, 150))
    assert ADE20K.definition == "ade20k"


def test_one_false_pixel_makes_an_absent_class_a_zero():
    confusion = CONFUSION.copy()
    confusion[0, 3] = 1
    assert miou(confusion, "cityscapes") == pytest.approx(np.mean([6 / 11, 3 / 9, 4 / 8, 0]))


def test_a_prediction_of_no_class_only_misses():
    confusion = np.column_stack([CONFUSION, [5, 0, 0, 0]])
    np.testing.assert_allclose(iou(confusion), [6 / 15, 3 / 9, 4 / 8, np.nan])
    assert pixel_accuracy(confusion) == 13 / 25


def test_a_confusion_within_a_category_is_none():
    categories = ["flat", "flat", "vehicle", "vehicle"]
    assert category_iou(CONFUSION, categories) == {"flat": 12 / 16, "vehicle": 4 / 8}
    assert category_iou(CONFUSION, ["a", None, "b", "c"]) == pytest.approx(
        {"a": 0.6, "b": 0.5, "c": np.nan}, nan_ok=True
    )


def test_an_unknown_definition_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'cityscapes'"):
        miou(CONFUSION, "cityscape")


@pytest.mark.parametrize("shape", [(3,), (3, 5), (4, 3)])
def test_what_is_no_confusion_matrix_is_refused(shape):
    with pytest.raises(ValueError, match="confusion matrix"):
        iou(np.zeros(shape, np.int64))


def test_metrics_json_holds_plain_values_and_null_for_what_is_absent():
    plain = json.loads(json.dumps(scores(CONFUSION, SPACE, "cityscapes").to_plain(), allow_nan=False))
    assert plain["classes"][0] == {
        "name": "road", "iou": 0.6, "accuracy": 0.75, "dice": pytest.approx(0.75), "boundary_iou": None, "pixels": 8
    }  # fmt: skip
    assert plain["classes"][3]["iou"] is None and plain["classes"][3]["pixels"] == 0
    assert plain["category"] == {"flat": 0.75, "vehicle": 0.5}
    assert plain["miou_interval"] is None and plain["definition"] == "cityscapes"
    nothing = scores(np.zeros((4, 4), np.int64), SPACE, "cityscapes").to_plain()
    assert nothing["miou"] is None and nothing["pixel_accuracy"] is None


def test_a_binary_task_has_background_and_foreground():
    space = LabelSpace(SPACE.classes[:2], Task.BINARY)
    scored = scores(np.array([[90, 4], [2, 4]]), space, "cityscapes")
    foreground = scored.classes[1]
    assert (foreground.iou, foreground.dice, foreground.pixels) == (4 / 10, pytest.approx(8 / 14), 6)
    assert scored.miou == pytest.approx((90 / 96 + 4 / 10) / 2)


def test_a_multilabel_task_is_scored_by_the_yes_of_each_label():
    prediction = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    target = np.array([[[1, 0, 0, 1]], [[0, 0, 0, 0]]])
    space = LabelSpace(SPACE.classes[:2], Task.MULTILABEL)
    scored = scores(multilabel_confusion(prediction, target, 2), space, "cityscapes")
    assert scored.classes[0].iou == pytest.approx(1 / 3) and scored.classes[0].dice == pytest.approx(1 / 2)
    assert np.isnan(scored.classes[1].iou) and scored.miou == pytest.approx(1 / 3)
    assert scored.pixel_accuracy == 6 / 8 and scored.classes[0].pixels == 2
    with pytest.raises(ValueError, match="does not fit"):
        scores(CONFUSION, space, "cityscapes")


def test_the_table_shows_every_class():
    assert table(scores(CONFUSION, SPACE, "cityscapes")).splitlines() == [
        "class  IoU %  accuracy %  pixels %",
        "----------------------------------",
        "road   60.00       75.00     40.00",
        "path   33.33       50.00     30.00",
        "car    50.00       66.67     30.00",
        "train      -           -      0.00",
        "----------------------------------",
        "mean   47.78       63.89",
        "pixel accuracy 65.00; definition cityscapes",
    ]
    measured = scores(CONFUSION, SPACE, "cityscapes", boundary_iou=np.array([0.5, 0.25, np.nan, np.nan]))
    assert "37.50" in table(measured)
