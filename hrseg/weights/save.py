"""Saves a model's weights under another project's names, so that its code computes what hrseg computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from hrseg.errors import WeightsError, first_line, nearest
from hrseg.files import whole_file
from hrseg.models.hrnet import HRNet
from hrseg.weights.families import ALIASES, BIAS_BEFORE_NORM, FAMILIES, Family
from hrseg.weights.identify import ARCHITECTURES, IdentifiedCheckpoint, build_model, checkpoint_settings
from hrseg.weights.matching import ENCODER, hrnet_of
from hrseg.weights.source import METADATA_KEY

SAVED = tuple(name for name, family in FAMILIES.items() if family.saved and name != "hrseg")


def save(model: nn.Module, path: str | Path, family: str, *, encoder_only: bool = False) -> list[Path]:
    """Write a model's weights for a family's own code, with equal outputs there; returns the files.

    A path that ends in .safetensors gets the tensors only; any other path, a file such as the family's code writes.
    CSAIL's encoder and decoder go to two files, encoder_<name> and decoder_<name>. encoder_only: leave the head out.
    Raises WeightsError where the family has no such head, or its network computes something else.
    """
    name = ALIASES.get(family, family)
    if name not in SAVED:
        raise WeightsError(path, f"no files are written for the family '{family}'.", nearest(name, SAVED))
    target = FAMILIES[name]
    bare = isinstance(model, HRNet)
    state = {f"{ENCODER}{key}" if bare else key: tensor.detach() for key, tensor in model.state_dict().items()}
    architecture = "encoder"
    if not bare and not encoder_only:
        architecture = next((a for a, (cls, _) in ARCHITECTURES.items() if type(model) is cls), type(model).__name__)
        if architecture not in target.heads:
            raise WeightsError(
                path,
                f"the family {name} has no {architecture} head.",
                f"It has {', '.join(target.heads)}; or save the encoder alone, with encoder_only.",
            )
    _check_function(model, target, path)
    if encoder_only:
        state = {key: tensor for key, tensor in state.items() if key.startswith(ENCODER)}
    if target.bias == "never":
        state = _without_bias(state, architecture)
    tensors = _renamed(state, target, architecture)
    path = Path(path)
    if name == "csail" and architecture == "c1":
        head = tuple(there for there, _ in target.heads["c1"])
        parts = {
            "encoder": {k: t for k, t in tensors.items() if not k.startswith(head)},
            "decoder": {k: t for k, t in tensors.items() if k.startswith(head)},
        }
        return [write_family_file(path.with_name(f"{part}_{path.name}"), kept, target) for part, kept in parts.items()]
    return [write_family_file(path, tensors, target)]


def write_identified(
    identified: IdentifiedCheckpoint, out: Path, family: str = "hrseg", *, encoder_only: bool = False
) -> list[Path]:
    """Write an identified checkpoint for a family; returns the files, which are written whole or not at all."""
    if any(Path(source) == out for source in identified.source.split(" + ")):
        raise WeightsError(out, "is the source itself.", "Give another --out.")
    if family != "hrseg":
        return save(build_model(identified), out, family, encoder_only=encoder_only)
    beside = checkpoint_settings(identified)
    if out.suffix == ".safetensors":
        return [write_safetensors(out, identified.tensors, beside)]
    training = dict.fromkeys(("ema", "optimizer", "scaler", "rng", "best"))
    return [write_torch(out, {"model": identified.tensors, **training, "step": 0, "epoch": 0, **beside})]


def write_family_file(path: Path, tensors: Mapping[str, Tensor], family: Family) -> Path:
    """A family's file, or the tensors alone where the path ends in .safetensors; whole or not at all."""
    if path.suffix == ".safetensors":
        return write_safetensors(path, tensors, {})
    return write_torch(path, family.wrap({family.wrapper + key: tensor for key, tensor in tensors.items()}))


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], beside: Mapping[str, Any]) -> Path:
    """Write tensors, with what belongs to them as JSON in the file's metadata."""
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    metadata = {"format": "pt"} | ({METADATA_KEY: json.dumps(beside)} if beside else {})
    with whole_file(path) as temporary:
        try:
            safetensors.torch.save_file(contiguous, temporary, metadata=metadata)
        except safetensors.SafetensorError as error:
            raise OSError(first_line(error)) from error
        temporary.chmod(0o644)  # safetensors makes its files readable by their owner only
    return path


def write_torch(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a file of torch.save."""
    with whole_file(path) as temporary:
        try:
            torch.save(dict(content), temporary)
        except RuntimeError as error:  # torch's zip writer reports a full disk by RuntimeError
            raise OSError(first_line(error)) from error
        temporary.chmod(0o644)
    return path


def _renamed(state: Mapping[str, Tensor], family: Family, architecture: str) -> dict[str, Tensor]:
    table = sorted(family.names(architecture), key=lambda row: -len(row[1]))
    result = {}
    for key, tensor in state.items():
        there, here = next(row for row in table if key.startswith(row[1]))
        result[there + key.removeprefix(here)] = tensor
    return result


def _without_bias(state: dict[str, Tensor], architecture: str) -> dict[str, Tensor]:
    result = dict(state)
    for bias, mean in BIAS_BEFORE_NORM.get(architecture, ()):
        result[mean] = result[mean] - result.pop(bias)
    return result


def _check_function(model: nn.Module, family: Family, path: str | Path) -> None:
    """Refuse a model that fuses differently from the family's code."""
    fusion = getattr(hrnet_of(model), "fusion", None)
    if fusion is None:
        raise WeightsError(path, "the model's encoder is not an HRNet.", f"{family.name} has no other encoders.")
    if fusion not in family.fusions:
        raise WeightsError(
            path,
            f"the model fuses by {fusion}, {family.name} by {family.fusion}: its code would compute something else.",
            "Save for a family that fuses the same way.",
        )
