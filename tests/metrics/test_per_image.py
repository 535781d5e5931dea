"""The evidence: every score can be recomputed from the file."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest

from hrseg.errors import DataError
from hrseg.metrics import DEFINITIONS, ImageCounts, PerImage, category_iou, pixel_accuracy, scores_of_images
from hrseg.metrics.scores import areas, ratio
from hrseg.task import LabelSpace, SegmentationClass, Task


def matrices(images: int = 40, classes: int = 5, seed: int = 0) -> np.ndarray:
    """Confusion matrices [N, K, K], most of their cells empty as in single images."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 10**5, (images, classes, classes)) * (rng.random((images, classes, classes)) < 0.3)
    return counts + np.eye(classes, dtype=np.int64) * rng.integers(0, 10**6, (images, 1, 1))


def space(classes: int, task: Task = Task.MULTICLASS) -> LabelSpace:
    """Classes in categories of two, the last in none."""
    categories = [*(str(i // 2) for i in range(classes - 1)), None]
    return LabelSpace(tuple(SegmentationClass(f"c{i}", (0, 0, i), c) for i, c in enumerate(categories)), task)


def evidence(counts: np.ndarray, order=None, *, full: bool = False, **kwargs) -> PerImage:
    """full: with boundary, instances and calibration too."""
    rng = np.random.default_rng(len(counts))
    if full:
        kwargs |= {"instance_classes": ["c1", "c2"], "instance_categories": ["0"], "boundary_ratio": 0.02}
    task = Task.MULTILABEL if counts.ndim == 4 else Task.MULTICLASS
    per_image = PerImage(space(counts.shape[1], task), **kwargs)
    boundary = rng.integers(0, 99, (len(counts), 2, counts.shape[1])).cumsum(axis=1)
    instances = rng.random((len(counts), 2, 3)).cumsum(axis=1)
    calibration = rng.random((len(counts), 3, 15))
    for index in range(len(counts)) if order is None else order:
        others = (boundary[index], instances[index], calibration[index]) if full else ()
        name = f"stadt_{index % 4}/bild {index} ä"
        per_image.add(index, name, ImageCounts(counts[index], *others), f"stadt_{index % 4}")
    return per_image


def test_what_is_read_is_what_was_written(tmp_path):
    counts = matrices()
    evidence(counts, reversed(range(len(counts))), full=True, definition="ade20k").save(tmp_path / "per_image.npz")
    read, written = PerImage.load(tmp_path / "per_image.npz"), evidence(counts, full=True, definition="ade20k")
    assert np.array_equal([read[i] for i in range(len(read))], counts)
    assert np.array_equal(read.total(), counts.sum(axis=0))
    assert read.names[3] == "stadt_3/bild 3 ä" and read.clusters[3] == "stadt_3" and len(read) == len(counts)
    assert [path.name for path in tmp_path.iterdir()] == ["per_image.npz"]
    for key in ("boundary", "instances", "calibration"):
        assert np.array_equal(read.stacked(key), written.stacked(key))
    for definition in (None, *DEFINITIONS):
        assert scores_of_images(read, definition).to_plain() == scores_of_images(written, definition).to_plain()
    assert scores_of_images(read).definition == "ade20k"


def test_no_image_at_all_is_a_file_too(tmp_path):
    PerImage(space(3)).save(tmp_path / "per_image.npz")
    read = PerImage.load(tmp_path / "per_image.npz")
    assert len(read) == 0 and read.names == [] and not read.total().any()
    assert np.isnan(scores_of_images(read).miou) and scores_of_images(read).miou_interval is None


@pytest.mark.parametrize("classes", [19, 150])
def test_a_benchmarks_evidence_is_small(tmp_path, classes):
    counts = matrices(500, 19)  # single images hold few of many classes
    wide = np.zeros((500, classes, classes), np.int64)
    first = np.random.default_rng(0).integers(0, classes - 18, 500)
    for matrix, count, start in zip(wide, counts, first, strict=True):
        matrix[start : start + 19, start : start + 19] = count
    evidence(wide, full=True).save(tmp_path / "per_image.npz")
    assert (tmp_path / "per_image.npz").stat().st_size < 5e6


def test_areas_of_groups_are_those_of_the_matrices():
    counts = matrices()
    per_image = evidence(counts)
    intersection, union = per_image.areas()
    expected = areas(counts)
    assert np.array_equal(intersection, expected[0]) and np.array_equal(union, expected[1])
    groups = per_image.group_areas([0, 0, 1, 1, -1])
    total = counts.sum(axis=0)
    by_group = category_iou(total, ["0", "0", "1", "1", None])
    assert ratio(groups.intersection.sum(0), groups.union.sum(0)).tolist() == list(by_group.values())
    right, counted = per_image.correct_and_counted()
    assert right.sum() == np.trace(total) and counted.sum() == total.sum()


def test_void_predictions_miss_and_are_no_false_alarm():
    counts = np.concatenate([matrices(), 1000 * np.ones((40, 5, 1), np.int64)], axis=2)
    per_image = PerImage(space(5), void_predictions=True)
    for index, count in enumerate(counts):
        per_image.add(index, str(index), ImageCounts(count))
    assert np.array_equal(per_image.areas()[1], areas(counts)[1])
    assert scores_of_images(per_image).pixel_accuracy == pixel_accuracy(counts.sum(axis=0))


def test_parts_of_several_processes_are_one_in_the_order_of_the_data_set():
    counts = matrices()
    merged = PerImage.merge([evidence(counts, range(1, 40, 2)), evidence(counts, range(0, 40, 2))])
    assert merged.names == evidence(counts).names and np.array_equal(merged.total(), counts.sum(axis=0))
    with pytest.raises(ValueError, match=r"share images \[4\]"):
        PerImage.merge([evidence(counts, range(5)), evidence(counts, range(4, 9))])
    with pytest.raises(ValueError, match="counted before"):
        merged.add(7, "again", ImageCounts(counts[7]))
    with pytest.raises(ValueError, match="measured"):
        merged.add(40, "new", ImageCounts(counts[7], boundary=np.zeros((2, 5))))


def test_many_images_take_little_memory_and_come_out_as_they_went_in():
    counts = np.random.default_rng(0).multinomial(64, [0.6, 0.1, 0.1, 0.2], 6000).reshape(-1, 2, 2)
    per_image = PerImage(space(2), boundary_ratio=0.02)
    calibration = np.zeros((3, 15))
    tracemalloc.start()
    for index, confusion in enumerate(counts):
        per_image.add(index, f"{index:06}", ImageCounts(confusion, confusion, calibration=calibration))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown / len(counts) < 100  # bytes an image
    again = pickle.loads(pickle.dumps(per_image))  # as it goes from process to process
    for evidence in (per_image, again):
        assert len(evidence) == 6000 and evidence.names[5000] == "005000"
        assert np.array_equal(evidence.total(), counts.sum(axis=0))
        assert np.array_equal(evidence.stacked("boundary"), counts)


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "other", "cells", "newer"])
def test_a_file_that_is_none_is_named(tmp_path, damage):
    path = tmp_path / "per_image.npz"
    if damage == "text":
        path.write_text("not an archive")
    if damage == "cut":
        evidence(matrices()).save(path)
        path.write_bytes(path.read_bytes()[:500])
    if damage == "other":
        np.savez(path, shape=np.array([2, 2]))
    if damage in ("cells", "newer"):
        evidence(matrices(1)).save(path)
        with np.load(path) as file:
            parts = dict(file)
        if damage == "cells":
            parts["cells"] = parts["cells"] + 25
        else:
            parts["header"] = np.array(str(parts["header"]).replace('"format": 1', '"format": 2'))
        np.savez(path, **parts)
    with pytest.raises(DataError, match=r"per_image\.npz"):
        PerImage.load(path)
