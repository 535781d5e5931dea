"""A whole job is a command that runs to its last file, or to its first iteration, in a new folder each time."""

from __future__ import annotations

import sys
import time

import pytest

from hrseg.benchmark.jobs import Job

WRITE = "import pathlib, sys; folder = pathlib.Path(sys.argv[1]); folder.mkdir(); (folder / 'done').write_text('x')"
WRITE_AND_STAY = f"{WRITE}; import time; time.sleep(60)"
BURN = "import sys, time; x = b'1' * (int(sys.argv[1]) << 20); time.sleep(0.2)"


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def test_each_run_has_a_folder_of_its_own(tmp_path):
    job = Job(python(WRITE, "{out}"), tmp_path)
    job()
    first = job.folder
    job()
    assert job.folder != first and (job.folder / "done").exists()


def test_the_seconds_and_the_memory_are_those_of_the_command(tmp_path):
    small, large = (Job(python(BURN, size), tmp_path / size) for size in ("1", "300"))
    assert small() >= 0.2 and large() >= 0.2
    assert 290 < large.peak_mib - small.peak_mib < 310


def test_a_job_that_is_timed_to_its_first_iteration_is_ended_then(tmp_path):
    job = Job(python(WRITE_AND_STAY, "{out}"), tmp_path, until="done")
    start = time.monotonic()
    assert job() < 30 and time.monotonic() - start < 30


@pytest.mark.parametrize("until", ["", "done"])
def test_a_command_that_fails_is_not_timed(tmp_path, until):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        Job(python("1 / 0"), tmp_path, until=until)()
