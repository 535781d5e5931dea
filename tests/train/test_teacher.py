"""A run with a teacher learns from it, names it, goes on exactly, and refuses a teacher that does not fit."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from hrseg import config as settings
from hrseg.tracking import read_log
from hrseg.train import loop as training
from hrseg.weights.source import sha256
from tests.shapes import save_checkpoint
from tests.train.test_loop import same_weights, train, weights_of, without_times


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A checkpoint with the classes of the data set in another order."""
    return save_checkpoint(tmp_path_factory.mktemp("teacher") / "teacher.pt", names=("disc", "ground", "box"))


@pytest.fixture
def taught(config_file, teacher, tmp_path):
    """A run of four iterations with a teacher."""
    words = ("train.iterations=4", "train.val_every=2", f"distill.teacher={teacher}")
    assert train(config_file, tmp_path / "taught", *words) == 0
    return tmp_path / "taught", words


def test_the_teacher_is_in_loss_and_log_and_its_weights_are_not_in_the_checkpoint(taught, teacher):
    folder, _ = taught
    records = read_log(folder / "log.jsonl")
    trained = [r for r in records if r["kind"] == "train"]
    assert all(r["loss_distill"] > 0 and r["teacher_s"] > 0 for r in trained)
    for record in trained:
        assert record["loss"] == pytest.approx(record["loss_ohem"] + 3 * record["loss_distill"], rel=1e-4)
    saved = weights_of(folder)
    assert saved["teachers"] == [{"path": str(teacher), "sha256": sha256(teacher)}]
    assert {key.partition(".")[0] for key in saved["model"]} == {"encoder", "decoder", "segmentation_head"}
    scores = [r["teacher_miou"] for r in records if r["kind"] == "val"]
    assert len(scores) == 2 and len(set(scores)) == 1


def test_a_teacher_that_is_worse_than_its_student_is_reported(config_file, teacher, tmp_path, caplog):
    words = ("train.iterations=12", "train.val_every=12", "distill.kind=kl", "distill.weight=0.001")
    assert train(config_file, tmp_path / "run", *words, f"distill.teacher={teacher}") == 0
    val = next(r for r in read_log(tmp_path / "run" / "log.jsonl") if r["kind"] == "val")
    assert val["miou"] > val["teacher_miou"]
    assert "is below the student's" in caplog.text


def test_a_resumed_run_with_a_teacher_equals_one_that_was_never_stopped(config_file, taught, tmp_path):
    whole, words = taught

    def stop_after_three(*args, **kwargs):
        result = training.training_step(*args, **kwargs)
        stop_after_three.calls += 1
        if stop_after_three.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    stop_after_three.calls = 0
    folder = tmp_path / "stopped"
    training.train(settings.load(config_file, [f"run.dir={folder}", *words]), folder, step=stop_after_three)
    assert weights_of(folder)["step"] == 3
    assert train(config_file, folder, *words, resume="auto") == 0
    assert same_weights(weights_of(whole), weights_of(folder))
    logs = [without_times(read_log(path / "log.jsonl")) for path in (whole, folder)]
    for log in logs:
        for record in log:
            record.pop("teacher_s", None)
    assert logs[0] == logs[1]


def test_a_run_does_not_go_on_with_another_teacher(config_file, taught, tmp_path, capsys):
    folder, words = taught
    other = save_checkpoint(tmp_path / "other.pt", seed=1)
    assert train(config_file, folder, *words, f"distill.teacher={other}", resume="auto") == 2
    assert "taught by other weights" in capsys.readouterr().err


def test_several_teachers_answer_as_one(config_file, teacher, tmp_path):
    same_twice = f"distill.teacher=[{teacher}, {teacher}]"
    losses = []
    for name, word in (("one", f"distill.teacher={teacher}"), ("two", same_twice)):
        assert train(config_file, tmp_path / name, "train.iterations=1", "distill.kind=kl", word) == 0
        losses.append(read_log(tmp_path / name / "log.jsonl")[0]["loss_distill"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"names": ("ground", "box", "ball")}, "it lacks disc; it has ball"),
        ({"names": ("ground", "box"), "task": "multilabel"}, "is for a multilabel task"),
        ({"input_range": ((0.0, 65535.0),) * 3}, "takes images with 3 channels of 0 to 65535"),
    ],
    ids=["classes", "task", "range"],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_written(
    config_file, tmp_path, capsys, checkpoint, message
):
    path = save_checkpoint(tmp_path / "teacher.pt", **checkpoint)
    assert train(config_file, tmp_path / "run", f"distill.teacher={path}") == 2
    error = capsys.readouterr().err
    assert "distill.teacher" in error and message in error
    assert not (tmp_path / "run").exists()


def test_the_students_gradient_comes_from_the_teacher_too(config_file, teacher, tmp_path):
    for name, words in (("alone", ()), ("taught", (f"distill.teacher={teacher}",))):
        assert train(config_file, tmp_path / name, "train.iterations=1", *words) == 0
    alone, taught = weights_of(tmp_path / "alone"), weights_of(tmp_path / "taught")
    assert not same_weights(alone, taught)
    assert torch.equal(alone["model"]["encoder.bn1.num_batches_tracked"], torch.tensor(1))
