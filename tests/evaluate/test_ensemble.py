"""Several checkpoints averaged by tools/test.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hrseg.commands import test as test_command
from tests.shapes import save_checkpoint


def test_testing_averages_checkpoints_and_says_which(saved, shapes, tmp_path):
    other = save_checkpoint(tmp_path / "other.pt", seed=1, mean=(0.4, 0.5, 0.6))
    words = ["data.dataset=folder", f"data.root={shapes}", "data.workers=0", "eval.pictures=0", "run.threads=1"]
    both = [word for path in (saved, other) for word in ("--checkpoint", str(path))]
    assert test_command.main([*both, "--out", str(tmp_path / "both"), *words]) == 0
    assert test_command.main(["--checkpoint", str(saved), "--out", str(tmp_path / "one"), *words]) == 0
    metrics = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert metrics["checkpoint"]["path"] == str(saved)
    assert [member["path"] for member in metrics["averaged_with"]] == [str(other)]
    counts = [np.load(tmp_path / name / "per_image.npz") for name in ("both", "one")]
    assert any(not np.array_equal(counts[0][key], counts[1][key]) for key in counts[0].files)


@pytest.mark.parametrize(
    ("difference", "message"),
    [({"names": ("ground", "disc", "box")}, "other classes"), ({"input_range": ((0.0, 65535.0),) * 3}, "65535")],
)
def test_models_of_other_classes_or_images_are_not_averaged(saved, tmp_path, capsys, difference, message):
    other = save_checkpoint(tmp_path / "other.pt", **difference)
    assert test_command.main(["--checkpoint", str(saved), "--checkpoint", str(other)]) == 2
    assert message in capsys.readouterr().err


def test_scores_go_where_run_dir_or_out_says(shapes, tmp_path, capsys):
    saved = save_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    words = ["--checkpoint", str(saved), "data.dataset=folder", f"data.root={shapes}", "data.workers=0"]
    assert test_command.main([*words, f"run.dir={tmp_path / 'here'}"]) == 0
    assert (tmp_path / "here" / "metrics.json").exists() and not (tmp_path / "run" / "metrics.json").exists()
    assert test_command.main([*words, f"run.dir={tmp_path / 'a'}", "--out", str(tmp_path / "b")]) == 2
    assert "--out: and run.dir= both say where the scores go." in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_the_scores_of_another_run_are_not_replaced(shapes, config_file, tmp_path, capsys):
    saved = save_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    other = tmp_path / "other"
    other.mkdir()
    (other / "log.jsonl").write_text("")
    words = ["--checkpoint", str(saved), "data.dataset=folder", f"data.root={shapes}", f"run.dir={other}"]
    assert test_command.main(words) == 2
    predictions = [str(config_file), "--predictions", str(shapes / "masks" / "val"), f"run.dir={other}"]
    assert test_command.main(predictions) == 2
    assert capsys.readouterr().err.count(f"{other}: holds a training run") == 2
    assert [path.name for path in other.iterdir()] == ["log.jsonl"]


def test_scores_of_prediction_files_go_where_run_dir_says(shapes, config_file, tmp_path):
    words = [str(config_file), "--predictions", str(shapes / "masks" / "val"), f"run.dir={tmp_path / 'scored'}"]
    assert test_command.main(words) == 0
    assert json.loads((tmp_path / "scored" / "metrics.json").read_text())["miou"] == 1
