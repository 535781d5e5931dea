"""k-fold splits of a small data set: images that belong together stay together, each class is spread over the folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hrseg.data.dataset import Dataset, WrappedDataset
from hrseg.errors import DataError
from hrseg.task import Task


def divide_groups(groups: Sequence[str], pixels: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each image, int64 [N]: one per group, with classes and images spread evenly; the same in every call.

    groups: of each image. pixels: [N, K], its pixels of each class. The groups with the largest share of some class
    come first; each goes to the fold that has the least of what the group brings, which minimises the sum of squares of
    the folds' shares. Raises ValueError if there are fewer groups than folds.
    """
    counts = np.column_stack([pixels, np.ones(len(groups))]).astype(np.float64)
    shares = counts / np.maximum(counts.sum(0), 1)
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"{len(names)} groups cannot be divided into {folds} folds")
    brought = np.zeros((len(names), shares.shape[1]))
    np.add.at(brought, group_of, shares)
    in_fold, fold_of_group = np.zeros((folds, shares.shape[1])), np.zeros(len(names), np.int64)
    for group in np.argsort(-brought.max(1), kind="stable"):
        fold = int(np.argmin(in_fold @ brought[group]))
        in_fold[fold] += brought[group]
        fold_of_group[group] = fold
    return fold_of_group[group_of]


class Part(WrappedDataset):
    """Some samples of a data set."""

    def __init__(self, whole: Dataset, indices: Sequence[int]):
        super().__init__(whole)
        self.indices = [int(i) for i in indices]
        self.names: Sequence[str] = [whole.names[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def place(self, i: int) -> int:
        return self.indices[i]

    def all_masks(self) -> Sequence[Path]:
        masks = self.whole.all_masks()
        each = len(masks) // len(self.whole)  # masks per image
        return [masks[i * each + label] for i in self.indices for label in range(each)]


def fold_of_each(dataset: Dataset, folds: int) -> np.ndarray:
    """`divide_groups` by the targets and the clusters (folders, cities) of a data set. Reads all masks.

    Raises DataError if masks are missing or unreadable, or there are fewer clusters than folds.
    """
    pixels = np.zeros((len(dataset), len(dataset.space.classes)), np.int64)
    for i in range(len(dataset)):
        target = dataset.sample_target(i)
        if target is None:
            raise DataError(dataset.names[i], "has no labels.", "Folds divide a split that has them.")
        if dataset.space.task is Task.MULTILABEL:
            pixels[i] = (target == 1).sum((1, 2))
        else:
            known = target[target != dataset.space.ignore_index]
            pixels[i] = np.bincount(known, minlength=pixels.shape[1])
    clusters = [dataset.cluster(i) for i in range(len(dataset))]
    try:
        return divide_groups(clusters, pixels, folds)
    except ValueError as error:
        way_out = "Images of one folder stay together: make data.folds smaller."
        raise DataError("data.folds", f"{error}.", way_out) from None
