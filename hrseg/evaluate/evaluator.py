"""Predictions and targets to the evidence behind every score, whoever made the predictions."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hrseg import distributed
from hrseg.data.dataset import Dataset
from hrseg.data.images import read_mask
from hrseg.errors import ConfigError, DataError
from hrseg.metrics import (
    ConfusionMatrix,
    ImageCounts,
    InstanceIoU,
    PerImage,
    Scores,
    boundary_areas,
    calibration_counts,
    confusion_matrix,
    pixel_runs,
    scores,
    scores_of_images,
    threshold_counts,
)
from hrseg.task import LabelSpace, Task

log = logging.getLogger(__name__)

# Calibration is measured at every third pixel of every third row. Logits are enlarged by 4 before they are compared, so
# that a step of 2 or 4 would always meet the same places between two of them.
CALIBRATION_STEP = 3


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. per_image is the evidence: every score can be recomputed from it.

    loss: the mean over the images, where it was asked for.
    """

    scores: Scores
    per_image: PerImage
    seconds: float
    loss: float | None = None

    def headline(self) -> dict[str, Any]:
        """The figures of one line of log.jsonl. class_iou: by name, null where a class is absent."""
        plain = self.scores.to_plain()
        found: dict[str, Any] = {} if self.loss is None else {"loss": self.loss}
        found |= {k: plain[k] for k in ("miou", "pixel_accuracy", "class_accuracy")} | {"time_s": self.seconds}
        if (foreground := self.scores.foreground) is not None:
            found |= {f"foreground_{name}": plain["foreground"][name] for name in ("iou", "dice")}
            found["threshold"] = None if foreground.best is None else foreground.best.threshold
        return found | {"class_iou": {row["name"]: row["iou"] for row in plain["classes"]}}


class Evaluator:
    """Counts one image after the other as the data set's own benchmark does.

    definition: how an absent class counts; None: as the benchmark has it. cluster: what makes images belong together;
    None: what the data set says; "image": each alone; else a regular expression, searched in the name, of which the
    first group counts, or the whole match. boundary_ratio: the width of the band of boundary IoU over the image's
    diagonal; None: as usual for the data set; 0: not measured. void_predictions: the ignore index in a prediction is no
    error but a miss. threshold: of the predictions of a binary or multilabel task.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        definition: str | None = None,
        cluster: str | None = None,
        boundary_ratio: float | None = None,
        void_predictions: bool = False,
        threshold: float | None = None,
    ):
        self.dataset, self.cluster, self._start = dataset, cluster, time.perf_counter()
        self.space: LabelSpace = dataset.space
        if boundary_ratio is None:
            boundary_ratio = dataset.boundary_ratio
        self.instances = _instances(dataset)
        self.total = ConfusionMatrix(
            len(self.space.classes),
            self.space.ignore_index,
            multilabel=self.space.task is Task.MULTILABEL,
            void_predictions=void_predictions,
        )
        self.per_image = PerImage(
            self.space,
            str(definition or dataset.definition),
            void_predictions=void_predictions,
            instance_classes=self.instances.classes if self.instances else (),
            instance_categories=self.instances.categories if self.instances else (),
            boundary_ratio=boundary_ratio or None,
            threshold=None if self.space.task is Task.MULTICLASS else threshold,
        )
        self.miou()  # an unknown definition is reported here, before any work

    def count(
        self,
        index: int,
        prediction: np.ndarray,
        target: np.ndarray,
        *,
        confidence: np.ndarray | Tensor | None = None,
        label_ids: np.ndarray | None = None,
        passed: np.ndarray | None = None,
    ) -> ImageCounts:
        """What one image adds; adds nothing, so that several threads may count.

        prediction, target: class indices [H, W], or {0, 1} [L, H, W]. confidence: the probability of what is predicted,
        at every third pixel of every third row. label_ids: the prediction as ids of the data set's label table, where
        it was made as such; they tell apart what is no class. passed: of `Inference.passed`.
        """
        ignore_index, calibration, instances = self.space.ignore_index, None, None
        if confidence is not None:
            predicted, truth = (plane[..., ::CALIBRATION_STEP, ::CALIBRATION_STEP] for plane in (prediction, target))
            calibration = calibration_counts(confidence, predicted, truth, ignore_index)
        thresholds = None if passed is None else threshold_counts(passed, target, ignore_index)
        if self.instances is None:
            confusion = self.total.count(prediction, target)
        else:
            confusion, instances = self._with_instances(index, prediction, target, label_ids)
        return ImageCounts(confusion, self._boundary(prediction, target), instances, calibration, thresholds)

    def add(self, index: int, counts: ImageCounts) -> None:
        """Add an image that was counted."""
        self.total.add(counts.confusion)
        self.per_image.add(index, self.dataset.names[index], counts, cluster_of(self.dataset, index, self.cluster))

    def miou(self) -> float:
        """The mean IoU of what this process has counted so far."""
        return scores(self.total.compute(), self.space, self.per_image.definition).miou

    def evaluation(self) -> Evaluation:
        """The scores of what all processes have counted, in each of them."""
        per_image = PerImage.merge(distributed.gather(self.per_image))
        return Evaluation(scores_of_images(per_image), per_image, time.perf_counter() - self._start)

    def _boundary(self, prediction: np.ndarray, target: np.ndarray) -> np.ndarray | None:
        ratio, ignore_index = self.per_image.boundary_ratio, self.space.ignore_index
        if ratio is None:
            return None
        if self.space.task is Task.MULTILABEL:
            planes = zip(prediction, target, strict=True)
            of_label = [boundary_areas(p, t, 2, ignore_index, dilation_ratio=ratio)[:, 1] for p, t in planes]
            return np.stack(of_label, axis=1)
        classes = len(self.space.classes)
        if self.per_image.void_predictions:  # a class of its own, which the target never has
            prediction = np.where(prediction == ignore_index, classes, prediction)
            return boundary_areas(prediction, target, classes + 1, ignore_index, dilation_ratio=ratio)[:, :classes]
        return boundary_areas(prediction, target, classes, ignore_index, dilation_ratio=ratio)

    def _with_instances(
        self,
        index: int,
        prediction: np.ndarray,
        target: np.ndarray,
        label_ids: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels by true and predicted class, and what the objects add; all is counted in runs."""
        path, classes, ids = self.dataset.instance_path(index), len(self.space.classes), self.dataset.label_ids
        assert self.instances is not None and path is not None and ids is not None
        instance_ids = read_mask(path)
        if instance_ids.shape != target.shape:
            size = "x".join(map(str, instance_ids.shape))
            raise DataError(path, f"is {size} (height x width), the labels {target.shape[0]}x{target.shape[1]}.")
        by_id = np.zeros((256, 256), np.int64)
        if label_ids is None or not self.per_image.void_predictions:
            (prediction, target, instance_ids), pixels = pixel_runs(prediction, target, instance_ids)
            counts = self.total.count(prediction, target, pixels=pixels)
            by_id[np.ix_(ids[:classes], ids[:classes])] = counts[:, :classes]
            said = ids[prediction]
        else:
            (said, target, instance_ids), pixels = pixel_runs(label_ids, target, instance_ids)
            by_class_and_id = confusion_matrix(said, target, 256, self.space.ignore_index, pixels=pixels)[:classes]
            by_id[ids[:classes]] = by_class_and_id
            counts = np.zeros((classes, classes + 1), np.int64)
            counts[:, :classes] = by_class_and_id[:, ids[:classes]]
            counts[:, classes] = by_class_and_id.sum(axis=1) - counts.sum(axis=1)
        try:
            return counts, self.instances.count(by_id, said, instance_ids, pixels)
        except ValueError as error:
            raise DataError(path, f"{error}.") from error


def cluster_of(dataset: Dataset, index: int, cluster: str | None) -> str:
    """What an image belongs to together with its neighbours. Raises ConfigError where the expression finds nothing."""
    name = dataset.names[index]
    if cluster == "image":
        return name
    if cluster is None:
        return dataset.cluster(index)
    return cluster_of_name(name, cluster)


def cluster_of_name(name: str, cluster: str) -> str:
    """As `cluster_of`, by the name alone; cluster is not None."""
    if cluster == "image":
        return name
    found = re.search(cluster, name)
    if not found:
        raise ConfigError("eval.cluster", f"'{cluster}' finds nothing in the name '{name}'.")
    return found[1] if found.re.groups and found[1] is not None else found[0]


def _instances(dataset: Dataset) -> InstanceIoU | None:
    """For a data set with a label table and a file of instance ids for each image."""
    if dataset.label_table is None:
        return None
    paths: list[Path | None] = [dataset.instance_path(i) for i in range(len(dataset))]
    missing = [path for path in paths if path is None or not path.exists()]
    if len(missing) == len(paths):
        return None
    if missing:
        if distributed.is_main():
            log.warning("iIoU is left out: %d of %d images lack their instance ids.", len(missing), len(paths))
        return None
    return InstanceIoU(dataset.label_table)
