"""Images without labels, each in two views: a weak one, which is labelled, and a strong one, which is learned.

Source: Sohn et al., FixMatch, NeurIPS 2020; Yang et al., UniMatch, CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hrseg.data.compact_strings import compact_names, compact_paths
from hrseg.data.dataset import Dataset
from hrseg.data.images import IMAGE_ENDINGS, list_files
from hrseg.data.loader import Loader, SampleReader, make_loader
from hrseg.data.pairs import Pairs
from hrseg.data.sampling import UNLABELLED, Key, TrainSampler, keyed_generator
from hrseg.data.transforms import TrainTransform, change_colors
from hrseg.errors import DataError, HrsegError
from hrseg.task import LabelSpace, Sample


class ImageFolder(Pairs):
    """All images below a folder, without labels."""

    def __init__(self, root: Path, space: LabelSpace):
        self.space, self.root, self.targets = space, root, None
        found = list_files(root, IMAGE_ENDINGS)
        if not found:
            endings = ", ".join(IMAGE_ENDINGS)
            raise DataError(root, f"holds no images ({endings}).", "unlabelled.root is a folder of images.")
        self.names, self.images = compact_names(found), compact_paths(found.values())
        self.in_channels = self.common_kind().channels


class Views(NamedTuple):
    """A batch of images without labels, in their own number type.

    weak, strong: [N, C, H, W], equal in geometry. padding: bool [N, H, W], where the image does not reach.
    """

    weak: Tensor
    strong: Tensor
    padding: Tensor

    def to(self, device: torch.device | str) -> Views:
        """The same on another device; from pinned memory without waiting for the copy."""
        return Views(*(each.to(device, non_blocking=True) for each in self))


class UnlabelledSet(SampleReader):
    """A data set of which only the images are used; a key (epoch, index) always gives the same two views."""

    def __init__(self, dataset: Dataset, transform: TrainTransform, seed: int):
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, key: Key) -> Views:
        """[C, H, W] and [H, W] of one image."""
        rng = keyed_generator(UNLABELLED, self.seed, *key)
        image, valid = self.dataset.read_valid_image(key[1])
        ignored = self.dataset.space.ignore_index
        outside = np.zeros(image.shape[:2], np.int32)  # 0, and the ignore index without data and in the padding
        if valid is not None:
            outside[~valid] = ignored
        weak = self.transform(Sample(image, outside, self.dataset.names[key[1]]), rng)
        assert weak.target is not None
        strong = change_colors(weak.image, rng)
        padding = torch.from_numpy(weak.target == ignored)
        first, second = (torch.from_numpy(np.ascontiguousarray(each)).permute(2, 0, 1) for each in (weak.image, strong))
        return Views(first, second, padding)


def unlabelled_loader(
    dataset: Dataset,
    transform: TrainTransform,
    *,
    batch_size: int,
    steps: int,
    seed: int = 0,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Loader:
    """`Views` for each step, as `train_loader` gives batches. transform: of the weak view; its crop gives the size."""
    sampler = TrainSampler(
        len(dataset), batch_size=batch_size, steps=steps, seed=seed, rank=rank, world_size=world_size,
        start_step=start_step, purpose=UNLABELLED,
    )  # fmt: skip
    reader = UnlabelledSet(dataset, transform, seed)
    return make_loader(reader, sampler, _collate, workers, pin_memory, len(sampler) * batch_size)


def _collate(results: Sequence[Views | HrsegError]) -> list[Views]:
    views = []
    for result in results:
        if isinstance(result, HrsegError):
            raise result
        views.append(result)
    weak, strong, padding = (torch.stack(each) for each in zip(*views, strict=True))
    return [Views(weak, strong, padding)]
