"""One training at a time in a run folder; a dead holder's lock is taken over, on this machine and on another."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from hrseg.errors import HrsegError
from hrseg.train import run_lock
from hrseg.train.run_lock import NAME, Holder, RunLock, read_holder
from tests.train.test_loop import train


def write_lock(folder, **changes) -> Holder:
    folder.mkdir(exist_ok=True)
    holder = dataclasses.replace(Holder.this_process(), **changes)
    (folder / NAME).write_text(json.dumps(dataclasses.asdict(holder)))
    return holder


def dead_process() -> subprocess.Popen:
    """A process that has ended and was not waited for: it still has its number."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    while run_lock._started(process.pid):
        time.sleep(0.01)
    return process


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT_S", 0.05)
    monkeypatch.setattr(run_lock, "SILENCE_S", 0.4)


def test_a_second_training_is_refused_and_told_who_holds_the_folder(config_file, tmp_path, capsys):
    folder = tmp_path / "run"
    with RunLock(folder):
        assert train(config_file, folder, resume="auto") == 2
        error = capsys.readouterr().err
        holder = read_holder(folder / NAME)
        assert f"process {os.getpid()} on {holder.host}, since {holder.since}" in error and "run.dir" in error
        assert sorted(path.name for path in folder.iterdir()) == [NAME]
    assert not folder.exists()


def test_the_lock_is_gone_after_a_run_and_after_an_error(config_file, tmp_path):
    assert train(config_file, tmp_path / "run", "train.iterations=1") == 0
    assert not (tmp_path / "run" / NAME).exists()
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path / "other"):
        raise ZeroDivisionError
    assert not (tmp_path / "other").exists()


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path):
    process = dead_process()
    write_lock(tmp_path, pid=process.pid, started="1")
    with RunLock(tmp_path):
        assert read_holder(tmp_path / NAME).pid == os.getpid()
    process.wait()


def test_a_process_number_that_is_used_again_does_not_hold_the_lock(tmp_path):
    write_lock(tmp_path, started="1", token="another")
    with RunLock(tmp_path):
        assert read_holder(tmp_path / NAME).token != "another"


def test_a_lock_that_is_cut_short_is_taken_over(tmp_path):
    (tmp_path / NAME).write_text('{"host": "a')
    with RunLock(tmp_path):
        assert read_holder(tmp_path / NAME).pid == os.getpid()


def test_a_silent_holder_on_another_machine_is_dead_and_one_that_beats_is_not(tmp_path, quick):
    write_lock(tmp_path, host="elsewhere")
    with RunLock(tmp_path):
        assert read_holder(tmp_path / NAME).host != "elsewhere"
    write_lock(tmp_path, host="elsewhere")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(tmp_path / NAME)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(HrsegError, match="on elsewhere, since"), RunLock(tmp_path):
            pass
    finally:
        ended.set()
        thread.join()


def test_a_container_with_the_same_name_is_another_machine(tmp_path, quick):
    assert not write_lock(tmp_path, namespace="pid:[1]").is_on_this_machine()
    assert write_lock(tmp_path).is_on_this_machine()


def test_the_holder_touches_the_lock(tmp_path, quick):
    with RunLock(tmp_path):
        first = (tmp_path / NAME).stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while (tmp_path / NAME).stat().st_mtime_ns == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / NAME).stat().st_mtime_ns > first


def test_of_many_that_take_a_dead_lock_over_one_holds_it(tmp_path):
    write_lock(tmp_path, started="1", token="dead")
    outcomes: list[str] = []
    barrier, release = threading.Barrier(6), threading.Event()

    def take() -> None:
        barrier.wait()
        try:
            with RunLock(tmp_path):
                outcomes.append("held")
                release.wait(10)
        except HrsegError:
            outcomes.append("refused")

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(outcomes) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 5
