"""Another process lists the data sets and looks at their files: the same comes of it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from hrseg import build
from hrseg import config as settings
from hrseg.data import checks
from hrseg.errors import ConfigError, DataError
from hrseg.train import ahead


@pytest.fixture
def config(tmp_path):
    for split in ("train", "val"):
        for kind, shape in (("images", (8, 8, 3)), ("masks", (8, 8))):
            (tmp_path / kind / split).mkdir(parents=True)
            for name in "abc":
                Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / kind / split / f"{name}.png")
    (tmp_path / "classes.yaml").write_text("[road, sky]")
    return settings.parse({"data": {"dataset": "folder", "root": str(tmp_path)}}, where="here")


def test_data_sets_and_problems_are_those_that_are_found_without_it(config, tmp_path):
    (tmp_path / "masks/train/b.png").unlink()
    (tmp_path / "masks/val/c.png").write_bytes(b"")
    looking, sets = ahead.start(config, check=True), build.data_sets(config)
    assert looking is not None
    found = looking.data_sets()
    assert {split: (s.names, s.images, s.targets, s.space) for split, s in found.items()} == {
        split: (s.names, s.images, s.targets, s.space) for split, s in sets.items()
    }
    problems = looking.problems(sets)
    assert len(problems) == 4 and problems == checks.find_problems(sets, progress=False)


def test_what_making_the_data_sets_raises_is_raised(config, tmp_path):
    (tmp_path / "classes.yaml").unlink()
    looking = ahead.start(config, check=True)
    assert looking is not None
    with pytest.raises(ConfigError, match=r"classes\.yaml"):
        looking.data_sets()


def test_where_the_other_process_was_killed_the_run_looks_itself(config, tmp_path, monkeypatch):
    (tmp_path / "masks/val/c.png").write_bytes(b"")
    here, find = os.getpid(), checks.find_problems
    monkeypatch.setattr(checks, "find_problems", lambda *a, **k: find(*a, **k) if os.getpid() == here else os._exit(9))
    looking = ahead.start(config, check=True)
    assert looking is not None
    sets = looking.data_sets()
    problems = looking.problems(sets)
    assert problems and problems == find(sets, progress=False)


@pytest.mark.parametrize("fault", [DataError("mask.png", "is bad."), MemoryError()])
def test_what_the_check_raises_comes_after_data_sets_that_no_pipe_holds(config, tmp_path, monkeypatch, fault):
    root = tmp_path / "images/train"
    for number in range(3000):
        os.link(root / "a.png", root / f"{'long' * 10}{number}.png")

    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(checks, "find_problems", fail)
    looking = ahead.start(config, check=True)
    assert looking is not None
    sets = looking.data_sets()
    assert len(pickle.dumps(sets)) > 2**17 and len(sets["train"].names) == 3003
    with pytest.raises(type(fault)):
        looking.problems(sets)


def test_where_the_other_process_is_killed_while_it_tells_the_run_lists_itself(config, tmp_path):
    root = tmp_path / "images/train"
    for number in range(3000):
        os.link(root / "a.png", root / f"{'long' * 10}{number}.png")
    before = {*multiprocessing.active_children()}
    looking = ahead.start(config, check=True)
    assert looking is not None
    assert looking._answers.poll(60)  # it has begun to tell, which the pipe does not hold
    (process,) = {*multiprocessing.active_children()} - before
    process.kill()
    process.join()
    assert len(looking.data_sets()["train"].names) == 3003


def test_a_process_killed_while_it_draws_its_bar_leaves_the_runs_bars_alone(config, monkeypatch):
    list(tqdm(range(2), disable=False))  # from here on forked processes share the lock of the bars

    def die(*_, **__):
        tqdm.get_lock().acquire()
        os._exit(9)

    here, find = os.getpid(), checks.find_problems
    monkeypatch.setattr(checks, "find_problems", lambda *a, **k: find(*a, **k) if os.getpid() == here else die())
    looking = ahead.start(config, check=True)
    assert looking is not None
    sets = looking.data_sets()
    with pytest.raises(EOFError):
        looking._answers.recv()
    between_processes = tqdm.get_lock().locks[0]
    assert between_processes.acquire(timeout=10)
    between_processes.release()
    assert looking.problems(sets) == find(sets, progress=False)


def test_the_other_process_ends_with_a_run_that_is_terminated_while_it_imports(config, tmp_path):
    code = (
        "import sys, time; from hrseg import config; from hrseg.data import checks; from hrseg.train import ahead\n"
        "checks.find_problems = lambda *_, **__: (print('looking', flush=True), time.sleep(300))\n"
        "looking = ahead.start(config.load(sys.argv[1], []), check=True); time.sleep(300)"
    )
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    run = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run.yaml"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline() == "looking\n"
    run.send_signal(signal.SIGTERM)
    rest, _ = run.communicate(timeout=30)  # the other process has this pipe open too, as long as it is there
    assert run.returncode == -signal.SIGTERM and not rest


def test_where_no_process_can_be_made_the_run_looks_itself(config, monkeypatch):
    def fail():
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    assert ahead.start(config, check=True) is None


def test_a_data_set_from_outside_is_made_by_the_run_itself(config):
    data = config.data.model_copy(update={"dataset": "mylab.data:Own"})
    assert ahead.start(config.model_copy(update={"data": data}), check=True) is None
