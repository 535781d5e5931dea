"""Which of two methods is better, from the evidence of their runs: paired differences with intervals."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.errors import ConfigError, DataError
from hrseg.evaluate.evaluator import cluster_of_name
from hrseg.metrics import Difference, PerImage, class_ious, difference, summed_scores
from hrseg.report.run_folder import differing_settings

log = logging.getLogger(__name__)

# Settings in which the runs of one method may differ: they do not change what is compared, or are the seed itself.
MAY_DIFFER = ("run.", "track.", "data.workers", "data.root", "data.cache", "eval.pictures")


def paired_differences(
    first: Sequence[PerImage],
    second: Sequence[PerImage],
    *,
    definition: str | None = None,
    clusters: Sequence[str] | None = None,
    classes: bool = False,
) -> dict[str, Difference]:
    """The paired difference of every score that all runs have, by its name in metrics.json.

    first, second: the evidence of each method, one run per seed. definition: how an absent class counts; None: as
    recorded in the evidence. clusters: one per image; None: the same. classes: also the IoU of each class.
    Raises DataError for runs on other images, labels, classes or clusters.
    """
    runs = [*first, *second]
    require_same_data(runs)
    if definition is None:
        if len({run.definition for run in runs}) > 1:
            raise ConfigError(
                "definition", f"the runs have {_listed(r.definition for r in runs)}.", "Give --definition."
            )
        definition = runs[0].definition
    if clusters is None:
        if any(run.clusters != runs[0].clusters for run in runs):
            raise ConfigError("clusters", "the runs were scored with different ones.", "Give --cluster.")
        clusters = runs[0].clusters
    scores = [summed_scores(run, definition) | (class_ious(run) if classes else {}) for run in runs]
    names = [name for name in scores[0] if all(name in of_run for of_run in scores)]
    if len({run.boundary_ratio for run in runs}) > 1:
        names.remove("boundary_miou")
    ours, theirs = scores[: len(first)], scores[len(first) :]
    return {name: difference([m[name] for m in ours], [m[name] for m in theirs], clusters) for name in names}


def require_same_data(runs: Sequence[PerImage]) -> None:
    """Raises DataError if the runs are not on the same classes, images and labels."""
    names = runs[0].names
    pixels = _ground_truth(runs[0])
    for run in runs[1:]:
        if run.space.names != runs[0].space.names or run.space.task != runs[0].space.task:
            raise DataError("the runs", "have different classes.", "Compare runs on one data set.")
        if run.names != names:
            only = sorted(set(names) ^ set(run.names))
            what = f"are on different images: {len(only)} are in one of them only, such as {only[0]}." if only else ""
            raise DataError("the runs", what or "have the same images in another order.", "Score both on one split.")
        if (differing := (_ground_truth(run) != pixels).any(axis=1)).any():
            what = f"have different labels in {differing.sum()} images, such as {names[int(differing.argmax())]}."
            raise DataError("the runs", what, "Score both on the same labels.")


def _ground_truth(run: PerImage) -> np.ndarray:
    return run.group_areas(range(len(run.space.classes))).truth


def _listed(values: Any) -> str:
    return " and ".join(dict.fromkeys(values))


def count_alike(one: PerImage, other: PerImage) -> bool:
    """Whether two runs on the same data counted the same in every image, as one checkpoint scored twice does."""
    return all(np.array_equal(one[position], other[position]) for position in range(len(one)))


def difference_table(differences: dict[str, Difference], conclusion: str) -> list[str]:
    """The lines of a table in percent, and the conclusion."""
    rows = [["", "A", "B", "A - B", "95 % interval"]]
    for name, d in differences.items():
        rows.append([name, _percent(np.mean(d.first)), _percent(np.mean(d.second)), _points(d.difference), ""])
        if d.interval is not None:
            rows[-1][-1] = f"{_points(d.interval[0])} to {_points(d.interval[1])}{' *' if d.shown else ''}"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=False)), last])
        for name, *cells, last in rows
    ]
    return [*(line.rstrip() for line in text), "*: the interval excludes 0", conclusion]


def verdict(miou: Difference, seeds: tuple[int, int]) -> str:
    """What the difference in mean IoU says, in a sentence or two. seeds: runs on each side."""
    if miou.interval is None:
        return "Mean IoU: no interval can be given: there are fewer than two clusters of images."
    interval = "95 % interval {} to {}".format(*map(_points, miou.interval))
    if not miou.shown:
        conclusion = f"Mean IoU: no difference is shown ({_points(miou.difference)}, {interval})."
    else:
        better = "A" if miou.difference > 0 else "B"
        conclusion = f"Mean IoU: {better} is better by {100 * abs(miou.difference):.2f} points ({interval})."
    if max(seeds) == 1:
        conclusion += (
            "\nONE SEED EACH: these two runs were compared, not the methods. What another seed would change is not in "
            "the interval; train several and give them with --against."
        )
    return conclusion


def _percent(value: Any) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _points(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:+.2f}"


def warn_of_settings(side: str, folders: Sequence[Path]) -> None:
    """Warn where the runs of one side are not one method under several seeds."""
    configs = []
    for folder in folders:
        try:
            configs.append(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["config"])
        except (OSError, ValueError, KeyError):
            return  # the evidence alone is enough
    changed = {key for config in configs[1:] for key, *_ in differing_settings(configs[0], config)}
    if others := sorted(key for key in changed if not key.startswith(MAY_DIFFER)):
        log.warning("The runs of %s differ in more than the seed: %s.", side, ", ".join(others))
    seeds = [config["run"]["seed"] for config in configs]
    if len(set(seeds)) < len(seeds):
        log.warning("The runs of %s share a seed (%s): they say little about what a seed changes.", side, seeds)


def with_clusters(run: PerImage, cluster: str) -> PerImage:
    """The evidence with its images in other clusters. cluster: as the setting eval.cluster."""
    return run.with_clusters([cluster_of_name(name, cluster) for name in run.names])


def without_nan(value: Any) -> Any:
    """Nested plain values with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
