"""The threshold of a binary task, from training to the exported file."""

from __future__ import annotations

import json

import pytest
import yaml

from hrseg.build.trained_model import load_trained_model
from hrseg.commands import export, predict, test, train
from hrseg.predict.predictor import Predictor
from hrseg.weights import checkpoint
from tests.shapes import save_checkpoint


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run folder of a binary task."""
    folder = tmp_path_factory.mktemp("binary")
    plain = yaml.safe_load(tiny.read_text())
    plain["data"]["task"], plain["loss"] = "binary", []
    plain["train"] |= {"iterations": 4, "val_every": 2}
    path = folder / "binary.yaml"
    path.write_text(yaml.safe_dump(plain))
    assert train.main([str(path), f"run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_training_stores_the_best_threshold_and_chooses_by_the_foreground(run):
    state = checkpoint.load(run / "checkpoints" / "best.pt")
    metrics = json.loads((run / "metrics.json").read_text())
    assert state["threshold"] == metrics["foreground"]["best"]["threshold"]
    assert state["best"]["foreground_iou"] == pytest.approx(metrics["foreground"]["half"]["iou"])
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert state["best"]["foreground_iou"] == max(r["foreground_iou"] for r in records if r["kind"] == "val")
    assert "precision over recall" in (run / "report.html").read_text().lower()


def test_test_uses_the_stored_threshold_or_the_given_one(run, tmp_path, capsys):
    path = run / "checkpoints" / "best.pt"
    stored = checkpoint.load(path)["threshold"]
    for words, threshold in (([], stored), (["--threshold", "0.9"], 0.9)):
        assert test.main(["--checkpoint", str(path), "--out", str(tmp_path / str(threshold)), *words]) == 0
        assert capsys.readouterr().out.startswith("box: IoU ")
        found = json.loads((tmp_path / str(threshold) / "metrics.json").read_text())["foreground"]
        assert found["threshold"] == threshold
    assert found["recall"] <= found["half"]["recall"]


def test_predict_and_export_take_the_threshold(run, tmp_path):
    path = str(run / "checkpoints" / "best.pt")
    stored = load_trained_model(path).threshold
    assert Predictor(path).inference.threshold == stored
    assert Predictor(path, threshold=0.8).inference.threshold == 0.8
    out = tmp_path / "net.pt2"
    words = ["--checkpoint", path, "--format", "torch.export", "--out", str(out), "--argmax", "--size", "64x64"]
    assert export.main([*words, "--threshold", "0.8"]) == 0
    assert json.loads((tmp_path / "net.pt2.json").read_text())["threshold"] == 0.8


def test_an_old_checkpoint_has_one_half(tmp_path):
    path = save_checkpoint(tmp_path / "net.pt", names=("ok", "defect"), task="binary")
    assert load_trained_model(path).threshold == 0.5


def test_a_threshold_is_refused_for_several_classes(saved, tmp_path, capsys):
    words = ["--checkpoint", str(saved), "--threshold", "0.4"]
    assert export.main([*words, "--format", "onnx", "--out", str(tmp_path / "a.onnx")]) == 2
    assert test.main(words) == 2
    (tmp_path / "photo.png").write_bytes(b"")
    assert predict.main([*words, str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: --threshold: is for binary and multilabel tasks") for line in told] == [True] * 3
