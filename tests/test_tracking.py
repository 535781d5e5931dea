"""log.jsonl, pictures, and wandb that never asks anybody anything."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from hrseg import tracking
from hrseg.build.tracker import tracker as tracker_of
from hrseg.config import Config, TrackConfig
from hrseg.errors import ConfigError, HrsegError
from hrseg.task import LabelSpace, SegmentationClass, Task


class FakeRun:
    def __init__(self):
        self.logged = []

        self.id, self.artifacts = "a1", []

    def define_metric(self, *names, **options): ...

    def log(self, values):
        self.logged.append((values.pop("iteration"), values))

    def log_artifact(self, artifact, aliases):
        self.artifacts.append((artifact, aliases))

    def finish(self): ...


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The keyword arguments of each wandb.init, which starts nothing."""
    import wandb

    calls = []

    def init(**kwargs):
        calls.append(kwargs)
        return FakeRun()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return calls


def test_records_are_lines_and_what_is_not_finite_is_null(tmp_path):
    with tracker_of(Config(), tmp_path) as tracker:
        tracker.log({"step": 1, "kind": "train", "loss": np.float32(0.5), "grad_norm": float("nan")})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "kind": "train", "loss": 0.5, "grad_norm": None}]


def test_a_resumed_log_is_cut_back_to_the_checkpoint(tmp_path):
    with tracker_of(Config(), tmp_path) as tracker:
        for step in (10, 20, 30):
            tracker.log({"step": step, "kind": "train"})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 40, "ki')  # a crash in the middle of a line
    with tracker_of(Config(), tmp_path, start_step=20) as tracker:
        tracker.log({"step": 21, "kind": "train"})
    assert [r["step"] for r in tracking.read_log(tmp_path / "log.jsonl")] == [10, 20, 21]


def test_pictures_lie_in_the_run_folder(tmp_path):
    picture = np.full((4, 6, 3), 7, np.uint8)
    with tracker_of(Config(), tmp_path) as tracker:
        path = tracker.picture("val/aachen_1", picture, 5)
    assert path == tmp_path / "images" / "val" / "aachen_1.png"
    assert np.array_equal(np.asarray(Image.open(path)), picture)


def test_wandb_is_off_unless_asked_for(tmp_path, started):
    tracker_of(Config(), tmp_path).close()
    assert started == []


def test_without_a_key_and_nobody_watching_wandb_is_kept_offline(tmp_path, started, monkeypatch, caplog):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    tracker_of(Config(track=TrackConfig(wandb="online")), tmp_path).close()
    assert started[0]["mode"] == "offline" and "kept offline" in caplog.text


def test_with_a_key_wandb_is_online_and_a_resumed_run_is_the_same_run(tmp_path, started, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    for _ in range(2):
        tracker_of(Config(track=TrackConfig(wandb="online")), tmp_path).close()
    assert [call["mode"] for call in started] == ["online", "online"]
    assert started[0]["id"] == started[1]["id"] and started[0]["config"]["track"]["wandb"] == "online"


def example(space: LabelSpace) -> tracking.Example:
    image, shape = np.zeros((6, 8, 3), np.uint8), (6, 8)
    labels = np.full((len(space.classes), *shape) if space.task is Task.MULTILABEL else shape, 1, np.uint8)
    return tracking.Example("aachen_1", np.zeros((6, 32, 3), np.uint8), image, labels, 1 - labels)


SPACE = LabelSpace((SegmentationClass("road", (128, 64, 128)), SegmentationClass("car", (0, 0, 142))))


def test_wandb_gets_scalars_pictures_and_the_class_table(tmp_path, started):
    with tracker_of(Config(track=TrackConfig(wandb="offline")), tmp_path) as tracker:
        tracker.log({"step": 3, "kind": "val", "miou": 0.5})
        tracker.picture("batch/step_0", np.zeros((2, 2, 3), np.uint8), 3)
        tracker.examples([example(SPACE)], SPACE, 3)
        tracker.class_table([{"name": "road", "iou": 0.9}, {"name": "car", "iou": None}], 3)
        logged = tracker._others[0]._run.logged
    assert (3, {"val/miou": 0.5}) in logged
    assert {k for _, v in logged for k in v} == {"val/miou", "pictures/batch", "pictures/val", "val/classes"}
    assert (tmp_path / "images" / "val" / "aachen_1.png").exists()


def test_label_maps_go_to_wandb_as_its_own_overlays():
    masks = tracking._masks(example(SPACE), SPACE)
    assert masks["ground truth"]["mask_data"].shape == (6, 8)
    assert masks["prediction"]["class_labels"] == {0: "road", 1: "car", 255: "not counted"}
    labels = LabelSpace(SPACE.classes, Task.MULTILABEL)
    masks = tracking._masks(example(labels), labels)
    assert masks.keys() == {"ground truth: road", "ground truth: car", "prediction: road", "prediction: car"}
    assert masks["ground truth: car"]["mask_data"].shape == (6, 8)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_best_checkpoint_is_an_artifact_only_if_asked_for(tmp_path, started, wanted):
    (tmp_path / "best.pt").write_bytes(b"weights")
    with tracker_of(Config(track=TrackConfig(wandb="offline", checkpoint=wanted)), tmp_path) as tracker:
        tracker.finished(tmp_path / "best.pt", {"miou": 0.5, "step": 3})
        artifacts = tracker._others[0]._run.artifacts
    found = [(list(a.manifest.entries), a.metadata["miou"], aliases) for a, aliases in artifacts]
    assert found == ([(["best.pt"], 0.5, ["best"])] if wanted else [])


def test_a_run_that_wandb_refuses_does_not_start_but_one_that_goes_on_is_kept_offline(
    tmp_path, started, monkeypatch, caplog
):
    import wandb

    real = wandb.init

    def refuse(**kwargs):
        if kwargs["mode"] == "online":
            raise wandb.errors.CommError("no way to api.example\ndetails")
        return real(**kwargs)

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    config = Config(track=TrackConfig(wandb="online"))
    with pytest.raises(HrsegError, match=r"does not start: no way to api\.example\. Fix it"):
        tracker_of(config, tmp_path)
    assert not (tmp_path / "wandb_id").exists()
    (tmp_path / "wandb_id").write_text("abcd")
    tracker_of(config, tmp_path).close()
    assert started[0]["mode"] == "offline" and started[0]["id"] == "abcd"
    assert "goes on offline" in caplog.text


def test_an_offline_run_leaves_files_that_sync_later_and_a_resumed_one_is_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    for step in (3, 6):
        with tracker_of(Config(track=TrackConfig(wandb="offline")), tmp_path / "", start_step=step) as tracker:
            tracker.log({"step": step, "kind": "val", "miou": 0.5})
            tracker.examples([example(SPACE)], SPACE, step)
    identity = (tmp_path / "wandb_id").read_text()
    files = list(tmp_path.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb"))
    assert len(files) == 2  # `wandb sync` appends the second to the first
    written = b"".join(path.read_bytes() for path in files)
    assert b"val/miou" in written and b"class_labels" in written
    assert len(list(tmp_path.glob("wandb/*/files/media/images/mask/pictures/*.mask.png"))) >= 2


def test_tensorboard_gets_scalars_and_pictures_and_drops_what_a_resumed_run_does_again(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = Config(track=TrackConfig(tensorboard=True))
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with tracker_of(config, tmp_path, start_step=start) as tracker:
            for step in steps:
                tracker.log({"step": step, "kind": "train", "loss": start + step})
            tracker.examples([example(SPACE)], SPACE, steps[-1])
            tracker.class_table([{"name": "road", "iou": 0.75}, {"name": "car", "iou": None}], steps[-1])
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 5), (4, 6)]
    assert found.Scalars("iou/road")[-1].value == 0.75 and "iou/car" not in found.Tags()["scalars"]
    assert found.Tags()["images"] == ["val/aachen_1"]


def test_tensorboard_that_is_not_installed_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        tracker_of(Config(track=TrackConfig(tensorboard=True)), tmp_path)
    assert list(tmp_path.iterdir()) == []
