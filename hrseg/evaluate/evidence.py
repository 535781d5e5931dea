"""The files of an evaluation: metrics.json and per_image.npz."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrseg.config import Config
from hrseg.errors import HrsegError
from hrseg.evaluate.evaluator import Evaluation
from hrseg.files import write_json
from hrseg.installed_packages import versions
from hrseg.weights.source import sha256


def write_evidence(
    folder: Path,
    evaluation: Evaluation,
    config: Config,
    split: str,
    checkpoint_path: Path | None,
    step: int | None = None,
    averaged_with: Sequence[tuple[Path, int]] = (),
) -> dict[str, Any]:
    """Write metrics.json and per_image.npz into a run folder and return the content of the first.

    checkpoint_path: None for predictions that came as files. averaged_with: path and step of the other checkpoints of
    an ensemble.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HrsegError(folder, f"cannot be made: {error.strerror}.", "Choose another folder by --out.") from error
    metrics = {
        **evaluation.scores.to_plain(),
        "split": split,
        "images": len(evaluation.per_image),
        "checkpoint": None if checkpoint_path is None else _identity(checkpoint_path, step),
        "averaged_with": [_identity(*other) for other in averaged_with] or None,
        "config": config.to_plain(),
        "versions": versions(),
        "command": shlex.join(sys.argv),
    }
    write_json(folder / "metrics.json", metrics)
    evaluation.per_image.save(folder / "per_image.npz")
    return metrics


def _identity(path: Path, step: int | None) -> dict[str, Any]:
    return {"path": str(path), "sha256": sha256(path), "step": step}
