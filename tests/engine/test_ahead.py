"""Another process lists the data sets and looks at their files: the same comes of it."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from hrseg import build
from hrseg import config as settings
from hrseg.data import checks
from hrseg.engine import ahead
from hrseg.errors import ConfigError, DataError


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


def test_a_data_set_from_outside_is_made_by_the_run_itself(config):
    data = config.data.model_copy(update={"dataset": "mylab.data:Own"})
    assert ahead.start(config.model_copy(update={"data": data}), check=True) is None
