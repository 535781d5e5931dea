"""Scores of a yes at every threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrseg.inference import Inference
from hrseg.metrics import (
    THRESHOLDS,
    ConfusionMatrix,
    ImageCounts,
    PerImage,
    scores_of_images,
    table,
    threshold_counts,
    yes_pixels,
)
from hrseg.task import LabelSpace, SegmentationClass, Task

SPACE = LabelSpace((SegmentationClass("ok", (0, 0, 0)), SegmentationClass("defect", (255, 0, 0))), Task.BINARY)


def answer(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Logits [1, 1, H, W] that know something of the target, and the target, a part of which is ignored."""
    rng = np.random.default_rng(seed)
    target = (rng.random((30, 40)) < 0.2).astype(np.uint8)
    logits = torch.from_numpy(rng.normal(2.0 * target - 1.5, 1.5).astype(np.float32))[None, None]
    target[:2] = 255
    return logits, target


def test_the_counts_give_what_prediction_at_each_threshold_gives():
    logits, target = answer()
    passed = Inference(Task.BINARY).passed(logits)
    right, predicted, truth = yes_pixels(threshold_counts(passed[0].numpy(), target, 255))
    counted = target != 255
    for j in (0, 36, 49, 98):
        said = Inference(Task.BINARY, threshold=float(THRESHOLDS[j])).labels(logits)[0].numpy()
        assert right[0, j] == ((said == 1) & (target == 1)).sum()
        assert predicted[0, j] == ((said == 1) & counted).sum()
    assert truth[0, 0] == (target == 1).sum()


def test_the_foreground_comes_first_with_its_best_threshold(tmp_path):
    per_image, confusion = PerImage(SPACE, threshold=0.3), ConfusionMatrix(2)
    for index in range(3):
        logits, target = answer(index)
        inference = Inference(Task.BINARY, threshold=0.3)
        counts = threshold_counts(inference.passed(logits)[0].numpy(), target, 255)
        said = inference.labels(logits)[0].numpy()
        per_image.add(index, str(index), ImageCounts(confusion.count(said, target), thresholds=counts))
    per_image.save(tmp_path / "per_image.npz")
    found = scores_of_images(PerImage.load(tmp_path / "per_image.npz"))
    foreground = found.foreground
    assert foreground.name == "defect" and foreground.used.threshold == 0.3
    assert foreground.used.iou == pytest.approx(found.classes[1].iou)
    assert foreground.best.iou >= max(foreground.half.iou, foreground.used.iou)
    p, r = foreground.used.precision, foreground.used.recall
    assert foreground.used.dice == pytest.approx(2 * p * r / (p + r))
    plain = found.to_plain()
    assert next(iter(plain)) == "foreground" and plain["foreground"]["half"]["threshold"] == 0.5
    assert "foreground_iou" in plain["intervals"]
    shown = table(found).splitlines()
    assert shown[0].startswith("defect: IoU ") and "at threshold 0.30 (as predicted)" in shown[0]
    assert [line.split()[0] for line in shown if line.startswith(("ok", "defect "))] == ["defect", "ok"]


def test_without_foreground_there_is_no_best_threshold():
    per_image, confusion = PerImage(SPACE, threshold=0.5), ConfusionMatrix(2)
    logits, target = answer()
    target[target == 1] = 0
    counts = threshold_counts(Inference(Task.BINARY).passed(logits)[0].numpy(), target, 255)
    said = Inference(Task.BINARY).labels(logits)[0].numpy()
    per_image.add(0, "a", ImageCounts(confusion.count(said, target), thresholds=counts))
    assert scores_of_images(per_image).foreground.best is None


def test_each_label_of_a_multilabel_task_has_its_own_best_threshold():
    space = LabelSpace(SPACE.classes, Task.MULTILABEL)
    per_image, confusion = PerImage(space, threshold=0.5), ConfusionMatrix(2, multilabel=True)
    (one, truth), (other, also) = answer(0), answer(1)
    logits, target = torch.cat([one, other - 2], dim=1), np.stack([truth, also])
    inference = Inference(Task.MULTILABEL)
    counts = threshold_counts(inference.passed(logits)[0].numpy(), target, 255)
    per_image.add(0, "a", ImageCounts(confusion.count(inference.labels(logits)[0].numpy(), target), thresholds=counts))
    rows = scores_of_images(per_image).to_plain()["labels"]
    assert [row["name"] for row in rows] == ["ok", "defect"]
    assert rows[1]["best"]["threshold"] < rows[0]["best"]["threshold"]


def test_multiclass_scores_have_no_thresholds():
    per_image, confusion = PerImage(LabelSpace(SPACE.classes)), ConfusionMatrix(2)
    per_image.add(0, "a", ImageCounts(confusion.count(np.eye(2, dtype=int), np.eye(2, dtype=int))))
    found = scores_of_images(per_image)
    assert found.foreground is None and next(iter(found.to_plain())) == "miou"
