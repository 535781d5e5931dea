"""The commands as a shell meets them: exit codes, messages, help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hrseg.engine import evaluate, train
from tests.conftest import ROOT


@pytest.mark.parametrize("main", [train.main, evaluate.main])
def test_help_shows_calls_that_work(main, capsys):
    assert main(["--help"]) == 0
    assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize("main", [train.main, evaluate.main])
def test_a_wrong_option_ends_with_2(main, capsys):
    assert main(["configs/demo.yaml", "--checkpoints", "x"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_missing_checkpoint_is_told_in_a_sentence():
    command = [sys.executable, "tools/test.py", "--checkpoint", "runs/none/checkpoints/best.pt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: runs/none/checkpoints/best.pt: no such file.") and done.stdout == ""


def test_two_configs_are_one_too_many(capsys, tmp_path):
    assert evaluate.main(["a.yaml", "b.yaml", "--checkpoint", str(tmp_path / "none.pt")]) == 2
    assert "one word too many" in capsys.readouterr().err
