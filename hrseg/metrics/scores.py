"""The scores that follow from a confusion matrix, and what a class that is absent counts for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hrseg.errors import ConfigError, nearest
from hrseg.metrics.thresholds import AtThreshold, LabelScores
from hrseg.task import LabelSpace, Task

# What an absent class (in neither target nor prediction) counts for in a mean; NaN: it is left out. Sources:
# cityscapesScripts; CSAIL's semantic-segmentation-pytorch; HRNet-Semantic-Segmentation; mmsegmentation; smp.metrics.
DEFINITIONS: Mapping[str, float] = {
    "cityscapes": np.nan,
    "ade20k": 0.0,
    "hrnet": 0.0,
    "mmseg": np.nan,
    "smp": 1.0,
}


def areas(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of each class, in pixels.

    confusion: integers [..., K, K], row = target, column = prediction; with a column more ([..., K, K + 1]) for
    predictions that are no class. Returns two arrays [..., K]. Raises ValueError for any other shape.
    """
    confusion = np.asarray(confusion)
    classes = confusion.shape[-2] if confusion.ndim >= 2 else -1
    if confusion.ndim < 2 or confusion.shape[-1] - classes not in (0, 1):
        raise ValueError(f"a confusion matrix is [K, K] or [K, K + 1], not {list(confusion.shape)}")
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    truth = confusion.sum(axis=-1)
    predicted = confusion[..., :classes].sum(axis=-2)
    return intersection, truth + predicted - intersection


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, TP / (TP + FP + FN).

    confusion: as in `areas`. Returns float64 [..., K] in [0, 1]; NaN where a class is in neither target nor prediction.
    Raises ValueError if confusion has another shape. Source: PASCAL VOC.
    """
    return ratio(*areas(confusion))


def pixel_accuracy(confusion: np.ndarray) -> float:
    """The share of pixels whose class is right; NaN without pixels. confusion: as in `areas`."""
    return float(ratio(areas(confusion)[0].sum(), np.asarray(confusion).sum()))


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """The share of each class's pixels that are found, float64 [..., K]; NaN where it has none. As in `areas`."""
    return ratio(areas(confusion)[0], np.asarray(confusion).sum(axis=-1))


def mean(values: np.ndarray, definition: str) -> np.ndarray:
    """The mean over the last axis, in which NaN counts for what the definition says; NaN where nothing is left.

    Raises ConfigError for an unknown definition.
    """
    if definition not in DEFINITIONS:
        raise ConfigError("eval.definition", f"no definition '{definition}'.", nearest(definition, DEFINITIONS))
    values = np.where(np.isnan(values), DEFINITIONS[definition], values)
    return ratio(np.nansum(values, axis=-1), (~np.isnan(values)).sum(axis=-1))


def miou(confusion: np.ndarray, definition: str) -> float:
    """The mean of the classes' IoU, as the tool that `definition` names would have it. confusion: as in `areas`.

    cityscapes and mmseg leave an absent class out, ade20k and hrnet count it as 0, smp as 1.
    Raises ConfigError for an unknown definition.
    """
    return float(mean(iou(confusion), definition))


def category_iou(confusion: np.ndarray, categories: Sequence[str | None]) -> dict[str, float]:
    """IoU of groups of classes; a confusion within a group is none.

    confusion: [K, K] or [K, K + 1]. categories: one a class; None: the class is in no group. NaN where a group is in
    neither target nor prediction. Source: cityscapesScripts.
    """
    confusion = np.asarray(confusion)
    result = {}
    for name in dict.fromkeys(c for c in categories if c is not None):
        members = [index for index, category in enumerate(categories) if category == name]
        intersection = confusion[np.ix_(members, members)].sum()
        union = confusion[members].sum() + confusion[:, members].sum() - intersection
        result[name] = float(ratio(intersection, union))
    return result


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in float64; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole != 0)


@dataclass(frozen=True)
class ClassScore:
    """What one class scored: shares in [0, 1], NaN where it is absent; its pixels in the target."""

    name: str
    iou: float
    accuracy: float
    dice: float
    pixels: int
    boundary_iou: float = np.nan


# The means beside mean IoU and accuracies, in the order of metrics.json; `score_functions` says what they are.
MEANS = (
    *("image_miou", "worst_decile_miou", "boundary_miou", "category_miou"),
    *("mean_iiou", "mean_category_iiou", "ece"),
)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says: shares in [0, 1], NaN where there is nothing to score.

    Multiclass and binary: an entry a class (binary: background and foreground), means over the classes.
    Multilabel: an entry a label, about its "yes"; means over the labels; pixel_accuracy is the share of right answers.
    means: those of `MEANS` that were measured. intervals: (low, high) of each mean, by name, over so many clusters.
    labels: the foreground of a binary task, or each label of a multilabel one, at several thresholds.
    """

    definition: str
    miou: float
    pixel_accuracy: float
    class_accuracy: float
    classes: tuple[ClassScore, ...]
    category: Mapping[str, float] = field(default_factory=dict)
    iiou: Mapping[str, float] = field(default_factory=dict)
    category_iiou: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    clusters: int | None = None
    labels: tuple[LabelScores, ...] = ()

    @property
    def miou_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean IoU."""
        return self.intervals.get("miou")

    @property
    def foreground(self) -> LabelScores | None:
        """Of a binary task."""
        return self.labels[0] if len(self.labels) == 1 and len(self.classes) == 2 else None

    def to_plain(self) -> dict[str, Any]:
        """Plain types for metrics.json: what is absent is None."""
        names = ("iou", "accuracy", "dice", "boundary_iou")
        intervals = {name: None if i is None else [_plain(bound) for bound in i] for name, i in self.intervals.items()}
        labels = [_label_to_plain(label) for label in self.labels]
        first = {} if not labels else {"foreground": labels[0]} if self.foreground else {"labels": labels}
        return {
            **first,
            "miou": _plain(self.miou),
            "miou_interval": intervals.get("miou"),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "class_accuracy": _plain(self.class_accuracy),
            **{name: _plain(self.means.get(name, np.nan)) for name in MEANS},
            "classes": [
                {"name": c.name, **{name: _plain(getattr(c, name)) for name in names}, "pixels": c.pixels}
                for c in self.classes
            ],
            "category": {name: _plain(value) for name, value in self.category.items()},
            "iiou": {name: _plain(value) for name, value in self.iiou.items()},
            "category_iiou": {name: _plain(value) for name, value in self.category_iiou.items()},
            "intervals": intervals,
            "clusters": self.clusters,
            "definition": self.definition,
        }


def scores(
    confusion: np.ndarray, space: LabelSpace, definition: str, *, boundary_iou: np.ndarray | None = None
) -> Scores:
    """All scores of one confusion matrix.

    confusion: int64 [K, K] or [K, K + 1]; [L, 2, 2] for a multilabel space. boundary_iou: float64 [K], where measured.
    Raises ValueError if the matrix does not fit the space, ConfigError for an unknown definition.
    """
    confusion = np.asarray(confusion)
    if len(confusion) != len(space.classes) or (confusion.ndim == 3) != (space.task is Task.MULTILABEL):
        raise ValueError(f"a {space.task.value} space of {len(space.classes)} does not fit {list(confusion.shape)}")
    by_class, found, pixels = iou(confusion), class_accuracy(confusion), confusion.sum(axis=-1)
    right = areas(confusion)[0].sum()
    if space.task is Task.MULTILABEL:
        by_class, found, pixels = by_class[:, 1], found[:, 1], pixels[:, 1]
    boundary = np.full(len(by_class), np.nan) if boundary_iou is None else boundary_iou
    dice = 2 * by_class / (1 + by_class)
    columns = zip(space.names, by_class, found, dice, pixels, boundary, strict=True)
    return Scores(
        definition=definition,
        miou=float(mean(by_class, definition)),
        pixel_accuracy=float(ratio(right, confusion.sum())),
        class_accuracy=float(mean(found, definition)),
        classes=tuple(ClassScore(n, float(i), float(a), float(d), int(p), float(b)) for n, i, a, d, p, b in columns),
        category={} if space.task is Task.MULTILABEL else category_iou(confusion, [c.category for c in space.classes]),
    )


def table(scores: Scores) -> str:
    """The classes with IoU, accuracy and share of the true pixels as lines for a terminal, the means below.

    Values in percent; a dash where a class is absent. Boundary IoU and iIoU have a column where they were measured.
    """
    total = sum(c.pixels for c in scores.classes)
    columns: dict[str, list[float]] = {
        "IoU %": [*(c.iou for c in scores.classes), scores.miou],
        "accuracy %": [*(c.accuracy for c in scores.classes), scores.class_accuracy],
    }
    if any(not np.isnan(c.boundary_iou) for c in scores.classes):
        values = [c.boundary_iou for c in scores.classes]
        columns["boundary IoU %"] = [*values, float(mean(np.array(values), scores.definition))]
    if scores.iiou:
        columns["iIoU %"] = [*(scores.iiou.get(c.name, np.nan) for c in scores.classes), scores.means["mean_iiou"]]
    rows = [["class", *columns, "pixels %"]]
    order = list(enumerate(scores.classes))
    for number, c in reversed(order) if scores.foreground else order:
        share = float(ratio(np.array(c.pixels), np.array(total)))
        rows.append([c.name, *(_percent(values[number]) for values in columns.values()), _percent(share)])
    rows.append(["mean", *(_percent(values[-1]) for values in columns.values()), ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    rule = "-" * sum(widths, 2 * (len(widths) - 1))
    lines = [line.rstrip() for line in (lines[0], rule, *lines[1:-1], rule, lines[-1])]
    return "\n".join([*_label_lines(scores.labels), *lines, *_summary(scores)])


def _label_lines(labels: Sequence[LabelScores]) -> list[str]:
    """What a binary or multilabel task is asked for first, a line for each threshold."""
    lines = []
    for label in labels:
        told = {"as predicted": label.used} if label.half is None else {"": label.half}
        if label.half is not None and label.used.threshold not in (None, 0.5):
            told = {"as predicted": label.used} | told
        told |= {"best here": label.best} if label.best is not None else {}
        for what, at in told.items():
            where = "" if at.threshold is None else f" at threshold {at.threshold:.2f}"
            figures = f"IoU {_percent(at.iou)}, Dice {_percent(at.dice)}"
            figures += f", precision {_percent(at.precision)}, recall {_percent(at.recall)}"
            lines.append(f"{label.name}: {figures}{where}{f' ({what})' if what else ''}")
    return lines


def _label_to_plain(label: LabelScores) -> dict[str, Any]:
    def plain(at: AtThreshold | None) -> dict[str, Any] | None:
        return at and {key: None if value is None else _plain(value) for key, value in at._asdict().items()}

    return {"name": label.name, **(plain(label.used) or {}), "half": plain(label.half), "best": plain(label.best)}


def _summary(scores: Scores) -> list[str]:
    means = {name: value for name, value in scores.means.items() if not np.isnan(value)}
    summary = f"pixel accuracy {_percent(scores.pixel_accuracy)}; definition {scores.definition}"
    if scores.miou_interval is not None:
        summary += "; 95 % interval of the mean IoU {} to {}".format(*map(_percent, scores.miou_interval))
        summary += f" ({scores.clusters} clusters of images)"
    lines = [summary]
    if "image_miou" in means:
        image, worst = means["image_miou"], means["worst_decile_miou"]
        lines.append(f"mean IoU of single images {_percent(image)}, of the worst tenth of them {_percent(worst)}")
    if "category_miou" in means:
        line = f"category IoU {_percent(means['category_miou'])}"
        if "mean_category_iiou" in means:
            line += f", category iIoU {_percent(means['mean_category_iiou'])}"
        lines.append(line)
    if "ece" in means:
        lines.append(f"expected calibration error {_percent(means['ece'])}")
    return lines


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"
