"""What is wrong with a data set, all of it, before training: the file, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hrseg.data import compact_strings as packed
from hrseg.data.dataset import Dataset
from hrseg.data.image_files import inspect_image, read_mask
from hrseg.data.pairs import ranges, size_mismatch, takes_channels
from hrseg.errors import DataError, HrsegError
from hrseg.task import Task

SHOWN = 20  # problems in one message
# Training opens at most so many pairs of a split before it starts, evenly spread: the whole of Cityscapes, seconds of a
# set of 200 000. tools/check_data.py opens all.
OPENED_AT_START = 3000
BLOCK = 1024  # pairs that wait for a thread at a time


class _Finding(NamedTuple):
    """What one pair gave. values: of a mask with a value that is no class."""

    problems: list[str]
    counts: _Counts | None = None
    size: tuple[int, int] | None = None
    values: frozenset[int] = frozenset()
    digest: bytes = b""


class _Counts(NamedTuple):
    """int64 [K] each: pixels of each class or label, and pixels that count for it."""

    pixels: np.ndarray
    valid: np.ndarray


@dataclass
class Examination:
    """What a data set holds, and what is wrong with it: a sentence each, with its path.

    opened: pairs that were read. pixels, valid: int64 [K], pixels of each class or label, and those that count for it.
    total: pixels of all masks, ignored ones too. shown_in: int64 [K], masks in which a class occurs. sizes: how many
    images have which (height, width). digests: of the image files' content, where asked for.
    """

    problems: list[str]
    pixels: np.ndarray
    valid: np.ndarray
    shown_in: np.ndarray
    total: int = 0
    opened: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    digests: list[bytes] = field(default_factory=list)


def examine(
    dataset: Dataset, *, workers: int = 0, progress: bool = True, at_most: int | None = None, digests: bool = False
) -> Examination:
    """Look at the pairs of a data set.

    Masks are decoded and mapped to classes; of images only size, channels and wholeness are looked at (see
    `inspect_image`), so that it costs a fraction of reading all of them. A data set that is not `checked_by_file` is
    read sample by sample. workers: threads beside this one (decoding runs outside Python's lock). at_most: open so
    many pairs, evenly spread; of the others it is only seen whether there is a mask.
    """
    length, classes = len(dataset), len(dataset.space.classes)
    opened = min(length, at_most or length)
    chosen = [i * length // opened for i in range(opened)]
    find: Callable[[int], _Finding]
    find = (
        (lambda i: _find_in_pair(dataset, i, digests))
        if dataset.checked_by_file
        else (lambda i: _find_in_sample(dataset, i))
    )
    pixels, valid, shown_in = np.zeros((3, classes), np.int64)
    found = Examination([], pixels, valid, shown_in, opened=opened)
    values: set[int] = set()
    bar = tqdm(total=opened, desc="checking", unit="pair", leave=False, disable=not progress,
               mininterval=0.2 if sys.stderr.isatty() else 10)  # fmt: skip
    with bar:
        for finding in _mapped(find, chosen, workers):
            found.problems += finding.problems
            values |= finding.values
            if finding.counts is not None:
                found.pixels += finding.counts.pixels
                found.valid += finding.counts.valid
                found.shown_in += finding.counts.pixels > 0
            if finding.size is not None:
                found.sizes[finding.size] += 1
                found.total += finding.size[0] * finding.size[1] if finding.counts is not None else 0
            if digests:
                found.digests.append(finding.digest)
            bar.update()
    if opened < length:
        found.problems += _without_mask(dataset, set(chosen))
    doubts = [_shifted(dataset, values, found.pixels), dataset.doubt(found.pixels) if opened == length else None]
    found.problems += [*dataset.strays(), *(doubt for doubt in doubts if doubt)]
    return found


def check(dataset: Dataset, *, workers: int = 0, progress: bool = True, at_most: int | None = None) -> list[str]:
    """Everything that is wrong with a data set, a sentence each with its path; empty where nothing is."""
    return examine(dataset, workers=workers, progress=progress, at_most=at_most).problems


def find_problems(datasets: Mapping[str, Dataset], *, workers: int = 0, progress: bool = True) -> list[str]:
    """`check` of each data set, opening at most 3000 pairs of it."""
    problems: list[str] = []
    for dataset in datasets.values():
        problems += check(dataset, workers=workers, progress=progress, at_most=OPENED_AT_START)
    return problems


def require_sound(datasets: Mapping[str, Dataset], *, workers: int = 0, progress: bool = True) -> None:
    """Raises one DataError that lists what `find_problems` finds."""
    refuse(find_problems(datasets, workers=workers, progress=progress), datasets)


def refuse(problems: Sequence[str], splits: Iterable[str]) -> None:
    """Raises one DataError of all problems, if there are any: the first 20, then how many more."""
    problems = list(dict.fromkeys(problems))  # splits that overlap tell the same twice
    if problems:
        lines = [f"\n- {p}" for p in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"\n- and {len(problems) - SHOWN} more.")
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines.append("\nTraining starts when they are gone, or with data.check: false.")
        raise DataError(f"data ({', '.join(splits)})", f"{count}.{''.join(lines)}")


def duplicates(
    one: Dataset, other: Dataset, digests: tuple[Sequence[bytes], Sequence[bytes]]
) -> list[tuple[Path, Path]]:
    """Images of one split whose file is, byte by byte, a file of the other. digests: of both, in their order."""
    place = {digest: i for i, digest in enumerate(digests[0]) if digest}
    twins = [(place[digest], j) for j, digest in enumerate(digests[1]) if digest in place]
    return [(_image_path(one, i), _image_path(other, j)) for i, j in twins]


def _mapped(find: Callable[[int], _Finding], places: Sequence[int], workers: int) -> Iterator[_Finding]:
    if not workers:
        yield from map(find, places)
        return
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(places), BLOCK):  # a future each for 200 000 pairs would take more than the masks
            yield from pool.map(find, places[first : first + BLOCK])


def _without_mask(dataset: Dataset, opened: set[int]) -> list[str]:
    masks = dataset.all_masks()
    there = [os.access(mask, os.F_OK) for mask in packed.strings(masks)]
    labels = len(masks) // len(dataset)  # a mask each
    missing = [place for place, is_there in enumerate(there) if not is_there and place // labels not in opened]
    return sorted(
        f"{_image_path(dataset, place // labels)}: has no mask, there is no {masks[place]}." for place in missing
    )


def _image_path(dataset: Dataset, i: int) -> Path:
    files = dataset.files(i)
    assert files is not None
    return files[0]


def _listed(masks: Path | list[Path] | None) -> list[Path]:
    return masks if isinstance(masks, list) else [m for m in [masks] if m is not None]


def _find_in_pair(dataset: Dataset, i: int, digests: bool) -> _Finding:
    files = dataset.files(i)
    assert files is not None  # checked_by_file
    image_path, masks = files
    problems: list[str] = []
    size = target = None
    digest, values = b"", frozenset[int]()
    try:
        info = inspect_image(image_path)
        size = (info.height, info.width)
        digest = hashlib.blake2b(image_path.read_bytes(), digest_size=16).digest() if digests else b""
        if dataset.in_channels and not takes_channels(info.channels, dataset.in_channels):
            problems.append(f"{image_path}: has {info.channels} channels, the data set {dataset.in_channels}.")
        first = dataset.image_type()
        if first and info.dtype != first:
            problems.append(f"{image_path}: has {info.dtype} values, the first image of the split {first}.")
    except DataError as error:
        problems.append(str(error))
    paths = _listed(masks)
    missing = [path for path in paths if not path.exists()]
    problems += [f"{image_path}: has no mask, there is no {path}." for path in missing]
    if paths and not missing:
        try:
            target = dataset.read_target(i)
        except DataError as error:
            problems.append(str(error))
            values = _values(paths[0])
    if target is not None and size is not None and target.shape[-2:] != size:
        problems.append(f"{image_path}: {size_mismatch(size, target.shape[-2:])}")
    if target is None:
        return _Finding(problems, size=size, values=values, digest=digest)
    if dataset.fully_ignored_is_a_problem and (target == dataset.space.ignore_index).all():
        problems.append(f"{paths[0]}: every pixel is ignored. Take the pair out, or label it.")
    return _Finding(problems, _count(target, dataset), size, digest=digest)


def _values(path: Path) -> frozenset[int]:
    """The values of a mask of ids; none where it is no such mask."""
    try:
        mask = read_mask(path)
    except DataError:
        return frozenset()
    return frozenset(np.unique(mask).tolist()) if mask.ndim == 2 else frozenset()


def _shifted(dataset: Dataset, values: set[int], pixels: np.ndarray) -> str | None:
    """A sentence if the masks that do not fit would fit with all ids one higher or one lower.

    values: of those masks. pixels: of each class in all others.
    """
    table = dataset.table
    if table is None or not values:
        return None
    ignored = {v for v in table.values if table.table[v] == dataset.space.ignore_index}
    ids = set(table.values) - ignored
    used = values - ignored
    for shift, unused, kind in ((1, min(ids), "high"), (-1, max(ids), "low")):
        never = unused not in used and not pixels[table.table[unused]]
        if used and never and all(v - shift in ids for v in used):
            what = f"the masks hold {ranges(used)}, the classes are {ranges(ids)}: all ids are one too {kind}."
            return f"{dataset.all_masks()[0]} and others: {what} Give each class the id that its pixels have."
    return None


def _count(target: np.ndarray, dataset: Dataset) -> _Counts:
    classes = len(dataset.space.classes)
    if dataset.space.task is Task.MULTILABEL:
        return _Counts((target == 1).sum((1, 2)), (target != dataset.space.ignore_index).sum((1, 2)))
    pixels = np.bincount(target[target != dataset.space.ignore_index], minlength=classes)
    return _Counts(pixels, np.full(classes, pixels.sum()))


def _find_in_sample(dataset: Dataset, i: int) -> _Finding:
    """The same of a data set that only has samples."""
    name, space = dataset.names[i], dataset.space
    problems: list[str] = []
    try:
        image, target, _ = dataset[i]
    except HrsegError as error:
        return _Finding([str(error)])
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16, np.float32):
        what = f"the image is {image.dtype} {list(image.shape)}, not uint8, uint16 or float32 [H, W, C]."
        return _Finding([f"{name}: {what}"])
    channels = dataset.in_channels or image.shape[2]
    if image.shape[2] != channels:
        problems.append(f"{name}: the image has {image.shape[2]} channels, the data set {channels}.")
    size = image.shape[:2]
    if target is None:
        return _Finding(problems, size=size)
    if target.shape[-2:] != size:
        problems.append(f"{name}: {size_mismatch(size, target.shape[-2:])}")
    known = 2 if space.task is Task.MULTILABEL else len(space.classes)
    values = np.unique(target).tolist()
    unknown = [v for v in values if v != space.ignore_index and not 0 <= v < known]
    if unknown:
        problems.append(f"{name}: the target holds {unknown}, which are no class (0 to {known - 1}).")
        return _Finding(problems, size=size)
    if values == [space.ignore_index] and dataset.fully_ignored_is_a_problem:
        problems.append(f"{name}: every pixel is ignored.")
    return _Finding(problems, _count(target, dataset), size)
