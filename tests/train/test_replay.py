"""A past iteration is done again exactly, and nothing of the run changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hrseg import config as settings
from hrseg import losses
from hrseg.commands import train as train_command
from hrseg.train import loop as training
from tests.processes import Training

WORDS = ("train.accumulate=2", "train.clip_norm=1.0", "train.val_every=3")


@pytest.fixture(scope="module")
def recorded(tiny, tmp_path_factory):
    """A finished run with checkpoints at 6 and 8, and the batches that it met, by iteration."""
    folder, met = tmp_path_factory.mktemp("recorded") / "run", {}

    def watched(network, optimizer, scaler, batch, **options):
        met[len(met) + 1] = batch
        return training.training_step(network, optimizer, scaler, batch, **options)

    training.train(settings.load(tiny, WORDS), folder, step=watched)
    return folder, met


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "replay" not in p.relative_to(folder).parts}


@pytest.mark.parametrize(("step", "origin"), [(2, "its beginning"), (8, "previous.pt, iteration 6")])
def test_a_replayed_iteration_is_the_one_that_was(tiny, recorded, capsys, step, origin):
    folder, met = recorded
    before = contents(folder)
    assert train_command.main([str(tiny), *WORDS, f"run.dir={folder}", "--replay", str(step)]) == 0
    said = capsys.readouterr().out
    assert f"iteration {step} " in said and f"from {origin}" in said and "NOT AS IT WAS" not in said
    assert contents(folder) == before

    there = folder / "replay" / f"step_{step}"
    summary = json.loads((there / "step.json").read_text())
    assert {"loss", "loss_ohem", "kept_share", "grad_norm"} <= summary["replayed"].keys()
    for name, value in summary["replayed"].items():
        assert summary["logged"][name] == value, name
    with np.load(there / "batch.npz") as arrays:
        assert np.array_equal(arrays["image"], met[step].image) and np.array_equal(arrays["target"], met[step].target)
        kept, pixel_loss = arrays["kept"], arrays["loss"]
        valid = arrays["target"] != 255
    assert [row["name"] for row in summary["images"]] == list(met[step].names)
    # Each of the two parts is averaged over its kept pixels.
    parts = [pixel_loss[part][kept[part]].mean() for part in (slice(0, 2), slice(2, 4))]
    assert np.mean(parts) == pytest.approx(summary["replayed"]["loss_ohem"], rel=1e-5)
    shares = [kept[part].sum() / valid[part].sum() for part in (slice(0, 2), slice(2, 4))]
    assert np.mean(shares) == pytest.approx(summary["replayed"]["kept_share"], rel=1e-6)
    assert len(list(there.glob("*.png"))) == 4


def test_changed_settings_are_told(tiny, recorded, capsys):
    folder, _ = recorded
    words = [str(tiny), *WORDS, "optim.lr=0.01", "data.workers=1", f"run.dir={folder}", "--replay", "8"]
    assert train_command.main(words) == 0
    said = capsys.readouterr().out
    assert "NOT AS IT WAS" in said and "optim.lr: 0.003 -> 0.01" in said and "data.workers" not in said


@pytest.mark.parametrize("step", [0, 9])
def test_an_iteration_that_is_not_of_the_run_is_refused(tiny, recorded, capsys, step):
    folder, _ = recorded
    assert train_command.main([str(tiny), *WORDS, f"run.dir={folder}", "--replay", str(step)]) == 2
    assert "iterations 1 to 8" in capsys.readouterr().err and not (folder / "replay" / f"step_{step}").exists()


def test_without_a_run_there_is_nothing_to_replay(tiny, tmp_path, capsys):
    assert train_command.main([str(tiny), f"run.dir={tmp_path / 'none'}", "--replay", "1"]) == 2
    assert "holds no run" in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.long
def test_the_iteration_of_two_processes_is_replayed_by_two(tiny, tmp_path, capsys):
    folder, output = tmp_path / "run", tmp_path / "said.txt"
    words = [tiny, "train.iterations=4", f"run.dir={folder}"]
    assert Training(words, output, 2).wait() == [0, 0]
    assert train_command.main([*map(str, words), "--replay", "4"]) == 2
    assert "the run had 2 processes" in capsys.readouterr().err
    run = Training([*words, "--replay", "4"], output, 2)
    assert run.wait() == [0, 0], run.said()
    summary = json.loads((folder / "replay" / "step_4" / "step.json").read_text())
    assert all(summary["logged"][name] == value for name, value in summary["replayed"].items())
    assert len(summary["images"]) == len(list((folder / "replay" / "step_4").glob("*.png"))) == 4


@pytest.mark.parametrize("labels", [1, 3])
def test_pixel_losses_of_labels_average_to_bce(labels):
    torch.manual_seed(0)
    task = losses.Task.BINARY if labels == 1 else losses.Task.MULTILABEL
    classes = tuple(losses.LabelSpace.from_plain({"classes": [[str(i), [i, i, i], None] for i in range(max(2, labels))],
                                                  "task": task, "ignore_index": 255}).classes)  # fmt: skip
    space = losses.LabelSpace(classes, task)
    logits, target = torch.randn(2, labels, 4, 5), torch.randint(0, 2, (2, labels, 4, 5))
    found = losses.pixel_losses(logits, target[:, 0] if labels == 1 else target, space)
    assert found.shape == (2, 4, 5) and found.mean().item() == pytest.approx(losses.bce(logits, target).item())
