"""Everything that is wrong with a data set, found before training: each file, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hrseg.console import progress as progress_bar
from hrseg.data.compact_strings import plain_strings
from hrseg.data.dataset import Dataset
from hrseg.data.image_checks import image_problems
from hrseg.data.images import inspect_image, read_mask, stored_orientation
from hrseg.data.pairs import UnknownValues, size_mismatch, value_ranges
from hrseg.data.problems import Problem, refuse_problems
from hrseg.errors import DataError, HrsegError
from hrseg.task import Task

# Training opens at most this many pairs of a split before it starts, evenly spread: all of Cityscapes, and seconds of a
# set of 200 000. tools/check_data.py opens all.
OPENED_AT_START = 3000
BLOCK = 1024  # pairs that are given to the threads at a time


class _Counts(NamedTuple):
    """int64 [K] each: pixels of each class or label, and pixels that count for it."""

    pixels: np.ndarray
    valid: np.ndarray


class _PairResult(NamedTuple):
    """What was found in one pair. unknown_values: all values of a mask that has a value without a class."""

    problems: list[Problem]
    counts: _Counts | None = None
    size: tuple[int, int] | None = None
    unknown_values: frozenset[int] = frozenset()
    digest: bytes = b""


@dataclass
class Examination:
    """What a data set holds, and what is wrong with it: one problem each.

    opened: pairs that were read. pixels, valid: int64 [K], pixels of each class or label, and those that count for it.
    total: pixels of all masks, ignored ones too. shown_in: int64 [K], masks in which a class occurs. sizes: how many
    images have which (height, width). digests: of the image files' content, where asked for.
    """

    problems: list[Problem]
    pixels: np.ndarray
    valid: np.ndarray
    shown_in: np.ndarray
    total: int = 0
    opened: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    digests: list[bytes] = field(default_factory=list)

    def size_range(self) -> str:
        """The sizes of the images in a few words."""
        (low, *_), (*_, high) = (sorted(self.sizes, key=lambda size: size[0] * size[1]) for _ in range(2))
        if low == high:
            return f"{low[0]}x{low[1]} (height x width)"
        return f"of {len(self.sizes)} sizes from {low[0]}x{low[1]} to {high[0]}x{high[1]} (height x width)"


def examine(
    dataset: Dataset, *, workers: int = 0, progress: bool = True, at_most: int | None = None, digests: bool = False
) -> Examination:
    """Look at the pairs of a data set.

    Masks are decoded and mapped to classes; of images only size, channels and wholeness are looked at (see
    `inspect_image`), so that it costs a fraction of reading all of them. A data set that is not `checked_by_file` is
    read sample by sample. workers: threads beside this one (decoding runs outside Python's lock). at_most: open this
    many pairs, evenly spread; of the others only the presence of the mask is checked.
    """
    length, classes = len(dataset), len(dataset.space.classes)
    opened = min(length, at_most or length)
    chosen = [i * length // opened for i in range(opened)]

    def look(i: int) -> _PairResult:
        return _look_at_files(dataset, i, digests) if dataset.checked_by_file else _look_at_sample(dataset, i)

    pixels, valid, shown_in = np.zeros((3, classes), np.int64)
    whole = Examination([], pixels, valid, shown_in, opened=opened)
    unknown_values: set[int] = set()
    with progress_bar(opened, "checking", "pair", shown=progress) as bar:
        for result in _in_threads(look, chosen, workers):
            whole.problems += result.problems
            unknown_values |= result.unknown_values
            if result.counts is not None:
                whole.pixels += result.counts.pixels
                whole.valid += result.counts.valid
                whole.shown_in += result.counts.pixels > 0
            if result.size is not None:
                whole.sizes[result.size] += 1
                whole.total += result.size[0] * result.size[1] if result.counts is not None else 0
            if digests:
                whole.digests.append(result.digest)
            bar.update()
    if opened < length:
        whole.problems += _without_mask(dataset, set(chosen))
    whole.problems += [Problem.told(stray) for stray in dataset.strays()]
    whole.problems += _doubts(dataset, unknown_values, whole.pixels, all_opened=opened == length)
    return whole


def check(dataset: Dataset, *, workers: int = 0, progress: bool = True, at_most: int | None = None) -> list[Problem]:
    """Everything that is wrong with a data set."""
    return examine(dataset, workers=workers, progress=progress, at_most=at_most).problems


def find_problems(datasets: Mapping[str, Dataset], *, workers: int = 0, progress: bool = True) -> list[Problem]:
    """`check` of each data set, opening at most 3000 pairs of it."""
    problems: list[Problem] = []
    for dataset in datasets.values():
        problems += check(dataset, workers=workers, progress=progress, at_most=OPENED_AT_START)
    return problems


def require_sound(datasets: Mapping[str, Dataset], *, workers: int = 0, progress: bool = True) -> None:
    """Raises one DataError that lists what `find_problems` finds."""
    refuse_problems(find_problems(datasets, workers=workers, progress=progress), datasets)


def images_in_two_splits(datasets: Mapping[str, Dataset], examinations: Mapping[str, Examination]) -> list[Problem]:
    """A problem for each image file that is, byte by byte, in two splits. examinations: with digests."""
    problems = []
    for one, other in pairwise(datasets):
        place = {digest: i for i, digest in enumerate(examinations[one].digests) if digest}
        for j, digest in enumerate(examinations[other].digests):
            if digest in place:
                first, second = _image_path(datasets[one], place[digest]), _image_path(datasets[other], j)
                what = f"the same file, byte by byte, is in split {one}, as {first}"
                what += ": scores would be of images that were learned from."
                problems.append(Problem(str(second), what, "Keep one.", "in two splits"))
    return problems


def sizes_without_crop(
    train: Examination,
    *,
    crop: tuple[int, int] | None,
    scale: tuple[float, float] | None,
    batch_size: int,
) -> list[Problem]:
    """A problem where the images of a batch would have several sizes. crop, scale: of the augmentation."""
    if crop or batch_size == 1:
        return []
    random = scale is not None and scale[0] != scale[1]
    if not random and len(train.sizes) < 2:
        return []
    why = "augment.scale is random" if random else f"the training images are {train.size_range()}"
    return [Problem("augment.crop", f"is not set, but {why}, and the {batch_size} images of a batch need one size.")]


def _in_threads(look: Callable[[int], _PairResult], places: Sequence[int], workers: int) -> Iterator[_PairResult]:
    if not workers:
        yield from map(look, places)
        return
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(places), BLOCK):  # 200 000 futures at once would take more memory than the masks
            yield from pool.map(look, places[first : first + BLOCK])


def _without_mask(dataset: Dataset, opened: set[int]) -> list[Problem]:
    masks = dataset.all_masks()
    if not masks:
        return []
    there = [os.access(mask, os.F_OK) for mask in plain_strings(masks)]
    labels = len(masks) // len(dataset)  # masks per image
    missing = [place for place, is_there in enumerate(there) if not is_there and place // labels not in opened]
    return [
        _no_mask(path, mask) for path, mask in sorted((_image_path(dataset, p // labels), masks[p]) for p in missing)
    ]


def _no_mask(image: Path, mask: Path) -> Problem:
    return Problem(str(image), f"has no mask, there is no {mask}.", kind="no mask")


def _image_path(dataset: Dataset, i: int) -> Path:
    files = dataset.files(i)
    assert files is not None
    return files[0]


def _listed(masks: Path | list[Path] | None) -> list[Path]:
    return masks if isinstance(masks, list) else [m for m in [masks] if m is not None]


def _look_at_files(dataset: Dataset, i: int, digests: bool) -> _PairResult:
    files = dataset.files(i)
    assert files is not None  # checked_by_file
    image_path, masks = files
    problems: list[Problem] = []
    size = target = None
    digest, values = b"", frozenset[int]()
    try:
        info = inspect_image(image_path)
        size = (info.height, info.width)
        digest = hashlib.blake2b(image_path.read_bytes(), digest_size=16).digest() if digests else b""
        problems += [Problem.told(text) for text in image_problems(image_path, info, dataset)]
    except DataError as error:
        problems.append(Problem.of(error))
    paths = _listed(masks)
    missing = [path for path in paths if not path.exists()]
    problems += [_no_mask(image_path, path) for path in missing]
    if masks is not None and not missing:
        try:
            target = dataset.read_target(i) if problems else dataset.sample_target(i)
        except DataError as error:
            problems.append(Problem.of(error))
            values = _values_of(paths[0]) if type(error) is UnknownValues else values
    if target is not None and size is not None and target.shape[-2:] != size:
        problems.append(_other_size(image_path, size, target.shape[-2:]))
    if target is None:
        return _PairResult(problems, size=size, unknown_values=values, digest=digest)
    if dataset.fully_ignored_is_a_problem and (target == dataset.space.ignore_index).all():
        problems.append(Problem(str(paths[0]), "every pixel is ignored.", "Take the pair out, or label it."))
    return _PairResult(problems, _count(target, dataset), size, digest=digest)


def _values_of(path: Path) -> frozenset[int]:
    """The values of a mask of ids; none if the file is not such a mask."""
    try:
        mask = read_mask(path)
    except DataError:
        return frozenset()
    return frozenset(np.unique(mask).tolist()) if mask.ndim == 2 else frozenset()


def _other_size(image: Path, size: tuple[int, int], mask: tuple[int, ...]) -> Problem:
    """The mask of an image has another size; if the image was turned by its orientation tag, that is said."""
    what = size_mismatch(size, mask)
    if size != mask[::-1] or stored_orientation(image) == 1:
        return Problem(str(image), what, kind="size")
    what = (
        f"{what[:-1]}: the image is turned as its orientation tag (EXIF) says, as viewers and labelling tools show it."
    )
    return Problem(str(image), what, "Turn the mask too, or remove the tag from the image.", "turned")


def _doubts(dataset: Dataset, values: set[int], pixels: np.ndarray, *, all_opened: bool) -> list[Problem]:
    """What cannot be meant, going by the masks of the whole split, with the setting or ids that would fit them.

    values: of the masks with a value that is no class. pixels: of each class in all others.
    """
    doubts = []
    if dataset.space.task is Task.MULTICLASS and len(dataset.space.classes) == 1:
        only = dataset.space.names[0]
        what = f"'{only}' is the only class, so that every pixel would be {only}."
        doubts.append(Problem("data.task", what, "Set data.task=binary: all else is background."))
    elif ids := _other_ids(dataset, values, pixels):
        doubts.append(ids)
    if all_opened and (doubt := dataset.doubt(pixels)):
        doubts.append(Problem.told(doubt))
    return doubts


def _other_ids(dataset: Dataset, values: set[int], pixels: np.ndarray) -> Problem | None:
    """The ids that would fit, if the masks hold as many values as there are classes."""
    table = dataset.table
    if table is None or not values:
        return None
    ignored = {v for v in table.values if table.indices[v] == dataset.space.ignore_index}
    ids = set(table.values) - ignored
    used = values - ignored
    where = f"{dataset.all_masks()[0]} and others" if dataset.all_masks() else "masks"
    held = f"the masks hold {value_ranges(used)}, the classes are {value_ranges(ids)}"
    for shift, unused, kind in ((1, min(ids), "high"), (-1, max(ids), "low")):
        never = unused not in used and not pixels[table.indices[unused]]
        if used and never and all(v - shift in ids for v in used):
            way_out = f"Give each class its id ({value_ranges(v + shift for v in ids)})."
            return Problem(where, f"{held}: all ids are one too {kind}.", way_out)
    used |= {min(v for v in ids if table.indices[v] == k) for k in np.flatnonzero(pixels).tolist()}
    names = dataset.space.names
    if len(used) != len(names) or used <= ids:
        return None
    entries = ", ".join(f"{{name: {name}, id: {value}}}" for name, value in zip(names, sorted(used), strict=True))
    return Problem(where, f"the masks hold {value_ranges(used)}.", f"If that is the order of the classes: [{entries}].")


def _count(target: np.ndarray, dataset: Dataset) -> _Counts:
    classes = len(dataset.space.classes)
    if dataset.space.task is Task.MULTILABEL:
        return _Counts((target == 1).sum((1, 2)), (target != dataset.space.ignore_index).sum((1, 2)))
    pixels = np.bincount(target[target != dataset.space.ignore_index], minlength=classes)
    return _Counts(pixels, np.full(classes, pixels.sum()))


def _look_at_sample(dataset: Dataset, i: int) -> _PairResult:
    """`_look_at_files` for a data set that only has samples."""
    name, space = dataset.names[i], dataset.space
    problems: list[Problem] = []
    try:
        image, target, _ = dataset[i]
    except HrsegError as error:
        return _PairResult([Problem.of(error)])
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16, np.float32):
        what = f"the image is {image.dtype} {list(image.shape)}, not uint8, uint16 or float32 [H, W, C]."
        return _PairResult([Problem(name, what)])
    channels = dataset.in_channels or image.shape[2]
    if image.shape[2] != channels:
        problems.append(Problem(name, f"the image has {image.shape[2]} channels, the data set {channels}."))
    size = image.shape[:2]
    if target is None:
        return _PairResult(problems, size=size)
    if target.shape[-2:] != size:
        problems.append(Problem(name, size_mismatch(size, target.shape[-2:]), kind="size"))
    known = 2 if space.task is Task.MULTILABEL else len(space.classes)
    values = np.unique(target).tolist()
    unknown = [v for v in values if v != space.ignore_index and not 0 <= v < known]
    if unknown:
        problems.append(Problem(name, f"the target holds {unknown}, which are not classes (0 to {known - 1})."))
        return _PairResult(problems, size=size)
    if values == [space.ignore_index] and dataset.fully_ignored_is_a_problem:
        problems.append(Problem(name, "every pixel is ignored."))
    return _PairResult(problems, _count(target, dataset), size)
