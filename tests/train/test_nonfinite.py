"""A loss or gradient that is not finite: the step is not taken, iteration and images are named, the batch is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrseg import config as settings
from hrseg.errors import HrsegError
from hrseg.evaluate.evaluation import only_answer
from hrseg.task import LabelSpace, SegmentationClass, Task
from hrseg.tracking import read_log
from hrseg.train import loop as training
from hrseg.train.nonfinite import KEPT_AT_MOST, SKIPPED_AT_MOST
from hrseg.train.run import Run
from tests.processes import assert_same_run, checkpoint_of, differences


def poisoned(*bad, gradient_only=False):
    """A training step whose loss, or gradient alone, is NaN at these iterations."""

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone() if gradient_only else value * float("nan")

        @staticmethod
        def backward(context, gradient):
            return gradient * float("nan")

    def step(network, optimizer, scaler, batch, **options):
        step.done += 1

        def with_poison(image, target):
            value = network(image, target)
            return value._replace(total=Poison.apply(value.total))

        chosen = with_poison if step.done in bad else network
        return training.training_step(chosen, optimizer, scaler, batch, **options)

    step.done = 0
    return step


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_bad_iteration_ends_the_run_and_leaves_its_batch(tiny, tmp_path, gradient_only):
    met = []

    def watched(network, optimizer, scaler, batch, **options):
        met.append(batch)
        return step(network, optimizer, scaler, batch, **options)

    step = poisoned(3, gradient_only=gradient_only)
    config = settings.load(tiny, ["train.log_every=10", "train.checkpoint_every=2"])
    what = "gradient" if gradient_only else "loss"
    with pytest.raises(
        HrsegError, match=rf"iteration 3: the {what} is not finite on images [0-9, ]+\. The batch is in"
    ):
        training.train(config, tmp_path, step=watched)
    with np.load(tmp_path / "failures" / "iteration_3.npz") as kept:
        assert np.array_equal(kept["image"], met[2].image) and np.array_equal(kept["target"], met[2].target)
        assert tuple(kept["names"]) == met[2].names and kept["step"] == 3
    assert checkpoint_of(tmp_path)["step"] == 2


def test_a_skipped_iteration_leaves_no_trace_in_the_weights(tiny, tmp_path, caplog):
    """Nor in the running average, the optimizer's state and batch norm's statistics."""
    words = ["train.on_nonfinite=skip", "train.ema=0.9", "train.checkpoint_every=1", "train.val_every=9"]
    config = settings.load(tiny, [*words, "train.iterations=8"])

    def stop_after_third(*args, **options):
        result = step(*args, **options)
        if step.done == 3:
            raise KeyboardInterrupt
        return result

    step = poisoned(2)
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path, step=stop_after_third)
    before, after = checkpoint_of(tmp_path, "previous.pt"), checkpoint_of(tmp_path)
    assert (before["step"], after["step"]) == (1, 2)
    for part in ("model", "ema", "optimizer"):
        for saved in (before, after):
            for group in saved["optimizer"]["param_groups"]:
                group["lr"] = None  # of the warm-up
        assert differences(before[part], after[part]) == []
    (skipped,) = [r for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "skipped"]
    assert skipped["step"] == 2 and len(skipped["images"]) == 4 and skipped["reason"] == "the loss is not finite"
    assert skipped["batch"] == "failures/iteration_2.npz" and (tmp_path / skipped["batch"]).exists()
    assert read_log(tmp_path / "log.jsonl")[2]["loss"] is None
    assert "Iteration 2 is skipped: the loss is not finite on images" in caplog.text


def test_a_run_with_skipped_iterations_resumes_like_any_other(tiny, tmp_path):
    config = settings.load(tiny, ["train.on_nonfinite=skip"])
    training.train(config, tmp_path / "whole", step=poisoned(5))
    with pytest.raises(KeyboardInterrupt):

        def killed(*args, **options):
            if step.done == 5:
                raise KeyboardInterrupt
            return step(*args, **options)

        step = poisoned(5)
        training.train(config, tmp_path / "stopped", step=killed)
    training.train(config, tmp_path / "stopped", resume="auto", step=poisoned(2))  # counted from iteration 3
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_too_many_in_a_row_end_the_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "checkpoint", lambda run: pytest.fail("saved"))
    words = ["train.on_nonfinite=skip", "train.iterations=40", "train.val_every=40", "train.checkpoint_every=40"]
    with pytest.raises(HrsegError, match=rf"iteration {SKIPPED_AT_MOST + 1}: .* iterations in a row"):
        training.train(settings.load(tiny, words), tmp_path, step=poisoned(*range(1, 40)))
    assert len(list((tmp_path / "failures").iterdir())) == SKIPPED_AT_MOST + 1 <= KEPT_AT_MOST


def test_where_values_are_read_seldom_the_first_bad_iteration_is_named_all_the_same(tiny, tmp_path, monkeypatch):
    """As on CUDA: the weights are spoilt meanwhile, but neither scored nor saved."""
    monkeypatch.setattr(Run, "reads_each_step", False)
    words = ["train.log_every=10", "train.checkpoint_every=2", "train.val_every=4"]
    with pytest.raises(HrsegError, match="iteration 3: the loss is not finite"):
        training.train(settings.load(tiny, words), tmp_path, step=poisoned(3))
    assert checkpoint_of(tmp_path)["step"] == 2 and len(read_log(tmp_path / "log.jsonl")) == 0
    assert (tmp_path / "failures" / "iteration_3.npz").exists()


def test_an_overflow_of_half_precision_is_no_failure(tiny, tmp_path):
    """Its scaler starts so high that the first gradients overflow, and skips those steps itself."""
    training.train(settings.load(tiny, ["train.precision=fp16", "train.iterations=2"]), tmp_path)
    assert not (tmp_path / "failures").exists()
    assert checkpoint_of(tmp_path)["scaler"]["scale"] < 2.0**16


def space(task, count):
    return LabelSpace(tuple(SegmentationClass(f"class {i}", (i, i, i)) for i in range(count)), task)


@pytest.mark.parametrize(
    ("task", "confusion", "answer"),
    [
        (Task.MULTICLASS, [[5, 0, 0], [3, 0, 0], [0, 0, 0]], "class 0"),
        (Task.MULTICLASS, [[5, 0, 0], [3, 1, 0], [0, 0, 0]], None),
        (Task.MULTICLASS, [[5, 0, 0], [0, 0, 0], [0, 0, 0]], None),  # rightly
        (Task.BINARY, [[0, 5], [0, 3]], "class 1"),
        (Task.MULTILABEL, [[[5, 0], [3, 0]], [[8, 0], [0, 0]]], "no label"),
        (Task.MULTILABEL, [[[5, 0], [3, 0]], [[7, 1], [0, 0]]], None),
    ],
)
def test_one_answer_for_every_pixel_is_found(task, confusion, answer):
    assert only_answer(np.array(confusion), space(task, 3 if task is Task.MULTICLASS else 2)) == answer


def test_one_answer_for_every_pixel_is_told(tiny, tmp_path, caplog):
    training.train(settings.load(tiny, ["optim.lr=1e-9", "train.iterations=1"]), tmp_path)
    assert "for every pixel of 3 images" in caplog.text
