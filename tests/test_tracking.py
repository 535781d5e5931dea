"""log.jsonl, pictures, and wandb that never asks anybody anything."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from hrseg import tracking
from hrseg.config import Config, TrackConfig


class FakeRun:
    def __init__(self):
        self.logged = []

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self): ...


@pytest.fixture
def started(monkeypatch):
    """The keyword arguments of each wandb.init, which starts nothing."""
    import wandb

    calls = []

    def init(**kwargs):
        calls.append(kwargs)
        return FakeRun()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return calls


def test_records_are_lines_and_what_is_not_finite_is_null(tmp_path):
    with tracking.Tracker(tmp_path, Config()) as tracker:
        tracker.log({"step": 1, "kind": "train", "loss": np.float32(0.5), "grad_norm": float("nan")})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "kind": "train", "loss": 0.5, "grad_norm": None}]


def test_a_resumed_log_is_cut_back_to_the_checkpoint(tmp_path):
    with tracking.Tracker(tmp_path, Config()) as tracker:
        for step in (10, 20, 30):
            tracker.log({"step": step, "kind": "train"})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 40, "ki')  # a crash in the middle of a line
    with tracking.Tracker(tmp_path, Config(), start_step=20) as tracker:
        tracker.log({"step": 21, "kind": "train"})
    assert [r["step"] for r in tracking.read_log(tmp_path / "log.jsonl")] == [10, 20, 21]


def test_pictures_lie_in_the_run_folder(tmp_path):
    picture = np.full((4, 6, 3), 7, np.uint8)
    with tracking.Tracker(tmp_path, Config()) as tracker:
        path = tracker.picture("val/aachen_1", picture, 5)
    assert path == tmp_path / "images" / "val" / "aachen_1.png"
    assert np.array_equal(np.asarray(Image.open(path)), picture)


def test_wandb_is_off_unless_asked_for(tmp_path, started):
    tracking.Tracker(tmp_path, Config()).close()
    assert started == []


def test_without_a_key_and_nobody_watching_wandb_is_kept_offline(tmp_path, started, monkeypatch, caplog):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    tracking.Tracker(tmp_path, Config(track=TrackConfig(wandb="online"))).close()
    assert started[0]["mode"] == "offline" and "kept offline" in caplog.text


def test_with_a_key_wandb_is_online_and_a_resumed_run_is_the_same_run(tmp_path, started, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    for _ in range(2):
        tracking.Tracker(tmp_path, Config(track=TrackConfig(wandb="online"))).close()
    assert [call["mode"] for call in started] == ["online", "online"]
    assert started[0]["id"] == started[1]["id"] and started[0]["config"]["track"]["wandb"] == "online"


def test_wandb_gets_scalars_pictures_and_the_class_table(tmp_path, started, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with tracking.Tracker(tmp_path, Config(track=TrackConfig(wandb="offline"))) as tracker:
        tracker.log({"step": 3, "kind": "val", "miou": 0.5})
        tracker.picture("val/a", np.zeros((2, 2, 3), np.uint8), 3)
        tracker.class_table([{"name": "road", "iou": 0.9}, {"name": "car", "iou": None}], 3)
        logged = tracker._wandb.logged
    assert (3, {"val/miou": 0.5}) in logged
    assert {key for _, values in logged for key in values} == {"val/miou", "pictures/val", "val/classes"}
