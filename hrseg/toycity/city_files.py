"""Toy city on disk: synthetic street scenes in the layout of Cityscapes, for demonstrations and tests."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from hrseg.console import progress
from hrseg.data.cityscapes_labels import LABELS
from hrseg.errors import ConfigError, DataError
from hrseg.toycity.annotation import draw_ids
from hrseg.toycity.cities import CITIES
from hrseg.toycity.scene import draw_scene

FORMAT = 1  # to be raised when the same parameters give other images
MARKER = "toycity.json"  # written last: the parameters of the city


def write_city(
    root: str | Path,
    *,
    train: int = 300,
    val: int = 60,
    seed: int = 0,
    size: tuple[int, int] = (256, 512),
    workers: int | None = None,
    show_progress: bool = False,
) -> bool:
    """Write a toy city as the folder `root`, whole or not at all; False where the same one is there already.

    train, val: numbers of images. size: (height, width) in pixels. workers: processes, by default one per core. An
    older toy city is replaced.
    Raises ConfigError for parameters out of range, DataError where `root` holds something else.
    """
    root = Path(root)
    parameters = {"format": FORMAT, "train": train, "val": val, "seed": seed, "size": list(size)}
    many, side = 1_000_000, (128, 1024)
    for name, value, low, high in (
        ("train", train, 1, many),
        ("val", val, 1, many),
        ("seed", seed, 0, 2**63),
        ("height", size[0], *side),
        ("width", size[1], *side),
        ("workers", workers or 1, 1, 1024),
    ):
        if not low <= value <= high:
            raise ConfigError(f"toy city, {name}", f"must be from {low} to {high}, not {value}.")
    if _parameters_there(root) == parameters:
        return False

    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        jobs = [("train", i) for i in range(train)] + [("val", i) for i in range(val)]
        work = partial(_write_scene, root=unfinished, seed=seed, size=size)
        bar = progress(len(jobs), "toy city", "image", shown=show_progress, leave=True)
        if workers == 1:
            for job in jobs:
                work(job)
                bar.update()
        else:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            with ProcessPoolExecutor(workers or cores, initializer=_one_thread) as pool:
                for _ in pool.map(work, jobs, chunksize=4):
                    bar.update()
        bar.close()
        (unfinished / MARKER).write_text(json.dumps(parameters), encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp allows only its owner to read
        if root.exists():
            shutil.rmtree(root)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def _parameters_there(root: Path) -> dict | None:
    """The parameters of the toy city that is there, None where there is none."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    marker = root / MARKER
    if not marker.is_file() or {p.name for p in root.iterdir()} - {MARKER, "leftImg8bit", "gtFine"}:
        raise DataError(root, "holds something other than a toy city.", "Choose another folder, or clear it.")
    return json.loads(marker.read_text(encoding="utf-8"))


def _one_thread() -> None:
    cv2.setNumThreads(0)  # 1 would stop a thread pool that did not survive the fork, and wait for it forever


def _write_scene(job: tuple[str, int], *, root: Path, seed: int, size: tuple[int, int]) -> None:
    split, index = job
    cities = CITIES[split]
    city = cities[index % len(cities)].name
    stem = f"{city}_{index // len(cities):06d}_000019"
    image, annotation = draw_scene(seed, split, index, size)
    ids, instances = draw_ids(annotation["objects"], size)
    colors = np.zeros((256, 3), np.uint8)
    for label in LABELS:
        if label.id >= 0:
            colors[label.id] = label.color
    for kind, ending, content in (
        ("leftImg8bit", "leftImg8bit.png", _png(image[..., ::-1])),
        ("gtFine", "gtFine_labelIds.png", _png(ids)),
        ("gtFine", "gtFine_instanceIds.png", _png(instances)),
        ("gtFine", "gtFine_color.png", _png(colors[ids][..., ::-1])),
        ("gtFine", "gtFine_polygons.json", json.dumps(annotation).encode()),
    ):
        folder = root / kind / split / city
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}_{ending}").write_bytes(content)


def _png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()
