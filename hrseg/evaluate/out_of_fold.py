"""The runs of a k-fold split put together: every image counts once, by the model that was trained without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrseg.errors import DataError, HrsegError
from hrseg.files import write_json
from hrseg.metrics import PerImage, Scores

SHARED = ("dataset", "root", "task", "train_split", "folds")  # settings of data that are the same in all folds


def merge_folds(runs: Sequence[Path]) -> tuple[PerImage, dict[str, Any]]:
    """The evidence of all folds together, and the settings that they share.

    runs: the run folder of each fold. Raises DataError unless they are all folds of one division, each once.
    """
    parts: dict[int, tuple[Path, PerImage]] = {}  # by fold
    shared: dict[str, Any] | None = None
    for run in runs:
        config = _run_config(run)
        data = config["data"]
        if data.get("folds") is None:
            raise DataError(run, "is not a run of a fold.", "Train with data.folds=5 data.fold=0, and so on.")
        fold = data.get("fold", 0)
        own = {"data": {k: data[k] for k in SHARED}, "eval": config["eval"]}
        if shared is not None and own != shared:
            raise DataError(run, f"has other data or evaluation settings than {runs[0]}.", "Train all folds alike.")
        if fold in parts:
            raise DataError(run, f"is fold {fold}, as {parts[fold][0]} is.", "Give each fold once.")
        shared, parts[fold] = own, (run, PerImage.load(run / "per_image.npz"))
    if shared is None or len(parts) < shared["data"]["folds"]:
        missing = sorted(set(range(shared["data"]["folds"] if shared else 0)) - parts.keys())
        raise DataError("folds", f"{missing} of {shared and shared['data']['folds']} are missing.", "Give all runs.")
    in_order = [parts[fold][1] for fold in sorted(parts)]
    names = [name for part in in_order for name in part.names]
    if len(set(names)) < len(names):
        twin = next(name for name in names if names.count(name) > 1)
        raise DataError("folds", f"image {twin} is in two of them.", "Was the data changed between the runs?")
    return PerImage.chained(in_order), shared


def write_scores(
    folder: Path, per_image: PerImage, scores: Scores, shared: dict[str, Any], runs: Sequence[Path]
) -> Path:
    """Write metrics.json and per_image.npz of `merge_folds`; the path of the latter.

    Raises HrsegError where they cannot be written.
    """
    metrics = {
        **scores.to_plain(),
        "split": "out of fold",
        "images": len(per_image),
        "checkpoint": None,
        "config": shared,
        "runs": [str(run) for run in runs],
    }
    evidence = folder / "per_image.npz"
    try:
        write_json(folder / "metrics.json", metrics)
        per_image.save(evidence)
    except (OSError, HrsegError) as error:
        reason = error.what if isinstance(error, HrsegError) else f"cannot be written: {error.strerror}."
        raise HrsegError(folder, reason, "Choose another --out.") from error
    return evidence


def _run_config(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(run, "holds no metrics.json of a run.", "Give the run folder of each fold.") from error
