"""A model's weights in the names of another project, so that its own code computes what hrseg computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from hrseg.errors import WeightsError, nearest
from hrseg.models.hrnet import HRNet
from hrseg.weights.families import ALIASES, BIAS_BEFORE_NORM, FAMILIES, Family
from hrseg.weights.load import ARCHITECTURES, ENCODER
from hrseg.weights.source import METADATA_KEY

SAVED = tuple(name for name, family in FAMILIES.items() if family.saved and name != "hrseg")


def save(model: nn.Module, path: str | Path, family: str, *, encoder_only: bool = False) -> list[Path]:
    """Write a model's weights for a family's own code, with equal outputs there; returns the files.

    A path that ends in .safetensors holds the tensors alone, any other the file that the family's code writes. CSAIL's
    encoder and decoder go to two files, encoder_<name> and decoder_<name>. encoder_only: leave the head out.
    Raises WeightsError where the family has no such head, or its network is another function.
    """
    name = ALIASES.get(family, family)
    if name not in SAVED:
        raise WeightsError(path, f"nothing is written for the family '{family}'.", nearest(name, SAVED))
    target = FAMILIES[name]
    bare = isinstance(model, HRNet)
    state = {f"{ENCODER}{key}" if bare else key: tensor.detach() for key, tensor in model.state_dict().items()}
    architecture = "encoder"
    if not bare and not encoder_only:
        architecture = next((a for a, cls in ARCHITECTURES.items() if type(model) is cls), type(model).__name__)
        if architecture not in target.heads:
            raise WeightsError(
                path,
                f"the family {name} has no {architecture} head.",
                f"It has {', '.join(target.heads)}; or save the encoder alone, with encoder_only.",
            )
    _check_function(model, target, path)
    if encoder_only:
        state = {key: tensor for key, tensor in state.items() if key.startswith(ENCODER)}
    if target.no_bias and name != "imagenet":
        state = _without_bias(state, architecture)
    tensors = _renamed(state, target, architecture)
    path = Path(path)
    if name == "csail" and architecture == "c1":
        head = tuple(there for there, _ in target.heads["c1"])
        parts = {
            "encoder": {k: t for k, t in tensors.items() if not k.startswith(head)},
            "decoder": {k: t for k, t in tensors.items() if k.startswith(head)},
        }
        return [write(path.with_name(f"{part}_{path.name}"), kept, target) for part, kept in parts.items()]
    return [write(path, tensors, target)]


def write(path: Path, tensors: dict[str, Tensor], family: Family) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, {})
    else:
        torch.save(family.wrap({family.wrapper + key: tensor for key, tensor in tensors.items()}), path)
    return path


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], beside: Mapping[str, Any]) -> None:
    """Tensors, and what lies beside them as JSON in the file's metadata."""
    # Where pose and segmentation share a tensor, safetensors asks for copies.
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    metadata = {"format": "pt"} | ({METADATA_KEY: json.dumps(beside)} if beside else {})
    safetensors.torch.save_file(contiguous, path, metadata=metadata)


def _renamed(state: Mapping[str, Tensor], family: Family, architecture: str) -> dict[str, Tensor]:
    table = sorted(family.names(architecture), key=lambda row: -len(row[1]))
    result = {}
    for key, tensor in state.items():
        there, here = next((row for row in table if key.startswith(row[1])))
        result[there + key.removeprefix(here)] = tensor
    return result


def _without_bias(state: dict[str, Tensor], architecture: str) -> dict[str, Tensor]:
    result = dict(state)
    for bias, mean in BIAS_BEFORE_NORM.get(architecture, ()):
        result[mean] = result[mean] - result.pop(bias)
    return result


def _check_function(model: nn.Module, family: Family, path: str | Path) -> None:
    """The family's code must fuse as the model does."""
    encoder = model if isinstance(model, HRNet) else getattr(model, "encoder", None)
    fusion = getattr(encoder, "fusion", None)
    if fusion is None:
        raise WeightsError(path, "the model's encoder is no HRNet.", f"{family.name} knows nothing else.")
    choosable = family.question != ""  # its code has a setting for it
    if fusion != family.fusion and not (choosable and fusion in ("bilinear", "bilinear_ac")):
        raise WeightsError(
            path,
            f"the model fuses by {fusion}, {family.name} by {family.fusion}: it would compute something else there.",
            f"Build it over the encoder whose fusion is {family.fusion}.",
        )
