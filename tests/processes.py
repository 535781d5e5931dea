"""Processes that train, started by a server that has imported torch once; what they leave compared to the last bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import torch

from hrseg.commands import train as train_command
from hrseg.tracking import read_log

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.processes"])

TIMES = ("time_s", "images_per_s", "data_wait")


def tools_train(words, environment, output, prepare=None):
    """What tools/train.py does, in a process of its own. prepare: called before."""
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as where a shell starts the tool
    if prepare:
        prepare()
    sys.exit(train_command.main([str(word) for word in words]))


class Training:
    """tools/train.py in one process or several that work together; what they say is in `output`."""

    def __init__(self, words, output, processes=1, prepare=None):
        self.output = Path(output)
        environment = {"OMP_NUM_THREADS": "1"}
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        self.processes = []
        for rank in range(processes):
            ranked = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {})
            arguments = (words, ranked, str(output), prepare)
            self.processes.append(context.Process(target=tools_train, args=arguments))
            self.processes[-1].start()

    def signal(self, number):
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def wait(self, seconds=300):
        """The exit codes; negative: the number of the signal that ended a process."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        if None in codes:
            self.signal(signal.SIGKILL)
        return codes

    @property
    def alive(self):
        return any(process.is_alive() for process in self.processes)

    def said(self):
        return self.output.read_text() if self.output.exists() else ""


def last_step(folder):
    """The last iteration that log.jsonl knows of."""
    path = folder / "log.jsonl"
    records = read_log(path) if path.exists() else []
    return records[-1]["step"] if records else 0


def wait_for_step(training, folder, step, seconds=120):
    """Until the log knows of an iteration, or the run has ended."""
    deadline = time.monotonic() + seconds
    while last_step(folder) < step and training.alive and time.monotonic() < deadline:
        time.sleep(0.005)


def without_times(records):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def checkpoint_of(folder, name="last.pt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def differences(a, b, path=""):
    """Where two nested values differ, tensors by their bits."""
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)}"]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}.{i}")]
    return [] if a == b else [f"{path}: {a} and {b}"]


def assert_same_run(a, b):
    """Two run folders hold the same: checkpoints, log but for times, scores, evidence, pictures."""
    for name in ("last.pt", "best.pt"):
        one, two = checkpoint_of(a, name), checkpoint_of(b, name)
        for saved in (one, two):
            saved["config"]["run"]["dir"] = saved["config"]["data"]["workers"] = None
        assert differences(one, two, name) == []
    one, two = (without_times(read_log(folder / "log.jsonl")) for folder in (a, b))
    assert differences(one, two, "log") == []
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (a, b))
    for metrics in (one, two):
        metrics["config"]["run"]["dir"] = metrics["config"]["data"]["workers"] = None
        del metrics["checkpoint"]["path"], metrics["checkpoint"]["sha256"], metrics["command"]
    assert differences(one, two, "metrics") == []
    with np.load(a / "per_image.npz") as one, np.load(b / "per_image.npz") as two:
        assert sorted(one.files) == sorted(two.files)
        assert all(np.array_equal(one[name], two[name]) for name in one.files)
    pictures = [sorted(p.relative_to(folder) for p in folder.glob("images/**/*.png")) for folder in (a, b)]
    assert pictures[0] == pictures[1]
    assert all((a / path).read_bytes() == (b / path).read_bytes() for path in pictures[0])
