"""The evidence behind the scores: what each image counted, on disk as `per_image.npz`."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hrseg.errors import DataError
from hrseg.files import whole_file
from hrseg.metrics.calibration import BINS
from hrseg.metrics.thresholds import STEPS
from hrseg.task import LabelSpace, Task

PACKED = 1000  # images that are compressed together in memory


class ImageCounts(NamedTuple):
    """What one image adds to the scores; the others are None where they were not measured.

    confusion: int64 [K, K], row = target, column = prediction; [K, K + 1] with void predictions; multilabel: [L, 2, 2].
    boundary: int64 [2, K], see `boundary_areas`. instances: float64 [2, M], see `InstanceIoU.update`. calibration:
    float64 [3, 15], see `calibration_counts`. thresholds: integers [L, 2, 100], see `threshold_counts`.
    """

    confusion: np.ndarray
    boundary: np.ndarray | None = None
    instances: np.ndarray | None = None
    calibration: np.ndarray | None = None
    thresholds: np.ndarray | None = None


class Areas(NamedTuple):
    """Pixels of groups of classes in each image, int64 [N, G]: right, in the truth, predicted."""

    intersection: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @property
    def union(self) -> np.ndarray:
        return self.truth + self.predicted - self.intersection


class _Image(NamedTuple):
    name: str
    cluster: str
    cells: np.ndarray  # of the confusion matrix, those that are not 0
    pixels: np.ndarray
    others: dict[str, np.ndarray]


class PerImage:
    """What single images counted, with their names and the clusters (city, sequence) that they come from.

    space: the classes. definition: how an absent class counts where nothing else is said. void_predictions: the
    confusion matrices have a column more, for predictions that are no class. instance_classes, instance_categories:
    what the columns of `instances` are. boundary_ratio: the width of the band of `boundary` over the image's diagonal.
    threshold: from which probability on a pixel of a binary or multilabel task was predicted; None: not known.
    Images are ordered by their index in the data set, whatever the order in which they were added.
    """

    def __init__(
        self,
        space: LabelSpace,
        definition: str = "cityscapes",
        *,
        void_predictions: bool = False,
        instance_classes: Sequence[str] = (),
        instance_categories: Sequence[str] = (),
        boundary_ratio: float | None = None,
        threshold: float | None = None,
    ):
        self.space, self.definition, self.void_predictions = space, definition, void_predictions
        self.instance_classes, self.instance_categories = tuple(instance_classes), tuple(instance_categories)
        self.boundary_ratio, self.threshold = boundary_ratio, threshold
        # Of 200 000 small images Python's objects would fill the memory: those already counted are kept as on disk.
        self._recent: dict[int, _Image] = {}
        self._packed: list[bytes] = []

    @property
    def _images(self) -> dict[int, _Image]:
        packed, self._packed = self._packed, []
        for block in packed:
            with np.load(io.BytesIO(block), allow_pickle=False) as file:
                self._fill(**file)
        return self._recent

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one confusion matrix."""
        classes = len(self.space.classes)
        return (classes, 2, 2) if self.multilabel else (classes, classes + self.void_predictions)

    @property
    def multilabel(self) -> bool:
        return self.space.task is Task.MULTILABEL

    def add(self, index: int, name: str, counts: ImageCounts, cluster: str | None = None) -> None:
        """Record one image. cluster: None: it belongs to no other.

        Raises ValueError if the index is taken, if a shape is another than that of the other images, or if something
        was measured here and not there.
        """
        confusion = np.asarray(counts.confusion)
        if index in self._recent:
            raise ValueError(f"image {index} ({name}) was counted before, as {self._recent[index].name}")
        if confusion.shape != self.shape:
            raise ValueError(f"the matrix of {name} is {list(confusion.shape)}, not {list(self.shape)}")
        cells = np.flatnonzero(confusion)
        measured = {key: value for key, value in counts._asdict().items() if key != "confusion" and value is not None}
        others = {key: np.asarray(value) for key, value in measured.items()}
        for key, value in others.items():
            if value.shape != self._shapes()[key]:
                raise ValueError(f"the {key} of {name} is {list(value.shape)}, not {list(self._shapes()[key])}")
        usual = next(iter(self._recent.values())).others if self._recent else others
        if others.keys() != usual.keys():
            raise ValueError(f"{name} has {sorted(others)} measured, the others {sorted(usual)}")
        self._recent[index] = _Image(
            name, name if cluster is None else cluster, cells, confusion.ravel()[cells].astype(np.int64), others
        )
        if len(self._recent) >= PACKED:
            block, packed = io.BytesIO(), self._packed
            self._packed = []
            np.savez_compressed(block, **self._arrays())
            self._recent, self._packed = {}, [*packed, block.getvalue()]

    @classmethod
    def merge(cls, parts: Iterable[PerImage]) -> PerImage:
        """The images of several processes as one. Raises ValueError if two parts hold the same image."""
        first, *others = parts
        merged = cls(first.space, **first._meaning())
        for part in (first, *others):
            taken = merged._images.keys() & part._images.keys()
            if taken or part.shape != merged.shape:
                raise ValueError(f"the parts share images {sorted(taken)}" if taken else "the parts differ in shape")
            merged._images.update(part._images)
        return merged

    @classmethod
    def chained(cls, parts: Iterable[PerImage]) -> PerImage:
        """The images of several data sets as one, part after part; indices are renumbered."""
        first, *others = parts
        chained = cls(first.space, **first._meaning())
        for part in (first, *others):
            if part.shape != first.shape or part.measured != first.measured:
                raise ValueError("the parts differ in shape, or in what was measured")
            for index in part.indices:
                chained._images[len(chained._images)] = part._images[index]
        return chained

    def __len__(self) -> int:
        return len(self._images)

    @property
    def indices(self) -> list[int]:
        """The indices of the images in the data set, ascending; all else is in their order."""
        return sorted(self._images)

    @property
    def names(self) -> list[str]:
        """The name of each image."""
        return [self._images[index].name for index in self.indices]

    @property
    def clusters(self) -> list[str]:
        """The cluster of each image; its own name where none was given."""
        return [self._images[index].cluster for index in self.indices]

    @property
    def measured(self) -> list[str]:
        """What was measured beside the confusion: boundary, instances, calibration, thresholds."""
        return sorted(next(iter(self._images.values())).others) if self._images else []

    def __getitem__(self, position: int) -> np.ndarray:
        """The confusion matrix of the image at a position in the order of the data set, int64."""
        image = self._images[self.indices[position]]
        matrix = np.zeros(self.shape, np.int64)
        matrix.ravel()[image.cells] = image.pixels
        return matrix

    def total(self) -> np.ndarray:
        """The sum of the confusion matrices of all images, int64."""
        total = np.zeros(self.shape, np.int64)
        for image in self._images.values():
            total.ravel()[image.cells] += image.pixels
        return total

    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """Intersection and union of each class in each image, two int64 [N, K]; multilabel: of each label's "yes"."""
        areas = self.group_areas(range(len(self.space.classes)))
        return areas.intersection, areas.union

    def group_areas(self, group_of: Sequence[int]) -> Areas:
        """Areas of groups of classes in each image; a confusion within a group is none. Multilabel: of "yes".

        group_of: the group, from 0, of each class; -1: the class is in none.
        """
        groups, shape = max(group_of, default=-1) + 1, self.shape
        images = [self._images[index] for index in self.indices]
        image = np.repeat(np.arange(len(images)), [len(i.cells) for i in images])
        cells = np.concatenate([np.zeros(0, np.int64), *(i.cells for i in images)])
        pixels = np.concatenate([np.zeros(0, np.int64), *(i.pixels for i in images)])
        group = np.array([*group_of, -1], np.int64)  # the last: a prediction that is not a class
        if self.multilabel:
            label, truth, predicted = np.unravel_index(cells, shape)
            truth, predicted = (np.where(yes == 1, group[label], -1) for yes in (truth, predicted))
        else:
            truth, predicted = (group[classes] for classes in np.unravel_index(cells, shape))

        def summed(of: np.ndarray, where: np.ndarray) -> np.ndarray:
            flat = np.bincount((image * groups + of)[where], pixels[where], len(images) * groups)  # exact below 2^53
            return flat.astype(np.int64).reshape(len(images), groups)

        right = (truth == predicted) & (truth >= 0)
        return Areas(summed(truth, right), summed(truth, truth >= 0), summed(predicted, predicted >= 0))

    def correct_and_counted(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels that are right and pixels that count in each image, two int64 [N]; multilabel: answers."""
        matrices = [self._images[index] for index in self.indices]
        classes = len(self.space.classes)
        diagonal = np.zeros(self.shape, bool)
        if self.multilabel:
            diagonal[:, [0, 1], [0, 1]] = True
        else:
            diagonal[range(classes), range(classes)] = True
        right = [i.pixels[diagonal.ravel()[i.cells]].sum() for i in matrices]
        return np.array(right, np.int64), np.array([i.pixels.sum() for i in matrices], np.int64)

    def stacked(self, key: str) -> np.ndarray | None:
        """What was measured of all images: boundary [N, 2, K], instances [N, 2, M], calibration [N, 3, 15],
        or thresholds [N, L, 2, 100].
        """
        if key not in self.measured:
            return None
        return np.stack([self._images[index].others[key] for index in self.indices])

    def with_clusters(self, clusters: Sequence[str]) -> PerImage:
        """The same with other clusters, one an image in the order of the data set."""
        other = PerImage(self.space, **self._meaning())
        for index, cluster in zip(self.indices, clusters, strict=True):
            other._images[index] = self._images[index]._replace(cluster=cluster)
        return other

    def save(self, path: str | Path) -> None:
        """Write `per_image.npz`: compressed, plain arrays, replaced whole or not at all."""
        path = Path(path)
        header = {"format": 1, **self.space.to_plain(), **self._meaning()}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **self._arrays())

    def _arrays(self) -> dict[str, Any]:
        images = [self._images[index] for index in self.indices]
        return {
            "indices": np.array(self.indices, np.int64),
            "names": np.array(self.names, np.str_),
            "clusters": np.array(self.clusters, np.str_),
            "starts": np.cumsum([0, *(len(image.cells) for image in images)]),
            "cells": np.concatenate([np.zeros(0, np.int64), *(image.cells for image in images)]),
            "pixels": np.concatenate([np.zeros(0, np.int64), *(image.pixels for image in images)]),
            **{key: self.stacked(key) for key in self.measured},
        }

    @classmethod
    def load(cls, path: str | Path) -> PerImage:
        """Read what `save` wrote. Raises DataError if the file is missing or is not such a file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                read = {name: file[name] for name in file.files}
            header = json.loads(str(read.pop("header")))
            if header.pop("format") != 1:
                raise ValueError("it has another format")
            space = LabelSpace.from_plain({key: header.pop(key) for key in ("classes", "task", "ignore_index")})
            per_image = cls(space, **header)
            per_image._fill(**read)
        except FileNotFoundError:
            raise DataError(path, "no such file.", "Evaluation writes it into the run folder.") from None
        except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(path, f"is not a per_image.npz: {error}.", "Score the run again: tools/test.py.") from error
        return per_image

    def _fill(
        self, indices: Any, names: Any, clusters: Any, starts: Any, cells: Any, pixels: Any, **others: Any
    ) -> None:
        shapes = self._shapes()
        for key, value in others.items():
            if value.shape != (len(indices), *shapes[key]):
                raise ValueError(f"{key} is {list(value.shape)}")
        for position, index in enumerate(indices.tolist()):
            part = slice(starts[position], starts[position + 1])
            name, own = str(names[position]), cells[part]
            if own.size and not 0 <= own.min() <= own.max() < np.prod(self.shape):
                raise ValueError(f"cells of {name} lie outside the matrix")
            measured = {key: value[position] for key, value in others.items()}
            if index in self._recent:
                raise ValueError(f"image {index} ({name}) was counted twice")
            self._recent[index] = _Image(name, str(clusters[position]), own, pixels[part], measured)

    def _meaning(self) -> dict[str, Any]:
        return {
            "definition": self.definition,
            "void_predictions": self.void_predictions,
            "instance_classes": self.instance_classes,
            "instance_categories": self.instance_categories,
            "boundary_ratio": self.boundary_ratio,
            "threshold": self.threshold,
        }

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        instances = len(self.instance_classes) + len(self.instance_categories)
        return {
            "boundary": (2, len(self.space.classes)),
            "instances": (2, instances),
            "calibration": (3, BINS),
            "thresholds": (self.space.outputs, 2, STEPS),
        }
