"""Models of segmentation_models_pytorch: what smp's own folder says of one, or what its tensors' names tell."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import nn

from hrseg import models
from hrseg.errors import WeightsError, nearest
from hrseg.models.hrnet import VARIANTS
from hrseg.task import Normalisation

# What a checkpoint says elsewhere, or what changes no tensor: logits are what hrseg's models return.
NOT_OPTIONS = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params")
HEAD = "segmentation_head."
CLASSIFICATION_HEAD = "classification_head."


class SmpModel(NamedTuple):
    """An architecture of `hrseg.models.ARCHITECTURES` over an encoder, with its options."""

    architecture: str
    encoder: str
    outputs: int
    in_channels: int = 3
    options: dict[str, Any] = {}

    def on_meta(self) -> nn.Module:
        """The model without values. Raises what smp raises where it cannot be built."""
        with torch.device("meta"):
            return models.ARCHITECTURES[self.architecture](
                encoder_name=self.encoder,
                encoder_weights=None,
                in_channels=self.in_channels,
                classes=self.outputs,
                **self.options,
            )


def from_smp_settings(settings: Mapping[str, Any], where: object) -> SmpModel:
    """The model that smp's `save_pretrained` describes in config.json. Raises WeightsError where smp has no such."""
    by_class = {cls.__name__: name for name, cls in models.ARCHITECTURES.items()}
    named = str(settings.get("_model_class"))
    if named not in by_class:
        raise WeightsError(where, f"config.json names the model {named}.", nearest(named, by_class))
    architecture = by_class[named]
    known = set(inspect.signature(models.ARCHITECTURES[architecture]).parameters) - {*NOT_OPTIONS}
    options = {name: value for name, value in settings.items() if name in known}
    try:
        encoder = str(settings["encoder_name"])
        return SmpModel(architecture, encoder, int(settings["classes"]), int(settings["in_channels"]), options)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            where, f"config.json lacks a setting of the model, or has one of another kind: {error!r}."
        ) from None


def from_shapes(shapes: Mapping[str, tuple[int, ...]], encoder: str) -> SmpModel | None:
    """The architecture of smp whose tensors, over an HRNet and with usual options, are exactly these; None: no such.

    shapes: of all tensors, by name. encoder: of hrseg; for tensors of timm's HRNet the one of that size is taken.
    """
    outputs = next((shape[0] for name, shape in reversed(list(shapes.items())) if name.startswith(HEAD)), 0)
    wanted = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    first = next((shape for name, shape in shapes.items() if name.endswith("conv1.weight") and len(shape) == 4), (0, 3))
    for candidate in _candidates(shapes, encoder, outputs, first[1]) if outputs else ():
        try:
            own = candidate.on_meta().state_dict()
        except (TypeError, ValueError, KeyError, NotImplementedError):  # smp: not over this encoder
            continue
        if {n: tuple(t.shape) for n, t in own.items() if not n.endswith("num_batches_tracked")} == wanted:
            return candidate
    return None


def _candidates(shapes: Mapping[str, Any], encoder: str, outputs: int, channels: int) -> Iterator[SmpModel]:
    encoders = [encoder]
    if any(name.startswith("encoder.model.") for name in shapes):
        variant = next((v for v in sorted(VARIANTS, key=len, reverse=True) if f"_{v}" in encoder), "w18")
        encoders = [f"tu-hrnet_{variant.removesuffix('_v1')}"]
    for name in encoders:
        for architecture in smp.MODEL_ARCHITECTURES_MAPPING:
            yield SmpModel(architecture, name, outputs, channels)


def usual_normalisation(model: SmpModel) -> Normalisation:
    """What images of a model are usually normalised by: its encoder's published mean and std; 0.5 beyond RGB."""
    channels = model.in_channels
    if channels != 3:
        return Normalisation((0.5,) * channels, (0.25,) * channels, ((0.0, 255.0),) * channels)
    published = smp.encoders.encoders.get(model.encoder, {}).get("pretrained_settings") or {}
    settings = published.get("imagenet") or next(iter(published.values()), None) or {}
    if "mean" not in settings or "std" not in settings:
        return Normalisation()
    return Normalisation(tuple(settings["mean"]), tuple(settings["std"]))
