"""Samplers, workers, seeds, collation; pixel values as the network takes them.

A sample is a function of (seed, epoch, index) alone, a batch of (seed, step, world size) with it: there is no state to
save, and the number of workers changes nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from hrseg.data.copying import moved
from hrseg.data.dataset import Dataset
from hrseg.data.rare_classes import RareClasses
from hrseg.data.reading_stopped import why_reading_stopped
from hrseg.data.resize import resize_short_side
from hrseg.data.sampling import AUGMENT, RARE, Key, TrainSampler, keyed_generator
from hrseg.errors import DataError, HrsegError
from hrseg.task import LabelSpace, Normalisation, Sample

Transform = Callable[..., Sample]  # of a sample and a random generator; with rare classes, also of a focus


class Batch(NamedTuple):
    """Samples that go through the network together.

    image: uint8, uint16 or float32 [N, C, H, W], not yet normalised, channels_last in memory. target: class indices
    [N, H, W] or {0, 1, ignore} [N, L, H, W] in the type of `target_type`; None for a split without targets.
    indices: of the samples in the data set. unlabelled: images without labels that are learned in the same step:
    their `Views`, later what they are labelled with.
    """

    image: Tensor
    target: Tensor | None
    names: tuple[str, ...]
    indices: tuple[int, ...]
    unlabelled: Any = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; from pinned memory without waiting for the copy.

        To a GPU pinned memory goes while the step before still computes.
        """
        image, target = moved((self.image, self.target), torch.device(device))
        assert image is not None
        unlabelled = None if self.unlabelled is None else self.unlabelled.to(device)
        return self._replace(image=image, target=target, unlabelled=unlabelled)


class Normalise(nn.Module):
    """((v - low) / (high - low) - mean) / std per channel, folded into one subtraction and one multiplication.

    Takes [..., C, H, W] of any number type, returns float32. The subtraction comes first, so that a narrow range far
    from zero (kelvins) loses no digits.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, normalisation: Normalisation):
        super().__init__()
        mean, std = np.array(normalisation.mean), np.array(normalisation.std)
        low, high = np.array(normalisation.input_range).T
        center, scale = low + mean * (high - low), 1 / ((high - low) * std)
        self.register_buffer("center", torch.tensor(center, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image.to(torch.float32) - self.center) * self.scale


def normalise(image: Tensor, normalisation: Normalisation) -> Tensor:
    """`Normalise` for a single call: [..., C, H, W] of any number type to float32, on the image's device."""
    return Normalise(normalisation).to(image.device)(image)


def target_type(space: LabelSpace) -> np.dtype:
    """The smallest of uint8, int16 and int32 that holds every class index and the ignore index."""
    lowest, highest = min(0, space.ignore_index), max(len(space.classes) - 1, space.ignore_index)
    fits = (t for t in (np.uint8, np.int16, np.int32) if np.iinfo(t).min <= lowest and highest <= np.iinfo(t).max)
    return np.dtype(next(fits))


def iterations_per_epoch(length: int, batch_size: int) -> int:
    """Steps of `batch_size` images (over all processes) in an epoch: the last, incomplete one is dropped."""
    return max(1, length // batch_size)


class _Item(NamedTuple):
    image: Tensor
    target: Tensor | None
    name: str
    place: int  # in the data set
    size: tuple[int, ...]  # of the image in the data set


def _result_or_error(function: Callable, argument: Any) -> Any:
    """The function's result, or its HrsegError as a value: torch would change the type of one raised in a worker."""
    try:
        return function(argument)
    except HrsegError as error:
        return error


class SampleReader:
    """What a DataLoader reads from: `read(key)`, and an HrsegError as a value."""

    dataset: Dataset

    def __getitem__(self, key: Any) -> _Item | HrsegError:
        return _result_or_error(self.read, key)

    def read(self, key: Any) -> Any:
        raise NotImplementedError

    def _item(self, sample: Sample, place: int, size: tuple[int, ...]) -> _Item:
        image = torch.from_numpy(np.ascontiguousarray(sample.image)).permute(2, 0, 1)
        target = None
        if sample.target is not None:
            kind = target_type(self.dataset.space)
            target = torch.from_numpy(np.ascontiguousarray(sample.target.astype(kind, copy=False)))
        return _Item(image, target, sample.name, place, size)


class TrainSet(SampleReader):
    """A data set under a random transform; a key (epoch, index) always gives the same item, or the same error."""

    def __init__(self, dataset: Dataset, transform: Transform, seed: int = 0, rare: RareClasses | None = None):
        self.dataset, self.transform, self.seed, self.rare = dataset, transform, seed, rare

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, key: Key) -> _Item:
        epoch, index = key
        rng = keyed_generator(AUGMENT, self.seed, epoch, index)
        focus = None
        if self.rare is not None:
            index, focus = self.rare.draw(index, keyed_generator(RARE, self.seed, epoch, index))
        sample = self.dataset.open_sample(index)
        if sample.target is None:
            raise DataError(sample.name, "has no labels to learn from.", "Train on a split that has them.")
        size = sample.image.shape[:2]
        changed = self.transform(sample, rng) if focus is None else self.transform(sample, rng, focus)
        return self._item(changed, index, size)


class EvalSet(SampleReader):
    """A data set without augmentation; images (not targets) may be resized to a short side."""

    def __init__(self, dataset: Dataset, short_side: int | None = None):
        self.dataset, self.short_side = dataset, short_side

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, key: int) -> _Item:
        sample = self.dataset[key]
        size = sample.image.shape[:2]
        if self.short_side:
            sample = sample._replace(image=resize_short_side(sample.image, self.short_side))
        return self._item(sample, key, size)


def _make_batch(items: Sequence[_Item]) -> Batch:
    images, targets, names, places, _ = zip(*items, strict=True)
    target = None if targets[0] is None else default_collate(list(targets))
    # The channels of a pixel stay together (channels_last): nothing is transposed here, and the network wants it so.
    image = default_collate([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    return Batch(image, target, names, places)


def _require_items(results: Sequence[_Item | HrsegError]) -> list[_Item]:
    items = []
    for result in results:
        if isinstance(result, HrsegError):
            raise result
        items.append(result)
    return items


def collate_train(results: Sequence[_Item | HrsegError]) -> list[Batch]:
    """All items as one batch. Raises the first error among them, DataError where their sizes differ."""
    first, *others = items = _require_items(results)
    for item in others:
        if item.image.shape != first.image.shape:
            what = (
                f"is {_size_text(item)} after augmentation, but {first.name}, of the same batch, {_size_text(first)}."
            )
            raise DataError(item.name, what, "Set augment.crop: [height, width].")
    return [_make_batch(items)]


def collate_eval(results: Sequence[_Item | HrsegError]) -> list[Batch]:
    """Batches of neighbours of equal size, in the order of the items. Raises the first error among them."""
    groups: list[list[_Item]] = []
    for item in _require_items(results):
        if groups and (groups[-1][0].size, groups[-1][0].image.shape) == (item.size, item.image.shape):
            groups[-1].append(item)
        else:
            groups.append([item])
    return [_make_batch(group) for group in groups]


def _size_text(item: _Item) -> str:
    channels, height, width = item.image.shape
    return f"{height} x {width} pixels with {channels} channels"


def _set_up_worker(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # for the run, which ends its workers itself
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)  # one thread per worker; and OpenCV's pool does not survive a fork
    torch.set_num_threads(1)
    gc.freeze()  # collecting what came with the fork would copy every page of it


@atexit.register
def _kill_workers() -> None:
    """Kill reading processes that are still there when the program ends, after an error that is not hrseg's own.

    They ignore SIGTERM, with which multiprocessing would end them before waiting for them: it would wait for ever. This
    runs first, because it is registered after multiprocessing's own function.
    """
    workers = [process for process in multiprocessing.active_children() if process.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would take their end for another error
    for worker in workers:
        worker.kill()


class Loader:
    """Batches from a DataLoader; an error in the data is raised as an HrsegError. images: their total number.

    Raises ReadingStopped where the system stops a reading process.
    """

    def __init__(self, loader: DataLoader, images: int):
        self.loader, self.images = loader, images

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        while True:
            try:
                found = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError) as error:
                stopped = why_reading_stopped(str(error), self._batch_bytes())
                if stopped is None:
                    raise
                raise stopped from None
            if isinstance(found, HrsegError):
                try:
                    raise found
                finally:
                    # Or else it holds its own traceback: a cycle in which the workers outlive their queues.
                    del found, batches
            yield from found

    def _batch_bytes(self) -> int:
        """What a batch needs, by its first sample; 0 where that cannot be read."""
        with contextlib.suppress(Exception):  # an error is being reported already
            keys = next(iter(self.loader.batch_sampler))  # type: ignore[arg-type]  # there is one
            item = self.loader.dataset[keys[0]]
            return len(keys) * sum(part.nbytes for part in item if isinstance(part, Tensor))
        return 0


def make_loader(
    reader: SampleReader, keys: Any, collate: Callable, workers: int, pin_memory: bool, images: int
) -> Loader:
    """Batches of what `reader` reads at the keys, put together by `collate`. images: their total number."""
    loader: DataLoader = DataLoader(
        reader,  # type: ignore[arg-type]  # has __getitem__, which is all that is asked of it; not torch's class
        batch_sampler=keys,
        collate_fn=partial(_result_or_error, collate),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_set_up_worker,
        generator=torch.Generator(),  # its own: the global random state must not depend on how often a loader starts
    )
    return Loader(loader, images)


def train_loader(
    dataset: Dataset,
    transform: Transform,
    *,
    batch_size: int,
    steps: int,
    seed: int = 0,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
    rare: RareClasses | None = None,
) -> Loader:
    """One batch per step from start_step to steps, over epochs without a pause; see TrainSampler.

    batch_size: images per step of this process. rare: puts some samples around rare classes. pin_memory: with CUDA
    only. Raises DataError from the iteration.
    """
    sampler = TrainSampler(
        len(dataset),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        rank=rank,
        world_size=world_size,
        start_step=start_step,
    )
    reader = TrainSet(dataset, transform, seed, rare)
    return make_loader(reader, sampler, collate_train, workers, pin_memory, len(sampler) * batch_size)


def eval_loader(
    dataset: Dataset,
    *,
    batch_size: int = 1,
    short_side: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Loader:
    """Images rank, rank + world_size, ... each once, at their own size, with unchanged targets.

    batch_size: the largest number of neighbours, all of one size. short_side: of the images, in pixels.
    Raises DataError from the iteration.
    """
    mine = range(rank, len(dataset), world_size)
    batches = [list(mine[first : first + batch_size]) for first in range(0, len(mine), batch_size)]
    return make_loader(EvalSet(dataset, short_side), batches, collate_eval, workers, pin_memory, len(mine))
