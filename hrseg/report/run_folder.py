"""Reads an evaluated run from its folder, and computes the figures that a report shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hrseg.config import flattened
from hrseg.errors import DataError, HrsegError
from hrseg.metrics import DEFINITIONS, PerImage, SummedScore, image_ious, summed_scores
from hrseg.metrics.scores import areas, ratio
from hrseg.report.examples import Examples
from hrseg.tracking import read_log


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluated run. examples is None and records is empty where their files are missing."""

    folder: Path
    metrics: Mapping[str, Any]
    per_image: PerImage
    records: list[dict[str, Any]]
    examples: Examples | None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def classes(self) -> list[str]:
        return [row["name"] for row in self.metrics["classes"]]

    @property
    def multilabel(self) -> bool:
        return len(self.per_image.shape) == 3

    def ious(self) -> dict[str, float]:
        """The mean IoU of each image, by name."""
        return dict(zip(self.per_image.names, image_ious(self.per_image).tolist(), strict=True))

    def summed_scores(self) -> dict[str, SummedScore]:
        """Every score that the counts per image allow, by its name in metrics.json."""
        return summed_scores(self.per_image, self.metrics["definition"])


def read_run(folder: Path) -> EvaluatedRun:
    """The run in a folder. Raises HrsegError where it was not evaluated, DataError where a file is broken."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise HrsegError(folder, "has no metrics.json.", "Score a checkpoint first: tools/test.py --checkpoint PATH.")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        missing = {"miou", "classes", "definition", "config", "checkpoint"} - metrics.keys()
    except (ValueError, AttributeError) as error:
        raise DataError(path, f"is not a metrics.json: {error}.") from error
    if missing:
        raise DataError(path, f"lacks {', '.join(sorted(missing))}.", "Score the checkpoint again: tools/test.py.")
    records, examples = folder / "log.jsonl", folder / "examples.npz"
    return EvaluatedRun(
        folder,
        metrics,
        PerImage.load(folder / "per_image.npz"),
        read_log(records) if records.is_file() else [],
        Examples.load(examples) if examples.is_file() else None,
    )


def data_hash(per_image: PerImage) -> str:
    """sha256 over the images' names and pixels per class in their targets. Equal for runs scored on the same data."""
    digest = hashlib.sha256()
    for position, name in enumerate(per_image.names):
        truth = per_image[position].sum(axis=-1)
        digest.update(name.encode() + b"\0" + truth.astype("<i8").tobytes())
    return digest.hexdigest()


def data_name(config: Mapping[str, Any]) -> str:
    """The folder of a run's data, with the layout it was read in, which does not say where the images come from."""
    name, layout = Path(config["data"]["root"]).name, config["data"]["dataset"]
    return f"{name} ({layout} layout)" if name and name.lower() != layout.lower() else layout


class Confusion(NamedTuple):
    """Pixels of one class that were predicted as another. Multilabel: a label missed, or predicted where it is not.

    share: of the true class's pixels; None for a label that is not there. cost: by how much the mean IoU would rise if
    these pixels were right.
    """

    true_class: str
    predicted_class: str
    pixels: int
    share: float | None
    cost: float


NOTHING = "(not there)"  # the other side of a multilabel mistake; a prediction that is not a class


def costliest_confusions(run: EvaluatedRun, count: int = 10) -> list[Confusion]:
    """The confusions that cost the most mean IoU, largest cost first."""
    names, total = [*run.classes, NOTHING], run.per_image.total()
    intersection, union = areas(total)
    truth = total.sum(axis=-1)
    if run.multilabel:
        intersection, union, truth = (a[:, 1] for a in (intersection, union, truth))
        missed, false = total[:, 1, 0], total[:, 0, 1]
        total = np.zeros((len(names),) * 2, np.int64)
        total[:-1, -1], total[-1, :-1] = missed, false
    wrong = np.where(np.eye(total.shape[0], total.shape[1], dtype=bool), 0, total)
    cost = np.where(wrong > 0, _costs(wrong, intersection, union, DEFINITIONS[run.metrics["definition"]]), 0.0)
    found = []
    for flat in np.argsort(-cost, axis=None, kind="stable")[:count]:
        row, column = np.unravel_index(flat, cost.shape)
        if cost[row, column] > 0:
            share = wrong[row, column] / truth[row] if row < len(truth) else None
            found.append(Confusion(names[row], names[column], int(wrong[row, column]), share, float(cost[row, column])))
    return found


def _costs(wrong: np.ndarray, intersection: np.ndarray, union: np.ndarray, absent: float) -> np.ndarray:
    """By how much the mean IoU would rise if the pixels of one cell were right, float64 like wrong.

    wrong: pixels, row = target, column = prediction; it may have one more row and column, for which there is no IoU.
    absent: the IoU of a class that is in neither; NaN leaves it out.
    """
    known = len(union)
    before = ratio(intersection, union)
    values = np.where(np.isnan(before), absent, before)
    total, counted = np.nansum(values), np.count_nonzero(~np.isnan(values))
    found, freed = np.zeros(wrong.shape), np.zeros(wrong.shape)
    found[:known] = ratio(intersection[:, None] + wrong[:known], union[:, None]) - values[:, None]
    # A class that only this mistake brought in would then be absent.
    after = ratio(np.broadcast_to(intersection, wrong[:, :known].shape), union - wrong[:, :known])
    after = np.where(np.isnan(after), absent, after)
    freed[:, :known] = np.nan_to_num(after) - values
    gone = np.zeros(wrong.shape)
    gone[:, :known] = np.isnan(after)
    return ratio(total + found + freed, counted - gone) - total / max(counted, 1)


def differing_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings in which two configs differ: dotted name and both values."""
    a, b = flattened(ours), flattened(theirs)
    return [(key, a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
