"""Scores on Cityscapes are those of its official judge."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from hrseg.data.cityscapes_labels import CLASSES, EVALUATED, LABELS, id_to_train_id
from hrseg.metrics import ConfusionMatrix, InstanceIoU, category_iou, iou, miou
from hrseg.metrics.iiou import AVERAGE_SIZE

HERE = Path(__file__).parent.parent


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture(params=["in the repository", "complete"])
def judge(request) -> Path:
    """What the judge was given and what it answered; the shared folder holds the same from its source."""
    folder = HERE / "data/golden" if request.param == "in the repository" else request.getfixturevalue("golden")
    return folder / "cityscapes_judge"


def test_all_scores_are_the_official_judges(judge):
    to_train = id_to_train_id()
    plain, weighted, rest = ConfusionMatrix(19, void_predictions=True), InstanceIoU(LABELS), InstanceIoU(LABELS)
    truths = sorted((judge / "cityscapes/gtFine/val").rglob("*_gtFine_labelIds.png"))
    assert len(truths) == 6
    for number, path in enumerate(truths):
        name = path.name.replace("_gtFine_labelIds.png", "")
        prediction = read(judge / "pred_A" / path.parent.name / f"{name}_pred_labelIds.png")
        ids, instances = read(path), read(path.with_name(f"{name}_gtFine_instanceIds.png"))
        plain.update(to_train[prediction], to_train[ids])
        (weighted, rest)[number % 2].update(prediction, ids, instances)
    weighted.merge(rest)

    counts = plain.compute()
    instance = weighted.compute()
    ours = {
        "classScores": dict(zip((label.name for label in EVALUATED), iou(counts), strict=True)),
        "classInstScores": instance.classes,
        "categoryScores": category_iou(counts, [c.category for c in CLASSES]),
        "categoryInstScores": instance.categories,
    }
    expected = json.loads((judge / "result_A.json").read_text())
    compared = 0
    for kind, values in ours.items():
        for name, value in expected[kind].items():
            assert values.get(name, np.nan) == pytest.approx(value, abs=1e-9, nan_ok=True), (kind, name)
            compared += 1
    assert compared == 84
    assert miou(counts, "cityscapes") == pytest.approx(expected["averageScoreClasses"], abs=1e-9)
    for kind, average in (
        ("categoryScores", "averageScoreCategories"),
        ("classInstScores", "averageScoreInstClasses"),
        ("categoryInstScores", "averageScoreInstCategories"),
    ):
        assert np.nanmean(list(ours[kind].values())) == pytest.approx(expected[average], abs=1e-9)


def by_masks(images) -> tuple[dict[str, float], dict[str, float]]:
    """The same by its definition: object by object, pixel masks, no matrix."""
    valid = [label.id for label in LABELS if not label.ignored]
    classes, categories = {}, {}
    groups = {"human": [24, 25], "vehicle": list(range(26, 34))}
    for members, name, into in [
        *(([label.id], label.name, classes) for label in LABELS if label.has_instances and not label.ignored),
        *((ids, name, categories) for name, ids in groups.items()),
    ]:
        hit = missed = false = 0.0
        for prediction, ids, instances in images:
            false += (np.isin(prediction, members) & np.isin(ids, valid) & ~np.isin(ids, members)).sum()
            for number in np.unique(instances[instances >= 1000]):
                label = next(label for label in LABELS if label.id == number // 1000)
                if label.id not in members or label.ignored:
                    continue
                mask = instances == number
                found = (mask & np.isin(prediction, members)).sum()
                hit += found * AVERAGE_SIZE[label.name] / mask.sum()
                missed += (mask.sum() - found) * AVERAGE_SIZE[label.name] / mask.sum()
        into[name] = hit / (hit + missed + false) if hit + missed + false else np.nan
    return classes, categories


@pytest.mark.parametrize("seed", range(4))
def test_iiou_is_its_definition_on_hostile_images(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(2):
        # Objects of every label, caravans and trailers among them; groups; ids of void; no trains in truth.
        ids = rng.choice([0, 7, 10, 24, 25, 26, 27, 29, 30, 33], (20, 30))
        objects = ids * 1000 + rng.integers(0, 3, ids.shape)
        instances = np.where((ids >= 24) & (rng.random(ids.shape) < 0.8), objects, ids)
        prediction = np.where(rng.random(ids.shape) < 0.5, ids, rng.integers(0, 31 + seed, ids.shape))
        images.append((prediction.astype(np.uint8), ids.astype(np.uint8), instances.astype(np.uint16)))
    measured = InstanceIoU(LABELS)
    for image in images:
        measured.update(*image)
    classes, categories = by_masks(images)
    assert measured.compute().classes == pytest.approx(classes, abs=1e-12, nan_ok=True)
    assert measured.compute().categories == pytest.approx(categories, abs=1e-12, nan_ok=True)


def test_ids_of_no_label_are_refused():
    truth = np.full((4, 4), 26, np.uint8)
    for prediction, instances in ((34, 26), (26, 34000)):
        with pytest.raises(ValueError, match="34"):
            InstanceIoU(LABELS).update(np.full_like(truth, prediction), truth, np.full((4, 4), instances))
