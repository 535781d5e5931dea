"""Training samples and evaluated images: two processes with a CPU each, as torchrun starts them, against one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import hrseg
from hrseg import distributed, runtime
from hrseg.benchmark import scenes
from hrseg.benchmark.data import AUGMENT
from hrseg.benchmark.measure import Case, Options, Row
from hrseg.build.evaluation import EvaluationPlan
from hrseg.data.cityscapes import Cityscapes
from hrseg.data.loader import TrainSet
from hrseg.data.transforms import train_transform
from hrseg.evaluate.evaluation import evaluate
from hrseg.inference import Inference
from hrseg.task import Normalisation

SCENES, EPOCHS = 4, 6
MARK = 1 / 1.8  # of the time of one process
SHARED = "the processes share the memory, its bandwidth and the last cache, and wait for the slower one"


def cases(options: Options) -> Iterator[Case]:
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for work, what in (("samples", f"{SCENES * EPOCHS} training samples"), ("images", f"{SCENES} evaluated images")):
        names = (["two processes"], ["one process"])
        row = Row(f"{what}, two processes", "one process", *names, MARK, why=lambda _: SHARED)
        if len(cpus) < 2:
            yield Case(dict.fromkeys((*row.ours, *row.peers), "needs two CPUs"), [row])
            continue
        with tempfile.TemporaryDirectory() as folder:
            scenes.write(Path(folder), SCENES)
            with _Group(work, folder, cpus[:1]) as one, _Group(work, folder, cpus[:2]) as two:
                sides: dict[str, Any] = {"two processes": partial(_seconds, two), "one process": partial(_seconds, one)}
                yield Case(sides, [replace(row, equal=partial(_same, one, two))], unit="s, self-timed")


def _seconds(group: _Group) -> float:
    return group()[0]


def _same(one: _Group, two: _Group) -> str:
    assert one()[1] == two()[1], "the sums over all processes"
    return "sums over all processes"


class _Group:
    """Processes that share some work, each on its own CPU. A call returns the seconds, and a sum over the results."""

    def __init__(self, work: str, root: str, cpus: list[int]):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self._processes = []
        for rank, place in enumerate(cpus):
            together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(len(cpus)),
                        "RANK": str(rank), "LOCAL_RANK": str(rank)}  # fmt: skip
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "hrseg.benchmark.scaling", work, root, str(place)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **(together if len(cpus) > 1 else {})},
                )
            )

    def __enter__(self) -> _Group:
        self()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(BrokenPipeError):
                process.communicate()  # at the end of its input it ends

    def __call__(self) -> tuple[float, Any]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("again\n")
            process.stdin.flush()
        lines = [process.stdout.readline() for process in self._processes if process.stdout is not None]
        seconds, total = json.loads(lines[0])
        return seconds, total


def _samples(root: Path) -> Callable[[], int]:
    """This process's share of some epochs; returns the sum of all grey levels."""
    dataset = Cityscapes(root, "val")
    reader = TrainSet(dataset, train_transform(AUGMENT, dataset.space))
    keys = list(itertools.product(range(EPOCHS), range(SCENES)))[distributed.rank() :: distributed.world_size()]
    return lambda: sum(distributed.gather(sum(int(reader.read(key).image.sum()) for key in keys)))


def _images(root: Path) -> Callable[[], list[list[int]]]:
    """This process's share of an evaluation; returns the confusion matrix of all images."""
    dataset = Cityscapes(root, "val")
    torch.manual_seed(0)
    model = hrseg.HRNetV2("hrnetv2_w18_small_v1", encoder_weights=None, classes=len(dataset.space.classes))
    plan = EvaluationPlan(Inference(dataset.space.task), short_side=512, boundary_ratio=0)

    def work() -> list[list[int]]:
        found = evaluate(model, dataset, plan, Normalisation(), device=torch.device("cpu"))
        return np.asarray(found.per_image.total()).tolist()

    return work


WORK: dict[str, Callable[[Path], Callable[[], Any]]] = {"samples": _samples, "images": _images}


def _serve(work: str, root: str, place: str) -> None:
    """For each line of input, do the work and print a line with its seconds and result."""
    os.sched_setaffinity(0, [int(place)])
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    runtime.keep_freed_memory()  # as the commands do
    with distributed.process_group(torch.device("cpu")):
        run = WORK[work](Path(root))
        for _ in sys.stdin:
            distributed.barrier()
            start = time.perf_counter()
            result = run()
            distributed.barrier()
            print(json.dumps([time.perf_counter() - start, result]), flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
