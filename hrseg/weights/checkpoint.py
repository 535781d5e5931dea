"""Saved whole or not at all; resume; keep the best."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrseg.errors import HrsegError, WeightsError
from hrseg.weights.source import damage

FORMAT = 1
PREVIOUS = "previous.pt"
NAMES = ("last.pt", PREVIOUS, "best.pt")  # in a run's folder
KEYS = {"format", "model", "step", "config", "classes", "normalisation", "task"}


def save(path: Path, state: Mapping[str, Any], *, keep_previous: bool = False) -> None:
    """Write a checkpoint: to a temporary file, flushed, read back, then renamed; an older one stays until then.

    keep_previous: the older one stays beside it, as previous.pt, in case the new one is damaged later.
    Raises HrsegError if the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if found := damage(temporary):
            raise OSError(f"what is read back is not what was written ({found})")
        if keep_previous and path.exists():
            path.replace(path.with_name(PREVIOUS))
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer tells a full disk by RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        kept = " The older one is still there." if path.exists() else ""
        way_out = "Make room there, or give leave to write; then go on by --resume."
        raise HrsegError(path, f"the checkpoint cannot be written: {reason}.{kept}", way_out) from error


def _sync_folder(folder: Path) -> None:
    """Bring renames in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint of hrseg, on the CPU; tensors and plain types only, nothing in the file is executed.

    Raises WeightsError if it is missing, cut short, damaged, or not hrseg's.
    """
    try:
        if zipfile.is_zipfile(path) and (found := damage(path)):
            raise WeightsError(path, f"is damaged: {found}.", "Use an older one.")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(path, "no such file.", "Runs keep theirs in runs/<name>/checkpoints/.") from None
    except IsADirectoryError:
        raise WeightsError(path, "is a folder.", "Give the checkpoint in it: checkpoints/best.pt.") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(path, f"holds more than tensors and plain types: {_first_line(error)}.") from None
    except WeightsError:
        raise
    except Exception as error:  # torch's reader raises whatever comes up on a damaged file
        raise WeightsError(path, f"cannot be read, it may be cut short: {_first_line(error)}.") from None
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise WeightsError(path, "is not a checkpoint of hrseg.", "Start from other weights by model.weights.")
    require_readable(state, path)
    return state


def require_readable(state: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint of a format that is newer than this code."""
    version = state.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise WeightsError(path, f"has format {version}; this hrseg reads up to {FORMAT}.", "Update hrseg.")


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], where: object) -> None:
    """Load all weights, or raise WeightsError naming the first keys that do not fit."""
    own = model.state_dict()
    problems = [f"missing {k}" for k in own if k not in weights]
    problems += [f"unexpected {k}" for k in weights if k not in own]
    problems += [
        f"{k} is {tuple(weights[k].shape)}, the model's {tuple(own[k].shape)}"
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(where, f"does not fit the model: {'; '.join(problems[:3])}{more}.", "Use its own config.")
    model.load_state_dict(dict(weights))
