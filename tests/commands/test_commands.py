"""The commands as a shell meets them: exit codes, messages, help."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hrseg import console as cli
from hrseg.commands import check_data, compare, export
from hrseg.commands import test as test_command
from hrseg.commands import train as train_command
from tests.conftest import ROOT


@pytest.mark.parametrize("main", [train_command.main, test_command.main, compare.main, export.main])
def test_help_shows_calls_that_work(main, capsys):
    assert main(["--help"]) == 0
    assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize("main", [train_command.main, test_command.main])
def test_a_wrong_option_ends_with_2(main, capsys):
    assert main(["configs/demo.yaml", "--checkpoints", "x"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_missing_checkpoint_is_told_in_a_sentence():
    command = [sys.executable, "tools/test.py", "--checkpoint", "runs/none/checkpoints/best.pt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: runs/none/checkpoints/best.pt: no such file.") and done.stdout == ""


def test_two_configs_are_one_too_many(capsys, tmp_path):
    assert test_command.main(["a.yaml", "b.yaml", "--checkpoint", str(tmp_path / "none.pt")]) == 2
    assert "one word too many" in capsys.readouterr().err


def test_checking_data_counts_what_is_sound_and_names_what_is_not(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder, high in (("images", 256), ("masks", 2)):
            path = tmp_path / folder / split / "a.png"
            path.parent.mkdir(parents=True)
            shape = (8, 8, 3) if folder == "images" else (8, 8)
            Image.fromarray(rng.integers(0, high, shape, dtype=np.uint8)).save(path)
    (tmp_path / "classes.yaml").write_text("[{name: ground}, {name: tree}]")
    config = tmp_path / "own.yaml"
    config.write_text(f"data: {{dataset: folder, root: '{tmp_path}'}}\nrun: {{dir: '{tmp_path}/run'}}")
    assert check_data.main([str(config)]) == 0
    assert "train: 1 image, 8x8 (height x width), nothing wrong" in capsys.readouterr().out
    assert (tmp_path / "run" / "data.png").exists()
    (tmp_path / "masks" / "val" / "a.png").unlink()
    assert check_data.main([str(config)]) == 2
    assert "a.png" in capsys.readouterr().err


def test_without_a_network_the_retries_of_the_hub_are_not_told(capfd):
    from huggingface_hub.utils._http import http_backoff

    @cli.command
    def main(argv):
        with contextlib.suppress(Exception):
            http_backoff("HEAD", "http://127.0.0.1:9", max_retries=1, base_wait_time=0.01)
        return 2

    assert main([]) == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("word", ["optim.lr=1", "train.iterations=3", "augment.flip=0", "track.name=a", "loss=[]"])
def test_a_typed_setting_that_scoring_and_export_would_ignore_is_refused(saved, shapes, tmp_path, capsys, word):
    scoring = ["--checkpoint", str(saved), f"data.root={shapes}", "--out", str(tmp_path / "scores"), word]
    exporting = ["--checkpoint", str(saved), "--format", "onnx", "--out", str(tmp_path / "m.onnx"), word]
    for main, words in ((test_command.main, scoring), (export.main, exporting)):
        assert main(words) == 2
        assert f"{word.partition('=')[0]}: has no effect on tools/" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
