"""Records and pictures of a run: log.jsonl and picture files; wandb and TensorBoard if asked for."""

from __future__ import annotations

import json
import logging
import math
import netrc
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from hrseg.config.yaml_files import yaml_text
from hrseg.errors import ConfigError, HrsegError, first_line
from hrseg.files import write_text
from hrseg.task import LabelSpace, Task

log = logging.getLogger(__name__)


class Example(NamedTuple):
    """A validation image. panel, image: uint8 RGB [H, W, 3]; target, prediction: class indices of the image's size.

    panel is what goes to a file: image, ground truth, prediction and error side by side. name: safe in a file's name.
    """

    name: str
    panel: np.ndarray
    image: np.ndarray
    target: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class WandbOptions:
    """Where and how a run goes to Weights & Biases. upload_best: upload the best checkpoint at the end of the run."""

    mode: Literal["online", "offline"]
    project: str
    entity: str | None = None  # a user or team; None: wandb's default
    name: str | None = None
    tags: tuple[str, ...] = ()
    upload_best: bool = False


class Tracker:
    """Writes one run's records and pictures into its folder, and to wandb and TensorBoard if asked to.

    settings: the run's, as plain types; they are shown by wandb and TensorBoard. start_step, validated: training
    records after start_step and validation records after validated are cut from an existing log.jsonl, so that the log
    of a resumed run has no duplicates.
    Raises ConfigError where TensorBoard is not installed, HrsegError where wandb does not start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, Any],
        tensorboard: bool = False,
        wandb: WandbOptions | None = None,
        start_step: int = 0,
        validated: int | None = None,
    ):
        self.folder = folder
        self._others: list[Wandb | TensorBoard] = []
        if tensorboard:
            self._others.append(TensorBoard(folder, settings, start_step))
        if wandb is not None:
            self._others.append(Wandb(folder, settings, wandb))
        self._path = folder / "log.jsonl"
        _cut_log(self._path, start_step, start_step if validated is None else validated)
        self._file = self._path.open("a", encoding="utf-8")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record, {step, epoch, kind, ...}; values that are not finite become null."""
        plain = {key: _plain(value) for key, value in record.items()}
        self._file.write(json.dumps(plain) + "\n")
        self._file.flush()
        scalars = {f"{record['kind']}/{k}": v for k, v in plain.items() if isinstance(v, int | float) and k != "step"}
        for other in self._others:
            other.scalars(scalars, record["step"])

    def sync(self) -> None:
        """Flush log.jsonl to the disk: no checkpoint may outlive a crash that its records do not."""
        os.fsync(self._file.fileno())

    def picture(self, name: str, image: np.ndarray, step: int) -> Path:
        """Save an RGB picture, uint8 [H, W, 3], as images/<name>.png."""
        for other in self._others:
            other.picture(name, image, step)
        return self._save(name, image)

    def examples(self, examples: Sequence[Example], space: LabelSpace, step: int) -> None:
        """Save the panels of validation images as images/val/<name>.png; wandb gets the images with their masks."""
        for example in examples:
            self._save(f"val/{example.name}", example.panel)
        for other in self._others:
            other.examples(examples, space, step)

    def _save(self, name: str, image: np.ndarray) -> Path:
        path = self.folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        return path

    def class_table(self, classes: list[dict[str, Any]], step: int) -> None:
        """The scores of each class, as in metrics.json."""
        for other in self._others:
            other.class_table(classes, step)

    def finished(self, checkpoint: Path, best: Mapping[str, Any]) -> None:
        """Report that the run is complete. checkpoint: its best one. best: the mIoU and step of that."""
        for other in self._others:
            other.finished(checkpoint, best)

    def close(self) -> None:
        self._file.close()
        for other in self._others:
            other.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Wandb:
    """A run of Weights & Biases. Its id is kept in the run folder, so that a resumed run continues the same one.

    The axis of all its charts is the iteration: wandb's own counter must not go back, and after a crash a run does.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], options: WandbOptions):
        self._upload = options.upload_best
        self._run = _start_wandb(folder, settings, options)
        self._run.define_metric("iteration", hidden=True)
        self._run.define_metric("*", step_metric="iteration")
        self._run.define_metric("val/miou", step_metric="iteration", summary="max")

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log({**values, "iteration": step})

    def scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._log(scalars, step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        self._log({f"pictures/{name.partition('/')[0]}": wandb().Image(image, caption=name)}, step)

    def examples(self, examples: Sequence[Example], space: LabelSpace, step: int) -> None:
        drawn = [wandb().Image(e.image, caption=e.name, masks=_masks(e, space)) for e in examples]
        if drawn:
            self._log({"pictures/val": drawn}, step)

    def class_table(self, classes: list[dict[str, Any]], step: int) -> None:
        rows = [list(row.values()) for row in classes]
        self._log({"val/classes": wandb().Table(columns=list(classes[0]), data=rows)}, step)

    def finished(self, checkpoint: Path, best: Mapping[str, Any]) -> None:
        if self._upload and checkpoint.exists():
            artifact = wandb().Artifact(f"model-{self._run.id}", type="model", metadata=dict(best))
            artifact.add_file(str(checkpoint))
            self._run.log_artifact(artifact, aliases=["best"])

    def close(self) -> None:
        self._run.finish()


def wandb() -> Any:
    """The library, imported when it is used: it is slow."""
    import wandb

    return wandb


def _masks(example: Example, space: LabelSpace) -> dict[str, dict[str, Any]]:
    """Ground truth and prediction in the form that wandb overlays on an image; for multilabel one mask per label."""
    maps = {"ground truth": example.target, "prediction": example.prediction}
    if space.task is Task.MULTILABEL:
        return {
            f"{kind}: {label}": {"mask_data": labels[index], "class_labels": {0: "no", 1: label}}
            for kind, labels in maps.items()
            for index, label in enumerate(space.names)
        }
    names = {**dict(enumerate(space.names)), space.ignore_index: "not counted"}
    return {kind: {"mask_data": labels, "class_labels": names} for kind, labels in maps.items()}


class TensorBoard:
    """Event files in <run folder>/tensorboard, by torch's own writer; steps that a resumed run repeats are dropped."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], start_step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            way_out = "Install it: pip install tensorboard."
            raise ConfigError("track.tensorboard", "needs the package tensorboard.", way_out) from None
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=start_step + 1 if start_step else None)
        if not start_step:
            self._writer.add_text("config", "".join(f"    {line}\n" for line in yaml_text(settings).splitlines()), 0)

    def scalars(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def examples(self, examples: Sequence[Example], space: LabelSpace, step: int) -> None:
        for example in examples:
            self.picture(f"val/{example.name}", example.panel, step)

    def class_table(self, classes: list[dict[str, Any]], step: int) -> None:
        for row in classes:
            if row["iou"] is not None:
                self._writer.add_scalar(f"iou/{row['name']}", row["iou"], step)
        self._writer.flush()

    def finished(self, checkpoint: Path, best: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        self._writer.close()


class NoTracker:
    """Replaces a Tracker in all processes but the first."""

    def log(self, record: Mapping[str, Any]) -> None: ...

    def sync(self) -> None: ...

    def picture(self, name: str, image: np.ndarray, step: int) -> None: ...

    def examples(self, examples: Sequence[Example], space: LabelSpace, step: int) -> None: ...

    def class_table(self, classes: list[dict[str, Any]], step: int) -> None: ...

    def finished(self, checkpoint: Path, best: Mapping[str, Any]) -> None: ...

    def __enter__(self) -> NoTracker:
        return self

    def __exit__(self, *_: object) -> None: ...


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl; a last line cut short by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _cut_log(path: Path, step: int, validated: int) -> None:
    if path.exists():
        kept = [r for r in read_log(path) if r["step"] <= (validated if r["kind"] == "val" else step)]
        write_text(path, "".join(json.dumps(r) + "\n" for r in kept))


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _start_wandb(folder: Path, settings: Mapping[str, Any], wanted: WandbOptions) -> Any:
    """Start or continue wandb's run for a run folder.

    A new run that wandb refuses is an error, but a resumed one is kept offline instead: a restart at night must not end
    because a server cannot be reached.
    """
    mode = wanted.mode
    if mode == "online" and not _has_wandb_key() and not sys.stdin.isatty():
        log.warning(
            "track.wandb: online, but no key is set (WANDB_API_KEY or `wandb login`): this run is kept offline."
        )
        mode = "offline"
    id_file = folder / "wandb_id"
    known = id_file.read_text().strip() if id_file.exists() else None
    run_id = known or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)  # an agent of a sweep sets the variable
    options = {
        "id": run_id,
        "resume": "allow",
        "project": wanted.project,
        "entity": wanted.entity,
        "name": wanted.name,
        "tags": list(wanted.tags) or None,
        "dir": str(folder),
        "config": dict(settings),
        "settings": wandb().Settings(silent=True),
    }
    try:
        try:
            run = wandb().init(mode=mode, **options)
        except Exception as error:
            if known is None or mode == "offline":
                raise
            log.warning(f"{_why(error)} This run goes on offline; `wandb sync {folder}/wandb/offline-run-*` sends it.")
            run = wandb().init(mode="offline", **options)
    except Exception as error:  # a wrong key, a project that is not there, no network, a settings error: all its own
        way_out = "Fix it, or keep the run on this machine: track.wandb=offline."
        raise HrsegError("track.wandb", _why(error), way_out) from error
    id_file.write_text(run_id)
    return run


def _why(error: Exception) -> str:
    return f"wandb does not start: {first_line(error)}."
