"""What is wrong with a data set, all of it, before training: the file, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hrseg.data.images import inspect_image
from hrseg.data.pairs import Pairs, size_mismatch
from hrseg.errors import DataError, HrsegError
from hrseg.task import Task

SHOWN = 20  # problems in one message


class _Finding(NamedTuple):
    problems: list[str]
    pixels: np.ndarray  # int64 [K], of each class


def check(dataset: Any, *, workers: int = 0, progress: bool = True) -> list[str]:
    """Everything that is wrong with a data set, a sentence each with its path; empty where nothing is.

    Masks are decoded and mapped to classes; of images only size, channels and wholeness are looked at (see
    `inspect_image`), so that a check costs a fraction of reading all of them. A data set of one's own that is not a
    `Pairs` is read sample by sample. workers: threads beside this one (decoding runs outside Python's lock).
    """
    find = _find_in_pair if isinstance(dataset, Pairs) else _find_in_sample
    problems, pixels = [], np.zeros(len(dataset.space.classes), np.int64)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found: Iterable[_Finding] = (pool.map if workers else map)(lambda i: find(dataset, i), range(len(dataset)))
        for finding in tqdm(found, total=len(dataset), desc="checking", unit="pair", disable=not progress, leave=False):
            problems += finding.problems
            pixels += finding.pixels
    if isinstance(dataset, Pairs):
        doubt = dataset.doubt(pixels)
        problems += [*dataset.strays(), *([doubt] if doubt else [])]
    return problems


def require_sound(datasets: Mapping[str, Any], *, workers: int = 0, progress: bool = True) -> None:
    """Check each data set. Raises one DataError that lists the problems of all: the first 20, then how many more."""
    problems = [p for dataset in datasets.values() for p in check(dataset, workers=workers, progress=progress)]
    problems = list(dict.fromkeys(problems))  # splits that overlap tell the same twice
    if problems:
        lines = [f"\n- {p}" for p in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"\n- and {len(problems) - SHOWN} more.")
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines.append("\nTraining starts when they are gone, or with data.check: false.")
        raise DataError(f"data ({', '.join(datasets)})", f"{count}.{''.join(lines)}")


def _find_in_pair(dataset: Pairs, i: int) -> _Finding:
    image_path, target_paths = dataset.files(i)
    problems: list[str] = []
    size = target = None
    try:
        info = inspect_image(image_path)
        size = (info.height, info.width)
        if not dataset.takes_channels(info.channels):
            problems.append(f"{image_path}: has {info.channels} channels, the data set {dataset.in_channels}.")
    except DataError as error:
        problems.append(str(error))
    paths = target_paths if isinstance(target_paths, list) else [p for p in [target_paths] if p is not None]
    missing = [path for path in paths if not path.exists()]
    problems += [f"{image_path}: has no mask, there is no {path}." for path in missing]
    if paths and not missing:
        try:
            target = dataset.read_target(i)
        except DataError as error:
            problems.append(str(error))
    if target is not None and size is not None and target.shape[-2:] != size:
        problems.append(f"{image_path}: {size_mismatch(size, target.shape[-2:])}")
    if target is None:
        return _Finding(problems, np.zeros(len(dataset.classes), np.int64))
    pixels = _count(target, dataset)
    if dataset.fully_ignored_is_a_problem and (target == dataset.space.ignore_index).all():
        problems.append(f"{paths[0]}: every pixel is ignored. Take the pair out, or label it.")
    return _Finding(problems, pixels)


def _count(target: np.ndarray, dataset: Pairs) -> np.ndarray:
    """int64 [K]: pixels of each class; for multilabel of each label."""
    if dataset.space.task is Task.MULTILABEL:
        return (target == 1).sum((1, 2))
    classes = len(dataset.classes)
    return np.bincount(target.ravel(), minlength=classes)[:classes]


def _find_in_sample(dataset: Any, i: int) -> _Finding:
    """The same of a data set that only has samples."""
    name, space = dataset.names[i], dataset.space
    problems: list[str] = []
    nothing = np.zeros(len(space.classes), np.int64)
    try:
        image, target, _ = dataset[i]
    except HrsegError as error:
        return _Finding([str(error)], nothing)
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16, np.float32):
        what = f"the image is {image.dtype} {list(image.shape)}, not uint8, uint16 or float32 [H, W, C]."
        return _Finding([f"{name}: {what}"], nothing)
    channels = getattr(dataset, "in_channels", image.shape[2])
    if image.shape[2] != channels:
        problems.append(f"{name}: the image has {image.shape[2]} channels, the data set {channels}.")
    if target is None:
        return _Finding(problems, nothing)
    if target.shape[-2:] != image.shape[:2]:
        problems.append(f"{name}: {size_mismatch(image.shape[:2], target.shape[-2:])}")
    known = 2 if space.task is Task.MULTILABEL else len(space.classes)
    values = np.unique(target).tolist()
    unknown = [v for v in values if v != space.ignore_index and not 0 <= v < known]
    if unknown:
        problems.append(f"{name}: the target holds {unknown}, which are no class (0 to {known - 1}).")
    elif values == [space.ignore_index]:
        problems.append(f"{name}: every pixel is ignored.")
    return _Finding(problems, nothing)
