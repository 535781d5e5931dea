"""An error that is not hrseg's own, in a reading process: the command ends, with the error's traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from hrseg.data.reading_stopped import why_reading_stopped
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


def test_under_torchrun_a_foreign_error_of_one_process_ends_all(tmp_path):
    """Only one process meets the bad sample; the other would wait for it."""
    (tmp_path / "tables.py").write_text(DATA_SET.replace("FAILING", repr("train")))
    settings = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"dataset": "tables:Table", "root": str(tmp_path), "check": False, "workers": 2},
        "augment": {"crop": [32, 32]},
        "train": {"iterations": 4, "batch_size": 4},
        "run": {"dir": str(tmp_path / "run"), "threads": 1},
    }
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(ROOT / "tools" / "train.py"), "table.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "KeyError: 'row 5 of the table'" in done.stderr
    assert not (tmp_path / "run" / "lock.json").exists()


KILLED = """
import os, signal
from tables import Table as Sound
class Table(Sound):
    def __getitem__(self, i):
        if self.names[i].startswith("train") and os.path.exists("kill"):
            os.remove("kill")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)
"""


def test_a_reading_process_that_the_system_kills_ends_the_run_with_a_sentence(tmp_path):
    (tmp_path / "tables.py").write_text(DATA_SET.replace("FAILING", repr("none")))
    (tmp_path / "killed.py").write_text(KILLED)
    settings = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"dataset": "killed:Table", "root": str(tmp_path), "check": False, "workers": 1},
        "augment": {"crop": [32, 32]},
        "train": {"iterations": 2, "batch_size": 4},
        "run": {"dir": str(tmp_path / "run"), "threads": 1},
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(settings))
    code = (
        "import sys; from hrseg.commands.train import main; "
        "from hrseg.train import loop; real = loop._follow\n"
        "def follow(*a, **k):\n    open('kill', 'w').close()\n    return real(*a, **k)\n"
        "loop._follow = follow; sys.exit(main(['t.yaml']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2, done.stderr
    assert "data.workers: a reading process was ended by the system" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "message",
    [
        "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory.",
    ],
)
def test_too_little_shared_memory_is_told_with_what_is_there_and_what_is_needed(message):
    error = str(why_reading_stopped(message, 3 * 2**20))
    assert "/dev/shm has" in error and "a batch needs 3.0 MiB" in error and "--shm-size" in error
    assert "data.workers" in error


def test_another_runtime_error_keeps_its_traceback():
    assert why_reading_stopped("mat1 and mat2 shapes cannot be multiplied", 0) is None
