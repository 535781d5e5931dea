"""Cityscapes' instance-weighted IoU: every object counts alike, however many pixels it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from hrseg.metrics.confusion import confusion_matrix, pixel_runs
from hrseg.metrics.scores import ratio
from hrseg.task import IGNORE_INDEX

# Mean pixels of an object of each class. Source: evalPixelLevelSemanticLabeling.py of cityscapesScripts, avgClassSize.
AVERAGE_SIZE: Mapping[str, float] = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "caravan": 36771.8241758242,
    "trailer": 16926.9763313609,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}


class Label(Protocol):
    """What a label table says of one label; `ignored`: its pixels and objects are left out of the scores."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> int: ...
    @property
    def category(self) -> str: ...
    @property
    def has_instances(self) -> bool: ...
    @property
    def ignored(self) -> bool: ...


class InstanceScores(NamedTuple):
    """iIoU by name, in [0, 1]; NaN where there is neither an object nor a false alarm."""

    classes: dict[str, float]
    categories: dict[str, float]


class InstanceIoU:
    """iIoU = iTP / (iTP + FP + iFN), added up over images.

    The pixels of an object count times the average size of its class over the object's own size. False alarms have no
    object to belong to and count as plain pixels. In a category all of whose labels have instances, any label of it is
    right. A group of objects (instance id below 1000) does not count as an object, and predicting its class there
    does not count as a false alarm.
    labels: the label table; entries with a negative id play no part. average_size: mean pixels of an object, by name.
    Source: cityscapesScripts, evalPixelLevelSemanticLabeling; Cordts et al., CVPR 2016.
    """

    def __init__(self, labels: Iterable[Label], average_size: Mapping[str, float] = AVERAGE_SIZE):
        self.labels = {label.id: label for label in labels if label.id >= 0}
        self._values = max(self.labels) + 1
        self._weight = np.zeros(self._values)  # of an object of each label, spread over its pixels
        for i, label in self.labels.items():
            if label.has_instances and not label.ignored:
                self._weight[i] = average_size[label.name]
        self._class_ids = [i for i in self.labels if self._weight[i]]
        members: dict[str, list[int]] = {}
        for i, label in self.labels.items():
            members.setdefault(label.category, []).append(i)
        self._members = {c: ids for c, ids in members.items() if all(self.labels[i].has_instances for i in ids)}
        self._same_category = np.zeros((self._values, self._values), bool)
        for ids in self._members.values():
            self._same_category[np.ix_(ids, ids)] = True
        self.reset()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that have a score."""
        return tuple(self.labels[i].name for i in self._class_ids)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that have a score."""
        return tuple(self._members)

    def reset(self) -> None:
        """Back to zero."""
        self._areas = np.zeros((2, len(self._class_ids) + len(self._members)))

    def update(self, prediction: np.ndarray, label_ids: np.ndarray, instance_ids: np.ndarray) -> np.ndarray:
        """Count one image.

        prediction, label_ids: ids of the table, integer [H, W]. instance_ids: id * 1000 + number for an object, the id
        alone for anything else.
        Returns what it added, float64 [2, M]: weighted pixels that are right, and all that count, of each class and
        then each category. Raises ValueError for ids above those of the table.
        """
        (said, true, instances), pixels = pixel_runs(*map(np.asarray, (prediction, label_ids, instance_ids)))
        confusion = confusion_matrix(said, true, self._values, IGNORE_INDEX, pixels=pixels)
        areas = self.count(confusion, said, instances, pixels)
        self._areas += areas
        return areas

    def count(
        self, confusion: np.ndarray, prediction: np.ndarray, instance_ids: np.ndarray, pixels: np.ndarray
    ) -> np.ndarray:
        """What `update` adds for an image whose pixels were counted already; adds nothing.

        confusion: int64 [V, V] by true and predicted id of the table; rows of ignored labels may be left empty.
        prediction, instance_ids, pixels: those of its runs.
        """
        places = np.flatnonzero(instance_ids >= 1000)
        of_object, said, pixels = instance_ids[places], prediction[places], pixels[places]
        sizes = np.bincount(of_object, pixels)
        objects = np.flatnonzero(sizes)
        label = objects // 1000
        if label.size and label.max() >= self._values:
            raise ValueError(f"instance ids hold {objects.max()}, an object of no label in the table")
        # Pixels of each object by predicted label.
        number = np.zeros(len(sizes), np.intp)
        number[objects] = np.arange(len(objects))
        predicted = np.bincount(number[of_object] * self._values + said, pixels, len(objects) * self._values)
        predicted = predicted.reshape(-1, self._values)
        weight = self._weight[label] / sizes[objects]
        right = weight * predicted[np.arange(len(objects)), label]
        near = weight * (predicted * self._same_category[label]).sum(axis=1)
        of_label = [np.bincount(label, w, self._values) for w in (weight * sizes[objects], right, near)]
        whole, as_class, as_category = of_label
        counted = [i for i, entry in self.labels.items() if not entry.ignored]
        added = []
        for i in self._class_ids:
            # iTP + iFN are all pixels of the objects, weighted.
            false_alarms = confusion[[j for j in counted if j != i], i].sum()
            added.append((as_class[i], whole[i] + false_alarms))
        for members in self._members.values():
            false_alarms = confusion[np.ix_([j for j in counted if j not in members], members)].sum()
            added.append((as_category[members].sum(), whole[members].sum() + false_alarms))
        return np.array(added).T

    def merge(self, other: InstanceIoU) -> None:
        """Add what another process counted."""
        self._areas += other._areas

    def compute(self) -> InstanceScores:
        """The scores of the classes and categories that have instances."""
        values = ratio(*self._areas).tolist()
        count = len(self.classes)
        return InstanceScores(
            dict(zip(self.classes, values[:count], strict=True)),
            dict(zip(self.categories, values[count:], strict=True)),
        )
