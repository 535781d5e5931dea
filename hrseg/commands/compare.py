"""Which of two methods is better, from the evidence of their runs; the command `tools/compare.py`."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.console import command, counted, parser
from hrseg.errors import ConfigError, DataError
from hrseg.evaluate.evaluator import cluster_of_name
from hrseg.files import write_json
from hrseg.metrics import Difference, PerImage, class_ious, difference, measures, scores_of, table
from hrseg.report.run_folder import differences

log = logging.getLogger(__name__)

# Settings in which the runs of one method may differ: they do not change what is compared, or are the seed itself.
MAY_DIFFER = ("run.", "track.", "data.workers", "data.root", "data.cache", "eval.pictures")


def compare(
    first: Sequence[PerImage],
    second: Sequence[PerImage],
    *,
    definition: str | None = None,
    clusters: Sequence[str] | None = None,
    classes: bool = False,
) -> dict[str, Difference]:
    """The paired difference of every score that all runs have, by its name in metrics.json.

    first, second: the evidence of one run a seed. definition: how an absent class counts; None: as where the evidence
    was made. clusters: one an image; None: as where the evidence was made. classes: also of the IoU of each class.
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
    of_run = [measures(run, definition) | (class_ious(run) if classes else {}) for run in runs]
    names = [name for name in of_run[0] if all(name in found for found in of_run)]
    if len({run.boundary_ratio for run in runs}) > 1:
        names.remove("boundary_miou")
    ours, theirs = of_run[: len(first)], of_run[len(first) :]
    return {name: difference([m[name] for m in ours], [m[name] for m in theirs], clusters) for name in names}


def require_same_data(runs: Sequence[PerImage]) -> None:
    """Raises DataError if the runs are not on the same classes, images and labels."""
    names = runs[0].names
    truth = _truth(runs[0])
    for run in runs[1:]:
        if run.space.names != runs[0].space.names or run.space.task != runs[0].space.task:
            raise DataError("the runs", "have different classes.", "Compare runs on one data set.")
        if run.names != names:
            only = sorted(set(names) ^ set(run.names))
            what = f"are on different images: {len(only)} are in one of them only, such as {only[0]}." if only else ""
            raise DataError("the runs", what or "have the same images in another order.", "Score both on one split.")
        if (differing := (_truth(run) != truth).any(axis=1)).any():
            what = f"have different labels in {differing.sum()} images, such as {names[int(differing.argmax())]}."
            raise DataError("the runs", what, "Score both on the same labels.")


def _truth(run: PerImage) -> np.ndarray:
    return run.areas_of(range(len(run.space.classes))).truth


def _listed(values: Any) -> str:
    return " and ".join(dict.fromkeys(values))


def alike(one: PerImage, other: PerImage) -> bool:
    """Whether two runs on the same data counted the same in every image, as one checkpoint scored twice does."""
    return all(np.array_equal(one[position], other[position]) for position in range(len(one)))


def lines(found: dict[str, Difference], said: str) -> list[str]:
    """A table in percent, and what follows from it."""
    rows = [["", "A", "B", "A - B", "95 % interval"]]
    for name, d in found.items():
        rows.append([name, _percent(np.mean(d.first)), _percent(np.mean(d.second)), _points(d.difference), ""])
        if d.interval is not None:
            rows[-1][-1] = f"{_points(d.interval[0])} to {_points(d.interval[1])}{' *' if d.shown else ''}"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=False)), last])
        for name, *cells, last in rows
    ]
    return [*(line.rstrip() for line in text), "*: the interval leaves out 0", said]


def verdict(miou: Difference, seeds: tuple[int, int]) -> str:
    """What the difference in mean IoU says, in a sentence or two. seeds: runs of each side."""
    if miou.interval is None:
        return "Mean IoU: no interval can be given: there are fewer than two clusters of images."
    interval = "95 % interval {} to {}".format(*map(_points, miou.interval))
    if not miou.shown:
        said = f"Mean IoU: no difference is shown ({_points(miou.difference)}, {interval})."
    else:
        better = "A" if miou.difference > 0 else "B"
        said = f"Mean IoU: {better} is better by {100 * abs(miou.difference):.2f} points ({interval})."
    if max(seeds) == 1:
        said += (
            "\nONE SEED EACH: these two runs were compared, not the methods. What another seed would change is not in "
            "the interval; train several and give them with --against."
        )
    return said


def _percent(value: Any) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _points(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:+.2f}"


def _evidence(path: Path) -> PerImage:
    return PerImage.load(path / "per_image.npz" if path.is_dir() or path.suffix != ".npz" else path)


def _warn_of_settings(side: str, folders: Sequence[Path]) -> None:
    """Say so where the runs of one side are not one method under several seeds."""
    configs = []
    for folder in folders:
        try:
            configs.append(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["config"])
        except (OSError, ValueError, KeyError):
            return  # the evidence alone is enough
    changed = {key for config in configs[1:] for key, *_ in differences(configs[0], config)}
    if others := sorted(key for key in changed if not key.startswith(MAY_DIFFER)):
        log.warning("The runs of %s differ in more than the seed: %s.", side, ", ".join(others))
    seeds = [config["run"]["seed"] for config in configs]
    if len(set(seeds)) < len(seeds):
        log.warning("The runs of %s share a seed (%s): they say little of what a seed changes.", side, seeds)


@command
def main(argv: Sequence[str]) -> int:
    """tools/compare.py: the paired difference of two methods; of one run, its scores anew."""
    arguments = parser(
        "Compare two methods by their runs' per_image.npz, image by image. Of one run: its scores, anew.",
        "examples:\n"
        "  tools/compare.py runs/ocr runs/plain\n"
        "  tools/compare.py runs/ocr_0 runs/ocr_1 runs/ocr_2 --against runs/plain_0 runs/plain_1 runs/plain_2\n"
        "  tools/compare.py runs/ocr runs/plain --classes --cluster '^[^_]+_[^_]+'\n"
        "  tools/compare.py runs/ocr --definition mmseg",
    )
    arguments.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or their per_image.npz")
    arguments.add_argument("--against", nargs="+", type=Path, default=[], metavar="RUN", help="the other method's runs")
    arguments.add_argument("--definition", help="how an absent class counts: cityscapes, ade20k, hrnet, mmseg or smp")
    arguments.add_argument(
        "--cluster", help="which images belong together: image, or a regular expression on their names; as eval.cluster"
    )
    arguments.add_argument("--classes", action="store_true", help="also the IoU of each class")
    arguments.add_argument("--json", type=Path, metavar="PATH", help="also write the differences there")
    args = arguments.parse_args(argv)
    first, second = args.runs, args.against
    if not second and len(first) == 2:
        first, second = first[:1], first[1:]
    if not second and len(first) > 2:
        raise ConfigError("RUN", f"{len(first)} runs and no --against.", "Give the other method's behind --against.")
    sides = [[_evidence(path) for path in side] for side in (first, second)]
    if args.cluster is not None:
        sides = [[_clustered(run, args.cluster) for run in side] for side in sides]
    if not second:
        print(table(scores_of(sides[0][0], args.definition)))
        return 0
    for name, folders in (("A", first), ("B", second)):
        _warn_of_settings(name, folders)
    found = compare(*sides, definition=args.definition, classes=args.classes)
    seeds = (len(first), len(second))
    run = sides[0][0]
    print(f"A: {', '.join(map(str, first))}\nB: {', '.join(map(str, second))}")
    definition = args.definition or run.definition
    images, clusters = counted(len(run), "image"), counted(len(set(run.clusters)), "cluster")
    print(f"{images} in {clusters}; definition {definition}; in percent")
    if seeds == (1, 1) and alike(sides[0][0], sides[1][0]):
        said = "A and B are right and wrong alike in every image: is it one checkpoint, scored twice?"
    else:
        said = verdict(found["miou"], seeds)
    print("\n".join(lines(found, said)))
    if args.json:
        plain = {name: d._asdict() for name, d in found.items()}
        about = {"first": [str(p) for p in first], "second": [str(p) for p in second], "definition": definition,
                 "clusters": len(set(run.clusters)), "images": len(run)}  # fmt: skip
        write_json(args.json, _without_nan({**about, "differences": plain}))
    return 0


def _clustered(run: PerImage, cluster: str) -> PerImage:
    return run.with_clusters([cluster_of_name(name, cluster) for name in run.names])


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
