"""The command `tools/folds.py`: the runs of a k-fold split as one score in which every image counts once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrseg.console import command, counted, parser
from hrseg.errors import DataError, HrsegError
from hrseg.files import write_json
from hrseg.metrics import PerImage, table
from hrseg.metrics.summary import scores_of

SHARED = ("dataset", "root", "task", "train_split", "folds")  # settings of data that are one in all folds


def out_of_fold(runs: Sequence[Path]) -> tuple[PerImage, dict[str, Any]]:
    """The evidence of all folds together, and the settings that they share.

    runs: the run folder of each fold. Raises DataError unless they are all folds of one division, each once.
    """
    found: dict[int, tuple[Path, PerImage]] = {}
    shared: dict[str, Any] | None = None
    for run in runs:
        config = _config(run)
        data = config["data"]
        folds, fold = data.get("folds"), data.pop("fold", 0)
        if folds is None:
            raise DataError(run, "is no run of a fold.", "Train with data.folds=5 data.fold=0, and so on.")
        own = {
            "data": {k: data[k] for k in ("dataset", "root", "task", "train_split", "folds")},
            "eval": config["eval"],
        }
        if shared is not None and own != shared:
            raise DataError(run, f"has other data or evaluation settings than {runs[0]}.", "Train all folds alike.")
        if fold in found:
            raise DataError(run, f"is fold {fold}, as {found[fold][0]} is.", "Give each fold once.")
        shared, found[fold] = own, (run, PerImage.load(run / "per_image.npz"))
    if shared is None or len(found) < shared["data"]["folds"]:
        missing = sorted(set(range(shared["data"]["folds"] if shared else 0)) - found.keys())
        raise DataError("folds", f"{missing} of {shared and shared['data']['folds']} are missing.", "Give all runs.")
    parts = [part for _, part in (found[fold] for fold in sorted(found))]
    names = [name for part in parts for name in part.names]
    if len(set(names)) < len(names):
        twin = next(name for name in names if names.count(name) > 1)
        raise DataError("folds", f"image {twin} is in two of them.", "Was the data changed between the runs?")
    return PerImage.chained(parts), shared


def _config(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(run, "holds no metrics.json of a run.", "Give the run folder of each fold.") from error


@command
def main(argv: Sequence[str]) -> int:
    """tools/folds.py: add up what each fold's model found in the images that it did not see."""
    arguments = parser(
        "Score a k-fold split as a whole: every image once, by the model that was trained without it.",
        "examples:\n  tools/folds.py runs/mine_0 runs/mine_1 runs/mine_2 --out runs/mine",
    )
    arguments.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the run folder of each fold")
    arguments.add_argument("--out", type=Path, metavar="DIR", help="leave metrics.json and per_image.npz here")
    args = arguments.parse_args(argv)
    per_image, shared = out_of_fold(args.runs)
    found = scores_of(per_image)
    print(table(found))
    print(f"mIoU {found.miou:.4f} ({counted(len(per_image), 'image')}, each by a model that was trained without it)")
    if args.out:
        metrics = {**found.to_plain(), "split": "out of fold", "images": len(per_image), "checkpoint": None,
                   "config": shared, "runs": [str(run) for run in args.runs]}  # fmt: skip
        try:
            write_json(args.out / "metrics.json", metrics)
            per_image.save(args.out / "per_image.npz")
        except OSError as error:
            raise HrsegError(args.out, f"cannot be written: {error.strerror}.", "Choose another --out.") from error
        print(f"evidence: {args.out / 'per_image.npz'}")
    return 0
