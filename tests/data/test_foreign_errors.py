"""An error that is not hrseg's own, in a reading process: the command ends, with the error's traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT
from tests.shapes import save_checkpoint

DATA_SET = """
import numpy as np
from hrseg.task import LabelSpace, Sample, SegmentationClass


class Table:
    def __init__(self, root, split):
        names = ("ground", "box", "disc")
        self.space = LabelSpace(tuple(SegmentationClass(name, (9, 9, 9)) for name in names))
        self.names = [f"{split}_{i}" for i in range(8)]

    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 5 and self.names[i].startswith(FAILING):
            raise KeyError("row 5 of the table")
        image = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        return Sample(image, np.uint8(image[..., 0] > 127), self.names[i])
"""


@pytest.mark.parametrize("where", ["train", "val", "test"])
def test_a_foreign_error_in_a_reading_process_ends_the_command(tmp_path, where):
    (tmp_path / "tables.py").write_text(DATA_SET.replace("FAILING", repr("train" if where == "train" else "val")))
    settings = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"dataset": "tables:Table", "root": str(tmp_path), "check": False, "workers": 2},
        "augment": {"crop": [32, 32]},
        "train": {"iterations": 4, "batch_size": 4},
        "run": {"dir": str(tmp_path / "run"), "threads": 1},
    }
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(settings))
    words = ["train.py", "table.yaml"]
    if where == "test":
        saved = save_checkpoint(tmp_path / "best.pt")
        words = ["test.py", "table.yaml", "--checkpoint", str(saved), "--out", str(tmp_path / "scores")]
    command = [sys.executable, str(ROOT / "tools" / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert "KeyError: 'row 5 of the table'" in done.stderr
