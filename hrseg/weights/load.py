"""A file's tensors into a model: all of the encoder, or a refusal that says what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from hrseg.errors import WeightsError


@dataclass(frozen=True)
class Report:
    """What became of each tensor of a file, by name."""

    source: str
    matched: list[str]
    missing: list[str] = field(default_factory=list)  # in the model, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the model
    wrong_shape: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.wrong_shape)
        parts = [f"{len(self.matched)} of {total} tensors from {self.source}"]
        for name in ("missing", "unexpected", "wrong_shape"):
            keys = getattr(self, name)
            if keys:
                parts.append(f"{name.replace('_', ' ')}: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}")
        return "; ".join(parts)


def load(model: nn.Module, path: str | Path) -> Report:
    """Copy a checkpoint's weights into a model, for training on from them.

    path: a checkpoint of hrseg (its running average where it has one), a state dict, or safetensors. The whole encoder
    must fit; a head of other classes keeps its start values, and the report names it. Raises WeightsError otherwise.
    """
    found = read(path)
    own = model.state_dict()
    matched = [k for k in own if k in found and found[k].shape == own[k].shape]
    wrong_shape = [k for k in own if k in found and found[k].shape != own[k].shape]
    missing = [k for k in own if k not in found]
    report = Report(str(path), matched, missing, [k for k in found if k not in own], wrong_shape)
    lost = [k for k in missing + wrong_shape if k.startswith("encoder.")]
    if lost or not matched:
        raise WeightsError(path, f"does not fit the model: {report}.", "Choose the encoder that these weights are of.")
    model.load_state_dict({k: found.get(k, own[k]) if k in matched else own[k] for k in own})
    return report


def read(path: str | Path) -> dict[str, Tensor]:
    """A file's tensors by name; nothing in the file is executed. Raises WeightsError if it holds anything else."""
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(path, "no such file.", "Give the path of a checkpoint.") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(path, f"holds more than tensors and plain types: {reason}") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise WeightsError(path, f"cannot be read, it may be cut short: {str(error).splitlines()[0]}") from None
    tensors = _state_dict(content)
    if not tensors:
        raise WeightsError(path, "holds no tensors by name.", "Is it a checkpoint?")
    return tensors


def _state_dict(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for key in ("ema", "model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            return _state_dict(content[key])
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
