"""Where a run goes on: the checkpoint that it is resumed from."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from hrseg import distributed
from hrseg.console import resume_command
from hrseg.errors import HrsegError, WeightsError
from hrseg.weights import checkpoint

log = logging.getLogger(__name__)


class ResumePoint(NamedTuple):
    """A checkpoint to go on from."""

    path: Path
    saved: dict[str, Any]


def find_resume_point(folder: Path, resume: str | None) -> ResumePoint | None:
    """The checkpoint to go on from; None to start afresh.

    resume: None refuses a folder that holds a run, but continues automatically under a restart by torchrun; "auto"
    takes the folder's latest checkpoint that is sound, and says so where that is not the last; else the path of one.
    Raises HrsegError where the processes of a run do not find the same.
    """
    checkpoints = folder / "checkpoints"
    saved_before = any((checkpoints / name).exists() for name in checkpoint.NAMES)
    holds_run = saved_before or (folder / "log.jsonl").exists()
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if restarted and (resume is None or saved_before):
        resume = "auto"
    if resume is None and holds_run:
        way_out = f"Continue it with --resume: {resume_command()}; or set run.dir to a new folder."
        raise HrsegError(folder, "already contains a run.", way_out)
    point = None
    if resume == "auto":
        point = latest_checkpoint(checkpoints)
    elif resume is not None:
        path = Path(resume)
        if holds_run and not restarted and path.resolve().parent != checkpoints.resolve():
            what = f"already contains a run, and {path} is not part of it."
            raise HrsegError(folder, what, "Set run.dir to a new folder, or continue the run that is here: --resume.")
        point = ResumePoint(path, checkpoint.load(path))
    found = distributed.gather(None if point is None else (point.path.name, point.saved["step"]))
    if found != found[:1] * len(found):
        places = ", ".join("none" if f is None else f"{f[0]} of iteration {f[1]}" for f in found)
        what = f"the processes find different checkpoints here: {places}."
        raise HrsegError(checkpoints, what, "The run folder must be on a file system that all machines share.")
    return point


def latest_checkpoint(checkpoints: Path) -> ResumePoint | None:
    """The sound checkpoint of the latest iteration in a run's folder; None where there is none at all.

    Raises WeightsError if all are damaged.
    """
    last, *older = (checkpoints / name for name in checkpoint.NAMES)
    problems: list[WeightsError] = []
    found = _read([last], problems) or _read(older, problems)
    if not found and problems:
        way_out = "No older checkpoint is sound: start a new run in another folder."
        raise WeightsError(problems[0].where, problems[0].what, way_out)
    if not found:
        return None
    point = max(found, key=lambda p: p.saved["step"])
    if problems and distributed.is_main():
        for problem in problems:
            log.warning("%s: %s", problem.where, problem.what)
        log.warning("Going on from the older %s, iteration %d.", point.path, point.saved["step"])
    return point


def sound_checkpoints(checkpoints: Path) -> list[ResumePoint]:
    """All checkpoints of a run's folder that can be read."""
    return _read([checkpoints / name for name in checkpoint.NAMES], [])


def _read(paths: list[Path], problems: list[WeightsError]) -> list[ResumePoint]:
    """The checkpoints that exist and are sound; what is wrong with the others is added to `problems`."""
    found = []
    for path in paths:
        if path.exists():
            try:
                found.append(ResumePoint(path, checkpoint.load(path)))
            except WeightsError as error:
                problems.append(error)
    return found
