"""Counts: exact, whatever the type of the labels; what is no class is seen."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hrseg.metrics import ConfusionMatrix, confusion_matrix, multilabel_confusion, pixel_runs


def labels(classes: int, seed: int = 0, shape=(37, 53)) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target, a tenth of it ignored."""
    rng = np.random.default_rng(seed)
    prediction, target = rng.integers(0, classes, (2, *shape))
    return prediction, np.where(rng.random(shape) < 0.1, 255, target)


def by_loop(prediction, target, classes: int, ignore_index: int = 255) -> np.ndarray:
    counts = np.zeros((classes, classes), np.int64)
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t != ignore_index:
            counts[t, p] += 1
    return counts


@pytest.mark.parametrize("classes", [2, 19, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.int16])
def test_counts_are_those_of_a_loop(classes, dtype):
    prediction, target = labels(classes)
    counts = confusion_matrix(prediction.astype(dtype), target.astype(dtype), classes)
    assert counts.dtype == np.int64 and np.array_equal(counts, by_loop(prediction, target, classes))
    tensors = [torch.from_numpy(plane.astype(dtype))[None] for plane in (prediction, target)]
    assert np.array_equal(confusion_matrix(*tensors, classes=classes), counts)


def test_more_classes_than_a_byte_holds():
    prediction, target = labels(300)
    target[target == 255] = -1
    assert np.array_equal(confusion_matrix(prediction, target, 300, -1), by_loop(prediction, target, 300, -1))


def test_planes_larger_than_a_float32_can_count_are_exact():
    target = np.ones(2 * 2**24 + 7, np.uint8)
    assert confusion_matrix(target, target, 2).tolist() == [[0, 0], [0, 2 * 2**24 + 7]]


def test_a_view_that_is_not_contiguous_counts_like_its_copy():
    prediction, target = (plane.astype(np.uint8)[::2, ::-1] for plane in labels(19))
    assert np.array_equal(confusion_matrix(prediction, target, 19), by_loop(prediction, target, 19))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_value_that_is_no_class_is_named(dtype):
    prediction, target = (plane.astype(dtype) for plane in labels(19))
    wrong = prediction.copy()
    wrong[target != 255] = 33
    with pytest.raises(ValueError, match="prediction holds 33"):
        confusion_matrix(wrong, target, 19)
    with pytest.raises(ValueError, match="target holds 20"):
        confusion_matrix(prediction, np.where(target == 3, 20, target).astype(dtype), 19)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(prediction[1:], target, 19)
    with pytest.raises(TypeError, match="integers"):
        confusion_matrix(prediction.astype(np.float32), target, 19)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_prediction_of_no_class_is_a_miss_and_no_false_alarm(dtype):
    target = np.array([0, 0, 1, 255], dtype)
    prediction = np.array([0, 255, 200, 255], dtype)  # where the target is ignored, nothing counts
    counts = confusion_matrix(prediction, target, 2, void_predictions=True)
    assert counts.tolist() == [[1, 0, 1], [0, 0, 1]]


def test_multilabel_counts_each_label_by_itself():
    prediction = np.array([[[1, 1, 0]], [[0, 1, 1]]], np.uint8)  # [L, H, W]
    target = np.array([[[1, 0, 255]], [[0, 1, 0]]], np.uint8)
    expected = [[[0, 1], [0, 1]], [[1, 1], [0, 1]]]
    assert multilabel_confusion(prediction, target, 2).tolist() == expected
    matrix = ConfusionMatrix(2, multilabel=True)
    matrix.update(torch.from_numpy(prediction)[None].bool(), torch.from_numpy(target)[None])  # a batch of one
    assert matrix.compute().tolist() == expected
    for name, planes in {"prediction": (prediction[:1], target), "target": (prediction, target[:1])}.items():
        with pytest.raises(ValueError, match=f"{name} number 1, not 2"):
            multilabel_confusion(*planes, 2)


def test_a_matrix_adds_up_and_starts_again():
    prediction, target = labels(5)
    matrix = ConfusionMatrix(5)
    added = matrix.update(prediction, target)
    matrix.update(prediction, target)
    assert np.array_equal(matrix.compute(), 2 * added) and added.sum() == (target != 255).sum()
    matrix.sync()  # one process: nothing to add, but what is counted now would be lost to a sum already made
    with pytest.raises(RuntimeError, match="reset"):
        matrix.update(prediction, target)
    matrix.reset()
    assert not matrix.compute().any()


def _sync_in_one_process(rank: int, matrix: ConfusionMatrix, file: str, queue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    matrix.sync()
    matrix.sync()  # twice is harmless
    queue.put(matrix.compute().tolist())
    dist.destroy_process_group()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked")
def test_processes_share_the_exact_sum(tmp_path):
    context = multiprocessing.get_context("fork")  # a fresh process would take seconds to import torch
    queue = context.Queue()
    processes = []
    for rank in range(2):
        matrix = ConfusionMatrix(2)
        target = np.full(2**25 + rank, rank, np.uint8)  # a float32 would lose the odd one
        matrix.update(target, target)
        args = (rank, matrix, str(tmp_path / "store"), queue)
        processes.append(context.Process(target=_sync_in_one_process, args=args))
    for process in processes:
        process.start()
    counts = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert counts == [[[2**25, 0], [0, 2**25 + 1]]] * 2


def test_runs_stand_for_the_pixels_of_all_maps_across_rows_and_blocks():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, (300, 20), np.uint8).repeat(61, axis=1)  # 366 000 pixels: several blocks
    second = np.roll(rng.integers(0, 40000, (300, 10), np.uint16).repeat(122, axis=1), 5)
    (one, other), pixels = pixel_runs(first, second)
    assert np.array_equal(one.repeat(pixels), first.ravel()) and np.array_equal(other.repeat(pixels), second.ravel())
    assert not np.any((np.diff(one.astype(int)) == 0) & (np.diff(other.astype(int)) == 0))
    assert [each.size for each in (*pixel_runs(first[:0])[0], pixel_runs(first[:0])[1])] == [0, 0]


def test_runs_count_as_their_pixels_do():
    prediction, target = (plane.astype(np.uint8) for plane in labels(19))
    values, pixels = pixel_runs(prediction, target)
    assert np.array_equal(confusion_matrix(*values, 19, pixels=pixels), by_loop(prediction, target, 19))
    with pytest.raises(ValueError, match="33"):
        confusion_matrix(np.array([1, 33]), np.array([1, 2]), 19, pixels=np.array([5, 1]))


def test_runs_refuse_maps_of_several_shapes():
    with pytest.raises(ValueError, match="differ in shape"):
        pixel_runs(np.zeros((2, 3)), np.zeros((3, 2)))
