"""k-fold splits of a small data set: images that belong together stay together, each class is spread over the folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hrseg.errors import DataError
from hrseg.task import Sample, Task

PER_SAMPLE = ("images", "targets")  # lists of the whole, an entry a sample
BY_INDEX = ("files", "cluster", "instance_path", "read_image", "read_target")  # its functions of an index


def divide(groups: Sequence[str], pixels: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each image, int64 [N]: the same for a group, classes and images spread evenly; always the same.

    groups: of each image. pixels: [N, K] of each class in it. The groups with the largest share of some class come
    first; each goes to the fold that has least of what it brings, which keeps the sum of squares of the folds' shares
    least. Raises ValueError where there are fewer groups than folds.
    """
    counts = np.column_stack([pixels, np.ones(len(groups))]).astype(np.float64)
    shares = counts / np.maximum(counts.sum(0), 1)
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"{len(names)} groups cannot be divided into {folds} folds")
    brought = np.zeros((len(names), shares.shape[1]))
    np.add.at(brought, group_of, shares)
    held, fold_of_group = np.zeros((folds, shares.shape[1])), np.zeros(len(names), np.int64)
    for group in np.argsort(-brought.max(1), kind="stable"):
        fold = int(np.argmin(held @ brought[group]))
        held[fold] += brought[group]
        fold_of_group[group] = fold
    return fold_of_group[group_of]


class Part:
    """Some samples of a data set; in everything else it is the data set."""

    def __init__(self, whole: Any, indices: Sequence[int]):
        self.whole, self.indices = whole, [int(i) for i in indices]
        self.names: Sequence[str] = [whole.names[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Sample:
        return self.whole[self.indices[i]]

    def __getattr__(self, name: str) -> Any:
        if name == "whole":  # not there yet while a pickle is read
            raise AttributeError(name)
        found = getattr(self.whole, name)
        if name in PER_SAMPLE and found is not None:
            return [found[i] for i in self.indices]
        return (lambda i: found(self.indices[i])) if name in BY_INDEX else found


def fold_of_each(dataset: Any, folds: int) -> np.ndarray:
    """`divide` by what a data set's masks hold, and by its clusters: folders, cities. Reads all masks.

    Raises DataError where masks are missing, or there are fewer clusters than folds.
    """
    pixels = np.zeros((len(dataset), len(dataset.space.classes)), np.int64)
    for i in range(len(dataset)):
        target = dataset.read_target(i) if hasattr(dataset, "read_target") else dataset[i].target
        if target is None:
            raise DataError(dataset.names[i], "has no labels.", "Folds divide a split that has them.")
        if dataset.space.task is Task.MULTILABEL:
            pixels[i] = (target == 1).sum((1, 2))
        else:
            known = target[target != dataset.space.ignore_index]
            pixels[i] = np.bincount(known, minlength=pixels.shape[1])
    clusters = [dataset.cluster(i) if hasattr(dataset, "cluster") else name for i, name in enumerate(dataset.names)]
    try:
        return divide(clusters, pixels, folds)
    except ValueError as error:
        way_out = "Images of one folder stay together: make data.folds smaller."
        raise DataError("data.folds", f"{error}.", way_out) from None
