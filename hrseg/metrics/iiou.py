"""Cityscapes' instance-weighted IoU: every object counts alike, however many pixels it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from hrseg.metrics.confusion import confusion_matrix
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
    right. A group of objects (instance id below 1000) is no object; predicting its class on it is no false alarm.
    labels: the label table; entries with a negative id play no part. average_size: mean pixels of an object, by name.
    Source: cityscapesScripts, evalPixelLevelSemanticLabeling; Cordts et al., CVPR 2016.
    """

    def __init__(self, labels: Iterable[Label], average_size: Mapping[str, float] = AVERAGE_SIZE):
        self.labels = {label.id: label for label in labels if label.id >= 0}
        self.average_size = average_size
        values = max(self.labels) + 1
        self._class_of = {i: label for i, label in self.labels.items() if label.has_instances and not label.ignored}
        members: dict[str, list[int]] = {}
        for i, label in self.labels.items():
            members.setdefault(label.category, []).append(i)
        self._members = {c: ids for c, ids in members.items() if all(self.labels[i].has_instances for i in ids)}
        self._same_category = np.zeros((values, values), bool)
        for ids in self._members.values():
            self._same_category[np.ix_(ids, ids)] = True
        self._confusion = np.zeros((values, values), np.int64)
        # Weighted pixels of the objects of each label: all, those predicted as the label, as a label of its category.
        self._objects, self._as_class, self._as_category = np.zeros((3, values))

    def update(self, prediction: np.ndarray, label_ids: np.ndarray, instance_ids: np.ndarray) -> None:
        """Count one image.

        prediction, label_ids: ids of the table, integer [H, W]. instance_ids: id * 1000 + number for an object, the id
        alone for anything else. Raises ValueError for ids above those of the table.
        """
        prediction, label_ids, instance_ids = map(np.asarray, (prediction, label_ids, instance_ids))
        self._confusion += confusion_matrix(prediction, label_ids, len(self._confusion), IGNORE_INDEX)
        of_object = instance_ids >= 1000
        objects, member_of, sizes = np.unique(instance_ids[of_object], return_inverse=True, return_counts=True)
        ids = objects // 1000
        if ids.size and ids.max() >= len(self._confusion):
            raise ValueError(f"instance ids hold {objects.max()}, an object of no label in the table")
        predicted, truth = prediction[of_object], ids[member_of]
        as_class = np.bincount(member_of, predicted == truth, len(objects))
        as_category = np.bincount(member_of, self._same_category[truth, predicted], len(objects))
        for i, size, right, near in zip(ids.tolist(), sizes, as_class, as_category, strict=True):
            if i in self._class_of:
                weight = self.average_size[self._class_of[i].name] / size
                self._objects[i] += size * weight
                self._as_class[i] += right * weight
                self._as_category[i] += near * weight

    def merge(self, other: InstanceIoU) -> None:
        """Add what another process counted."""
        self._confusion += other._confusion
        self._objects += other._objects
        self._as_class += other._as_class
        self._as_category += other._as_category

    def compute(self) -> InstanceScores:
        """The scores of the classes and categories that have instances."""
        counted = [i for i, label in self.labels.items() if not label.ignored]
        classes, categories = {}, {}
        for i, label in self._class_of.items():
            false_alarms = self._confusion[[j for j in counted if j != i], i].sum()
            # iTP + iFN are all pixels of the objects, weighted.
            classes[label.name] = float(ratio(self._as_class[i], self._objects[i] + false_alarms))
        for category, members in self._members.items():
            others = [j for j in counted if j not in members]
            false_alarms = self._confusion[np.ix_(others, members)].sum()
            objects = self._objects[members].sum() + false_alarms
            categories[category] = float(ratio(self._as_category[members].sum(), objects))
        return InstanceScores(classes, categories)
