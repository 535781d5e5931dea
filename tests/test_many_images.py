"""Two hundred thousand small files: nothing grows with the number of samples, nothing at the start takes minutes."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from hrseg import config as settings
from hrseg.build.evaluation import EvaluationPlan
from hrseg.data import checks
from hrseg.data.folder import Folder
from hrseg.evaluate.evaluation import evaluate
from hrseg.inference import Inference
from hrseg.task import Normalisation
from hrseg.train import loop as training

FILES = 200_000
MIB_A_10_000 = 1.0


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """200 000 pairs of 16x16 in twenty folders: hard links to sixteen."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for kind, shape, high in (("images", (16, 16, 3), 256), ("masks", (16, 16), 3)):
        sources = [root / f"{kind}_{i}.png" for i in range(16)]
        for source in sources:
            Image.fromarray(rng.integers(0, high, shape, dtype=np.uint8)).save(source)
        for i in range(FILES):
            folder = f"{root}/{kind}/train/{i // 10_000:02}"
            if i % 10_000 == 0:
                Path(folder).mkdir(parents=True)
            os.link(sources[i % 16], f"{folder}/{i:06}.png")
        (root / kind / "val").mkdir()
        for i in range(4):
            os.link(sources[i], root / kind / "val" / f"{i}.png")
    (root / "classes.yaml").write_text("[a, b, c]")
    return root


def own_memory() -> list[float]:
    """MiB of this process, and of pages that each of its workers has for itself alone, in the order of their birth.

    Of this process all pages count: those that it shares would become its own at the moment another process ends.
    """
    children = sorted(child.pid for child in multiprocessing.active_children() if child.pid)
    status = Path("/proc/self/status").read_text().splitlines()
    anonymous = next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))
    return [anonymous / 1024, *map(_private, children)]


def _private(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def growth(samples: list[tuple[int, list[float]]]) -> list[float]:
    """MiB for each 10 000 images, of each process, from the slope of a line through the samples."""
    images = np.array([count for count, _ in samples]) / 10_000
    memory = np.array([values for _, values in samples])
    return np.polyfit(images, memory, 1)[0].tolist()


def in_a_process_of_its_own(function, *arguments):
    """What a function returns. A worker shares the pages of its parent, so those of other tests must not be there."""
    fresh = multiprocessing.get_context("spawn")
    queue = fresh.Queue()
    process = fresh.Process(target=_answer, args=(queue, function, *arguments))
    process.start()
    result = queue.get(timeout=3000)
    process.join()
    return result


def _answer(queue, function, *arguments):
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as where a shell starts the tool
    queue.put(function(*arguments))


def trained(path, folder):
    """The seconds until the first step, the pairs opened before it, and the memory after some images."""
    opened, first, samples = [], [], []
    find, began = checks._look_at_files, time.perf_counter()

    def counted(dataset, i, digests):
        opened.append(i)
        return find(dataset, i, digests)

    def step(network, optimizer, scaler, batch, **_):
        first.append(time.perf_counter() - began)
        if len(first) % 20 == 0 and len(first) >= 400:  # imports, allocators and the collector have settled by then
            samples.append((60 * len(first), own_memory()))
        return training.StepResult(torch.zeros(()), {"cross_entropy": torch.zeros(())}, None, torch.zeros(()))

    checks._look_at_files = counted
    training.train(settings.load(path), folder, step=step)
    return first[0], len(opened), samples


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_training_on_many_files_starts_soon_and_does_not_grow(many, tmp_path, workers, capsys):
    plain = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"root": str(many), "workers": workers},
        "augment": {"crop": [16, 16]},
        "loss": [{"name": "cross_entropy"}],
        "train": {"iterations": 1000, "batch_size": 60, "log_every": 1000, "val_every": 1000},
        "run": {"dir": str(tmp_path / "run"), "threads": 1},
    }
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(plain))
    seconds, opened, samples = in_a_process_of_its_own(trained, tmp_path / "many.yaml", tmp_path / "run")
    grown = growth(samples)
    with capsys.disabled():
        print(f"\n{workers} workers: first step after {seconds:.1f} s, MiB for 10 000 images: {grown}")
    assert opened <= checks.OPENED_AT_START + 4  # the start is bounded by this, whatever the size of the set
    assert max(grown) < MIB_A_10_000


class Constant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def scored(root, workers):
    """Images a second, and the memory after some of them."""
    dataset = Folder(root, "train")
    samples: list[tuple[int, list[float]]] = []

    def seen(index: int, prediction: np.ndarray) -> None:
        if index % 2000 == 0 and index >= 20_000:
            samples.append((index, own_memory()))
        if index >= 80_000:
            raise KeyboardInterrupt  # the rest would tell nothing more

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            Constant(), dataset, EvaluationPlan(Inference(dataset.space.task), batch_size=50, workers=workers),
            Normalisation(), device=torch.device("cpu"), on_prediction=seen,
        )  # fmt: skip
    return 80_000 / (time.perf_counter() - began), samples


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_scoring_many_files_does_not_grow(many, workers, capsys):
    rate, samples = in_a_process_of_its_own(scored, many, workers)
    grown = growth(samples)
    with capsys.disabled():
        print(f"\n{workers} workers: {rate:.0f} images/s, MiB for 10 000 images: {grown}")
    assert max(grown) < MIB_A_10_000
