"""Where scalars and pictures go: log.jsonl, picture files, and wandb if asked for."""

from __future__ import annotations

import json
import logging
import math
import netrc
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hrseg.config import Config
from hrseg.errors import HrsegError

log = logging.getLogger(__name__)


class Tracker:
    """Writes one run's records and pictures into its folder, and to wandb where `track.wandb` says so.

    start_step, validated: records of training after the one, of validation after the other step are cut from an
    existing log.jsonl, so that a resumed run's log has no doubles.
    """

    def __init__(self, folder: Path, config: Config, *, start_step: int = 0, validated: int | None = None):
        self.folder = folder
        self._path = folder / "log.jsonl"
        _cut_log(self._path, start_step, start_step if validated is None else validated)
        self._file = self._path.open("a", encoding="utf-8")
        self._wandb = _start_wandb(folder, config) if config.track.wandb != "disabled" else None

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record, {step, epoch, kind, ...}; what is not finite becomes null."""
        plain = {key: _plain(value) for key, value in record.items()}
        self._file.write(json.dumps(plain) + "\n")
        self._file.flush()
        if self._wandb:
            kind = record["kind"]
            scalars = {f"{kind}/{k}": v for k, v in plain.items() if isinstance(v, int | float) and k != "step"}
            self._wandb.log(scalars, step=record["step"])

    def sync(self) -> None:
        """Bring log.jsonl to the disk: a checkpoint must not survive a crash of the machine that its records do not."""
        os.fsync(self._file.fileno())

    def picture(self, name: str, image: np.ndarray, step: int) -> Path:
        """Save an RGB picture, uint8 [H, W, 3], as images/<name>.png."""
        path = self.folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        if self._wandb:
            import wandb

            self._wandb.log({f"pictures/{name.partition('/')[0]}": wandb.Image(image, caption=name)}, step=step)
        return path

    def class_table(self, classes: list[dict[str, Any]], step: int) -> None:
        """The scores of each class, as in metrics.json, as a wandb table."""
        if self._wandb and classes:
            import wandb

            rows = [list(row.values()) for row in classes]
            self._wandb.log({"val/classes": wandb.Table(columns=list(classes[0]), data=rows)}, step=step)

    def close(self) -> None:
        self._file.close()
        if self._wandb:
            self._wandb.finish()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NoTracker:
    """Stands in for a Tracker on all processes but the first."""

    def log(self, record: Mapping[str, Any]) -> None: ...

    def sync(self) -> None: ...

    def picture(self, name: str, image: np.ndarray, step: int) -> None: ...

    def class_table(self, classes: list[dict[str, Any]], step: int) -> None: ...

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
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        temporary.replace(path)


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


def _start_wandb(folder: Path, config: Config) -> Any:
    import wandb

    mode = config.track.wandb
    if mode == "online" and not _has_wandb_key() and not sys.stdin.isatty():
        log.warning(
            "track.wandb: online, but no key is set (WANDB_API_KEY or `wandb login`): this run is kept offline."
        )
        mode = "offline"
    run_id_file = folder / "wandb_id"
    run_id = run_id_file.read_text().strip() if run_id_file.exists() else secrets.token_hex(4)
    run_id_file.write_text(run_id)
    try:
        return wandb.init(
            id=run_id,
            resume="allow",
            mode=mode,
            project=config.track.project,
            entity=config.track.entity,
            name=config.track.name or folder.name,
            tags=config.track.tags or None,
            dir=str(folder),
            config=config.to_plain(),
            settings=wandb.Settings(silent=True),
        )
    except Exception as error:  # a wrong key, a project that is not there, no network, a settings error: all its own
        what = f"wandb does not start: {(str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')}."
        raise HrsegError("track.wandb", what, "Mend it, or keep the run here: track.wandb=offline.") from error
