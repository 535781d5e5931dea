"""hrseg's own checkpoints: written whole or not at all, and read without executing anything."""

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

from hrseg.errors import WeightsError, first_line
from hrseg.files import whole_file
from hrseg.weights.source import find_damage

FORMAT = 1
PREVIOUS = "previous.pt"
NAMES = ("last.pt", PREVIOUS, "best.pt")  # in a run's folder
KEYS = {"format", "model", "step", "config", "classes", "normalisation", "task"}


def save(path: Path, state: Mapping[str, Any], *, keep_previous: bool = False) -> None:
    """Write a checkpoint to a temporary file, flush it, read it back and rename it; an older one stays until then.

    keep_previous: the older one stays beside it as previous.pt, in case the new one is damaged later.
    Raises HrsegError if the disk is full or the folder cannot be written.
    """
    still_there = "The older one is still there. " if path.exists() else ""
    way_out = f"{still_there}Make room there, or allow writing; then continue with --resume."
    for leftover in path.parent.glob(".*.tmp.pt"):  # of a killed process; a run's lock keeps other writers out
        with contextlib.suppress(OSError):
            leftover.unlink()
    with whole_file(path, way_out=way_out) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save({"format": FORMAT, **state}, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # torch's zip writer reports a full disk by RuntimeError
            raise OSError(first_line(error)) from error
        if found := find_damage(temporary):
            raise OSError(f"what is read back is not what was written ({found})")
        if keep_previous and path.exists():
            path.replace(path.with_name(PREVIOUS))
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush renames in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of hrseg to the CPU; tensors and plain types only, nothing in the file is executed.

    Raises WeightsError if it is missing, truncated, damaged, or not from hrseg.
    """
    try:
        if zipfile.is_zipfile(path) and (found := find_damage(path)):
            raise WeightsError(path, f"is damaged: {found}.", "Use an older one.")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(path, "no such file.", "Runs keep theirs in runs/<name>/checkpoints/.") from None
    except IsADirectoryError:
        raise WeightsError(path, "is a folder.", "Give the checkpoint in it: checkpoints/best.pt.") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(path, f"holds more than tensors and plain types: {first_line(error)}.") from None
    except WeightsError:
        raise
    except Exception as error:  # torch's reader may raise anything on a damaged file
        raise WeightsError(path, f"cannot be read, it may be cut short: {first_line(error)}.") from None
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise WeightsError(path, "is not a checkpoint of hrseg.", "Start from other weights with model.weights.")
    require_readable(state, path)
    return state


def require_readable(state: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint of a format that is newer than this code."""
    version = state.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise WeightsError(path, f"has format {version}; this hrseg reads up to {FORMAT}.", "Update hrseg.")


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
