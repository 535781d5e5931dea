"""The figures of a report: what a confusion costs, what an image scored, which data it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hrseg.errors import DataError, HrsegError
from hrseg.metrics import ImageCounts, PerImage, confusion_matrix, iou, miou
from hrseg.metrics.scores import mean
from hrseg.report import run_folder
from hrseg.task import LabelSpace, SegmentationClass, Task
from tests.report.made import SPACE, run


def run_of(confusion: np.ndarray, definition: str = "cityscapes") -> run_folder.EvaluatedRun:
    task = Task.MULTILABEL if confusion.ndim == 3 else Task.MULTICLASS
    space = LabelSpace(tuple(SegmentationClass(f"c{i}", (0, 0, 0)) for i in range(len(confusion))), task)
    per_image = PerImage(space, void_predictions=confusion.shape[-1] > confusion.shape[-2])
    per_image.add(0, "a", ImageCounts(confusion))
    names = [{"name": f"c{i}"} for i in range(len(confusion))]
    return run_folder.EvaluatedRun(Path("x"), {"classes": names, "definition": definition}, per_image, [], None)


@pytest.mark.parametrize("definition", ["cityscapes", "ade20k", "smp"])
def test_the_cost_of_a_confusion_is_what_the_mean_gains_without_it(definition):
    confusion = np.random.default_rng(0).integers(0, 50, (5, 5))
    confusion[3] = confusion[:, 3] = 0
    confusion[4] = confusion[:, 4] = 0
    confusion[1, 3] = 7  # class 3 is there by this mistake alone, class 4 not at all
    costs = {c[:2]: c.cost for c in run_folder.costliest_confusions(run_of(confusion, definition), count=99)}
    for truth, prediction in zip(*np.nonzero(confusion), strict=True):
        if truth != prediction:
            mended = confusion.copy()
            mended[truth, truth] += mended[truth, prediction]
            mended[truth, prediction] = 0
            gain = miou(mended, definition) - miou(confusion, definition)
            assert costs.get((f"c{truth}", f"c{prediction}"), 0) == pytest.approx(max(gain, 0), abs=1e-12)
    assert list(costs.values()) == sorted(costs.values(), reverse=True)


def test_the_cost_of_a_missed_label_and_of_one_seen_where_it_is_not():
    confusion = np.array([[[50, 10], [20, 20]], [[90, 0], [4, 6]]])
    costs = {c[:2]: c for c in run_folder.costliest_confusions(run_of(confusion))}
    before = mean(iou(confusion)[:, 1], "cityscapes")
    for pair, cell in ((("c0", run_folder.NOTHING), (0, 1, 0)), ((run_folder.NOTHING, "c0"), (0, 0, 1))):
        mended = confusion.copy()
        mended[cell[0], cell[1], cell[1]] += mended[cell]
        mended[cell] = 0
        assert costs[pair].cost == pytest.approx(mean(iou(mended)[:, 1], "cityscapes") - before)
        assert costs[pair].pixels == confusion[cell]
    assert costs["c0", run_folder.NOTHING].share == 0.5 and costs[run_folder.NOTHING, "c0"].share is None


def test_predictions_that_are_no_class_cost_too():
    confusion = np.array([[6, 0, 2], [0, 4, 0]])
    (only,) = run_folder.costliest_confusions(run_of(confusion))
    assert only == ("c0", run_folder.NOTHING, 2, 0.25, pytest.approx((1 - 6 / 8) / 2))


def test_the_data_hash_follows_labels_and_names_but_not_the_predictions():
    truth = np.array([[0, 0, 1, 2]])

    def hashed(prediction, truth=truth, name="a"):
        per_image = PerImage(SPACE)
        per_image.add(0, name, ImageCounts(confusion_matrix(np.array([prediction]), truth, 3, 255)))
        return run_folder.data_hash(per_image)

    assert hashed([0, 0, 1, 2]) == hashed([2, 1, 0, 0])
    assert hashed([0, 0, 1, 2], np.array([[0, 1, 1, 2]])) != hashed([0, 0, 1, 2])
    assert hashed([0, 0, 1, 2], name="b") != hashed([0, 0, 1, 2])


def test_settings_that_differ_are_told_by_their_dotted_names():
    ours, theirs = {"optim": {"lr": 0.1, "name": "sgd"}}, {"optim": {"lr": 0.2, "name": "sgd", "beta": 1}}
    assert run_folder.differing_settings(ours, theirs) == [("optim.beta", None, 1), ("optim.lr", 0.1, 0.2)]


def test_a_folder_that_was_not_scored_and_a_broken_file_are_told(tmp_path):
    with pytest.raises(HrsegError, match=r"no metrics\.json.*tools/test\.py"):
        run_folder.read_run(tmp_path)
    folder = run(tmp_path / "run", ["a", "b"])
    (folder / "examples.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="examples"):
        run_folder.read_run(folder)
    (folder / "metrics.json").write_text(json.dumps({"miou": 0.5}))
    with pytest.raises(DataError, match="lacks checkpoint, classes"):
        run_folder.read_run(folder)


@pytest.mark.parametrize(
    ("dataset", "root", "name"),
    [
        ("cityscapes", "data/toycity", "toycity (cityscapes layout)"),  # which is not Cityscapes
        ("cityscapes", "/data/Cityscapes/", "cityscapes"),
        ("mylab.data:Tiles", ".", "mylab.data:Tiles"),
    ],
)
def test_data_are_called_by_their_folder_and_not_by_the_benchmark_whose_layout_they_have(dataset, root, name):
    assert run_folder.data_name({"data": {"dataset": dataset, "root": root}}) == name
