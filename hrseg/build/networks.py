"""The `model` and `loss` sections become a network and its loss; the `run` section becomes a device.

Networks and losses are imported where they are made: torch, smp and timm take seconds.
"""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING, Any

from hrseg.build.pieces import piece
from hrseg.config import Config, LossConfig, ModelConfig, RunConfig, check_options
from hrseg.errors import ConfigError, WeightsError, first_line, nearest
from hrseg.task import LabelSpace, Task

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hrseg.losses import CombinedLoss


def model(config: Config, space: LabelSpace, channels: int, *, pretrained: bool = True) -> nn.Module:
    """The network of the `model` section with one output channel per class.

    pretrained: False leaves `encoder_weights` out, for a model whose weights come from a checkpoint.
    Raises ConfigError for unknown names and options, WeightsError when published weights cannot be had.
    """
    from hrseg.models.encoder import extra_channels
    from hrseg.models.hrnet import initialize, set_bn_momentum

    settings = config.model
    cls, options = model_class(config)
    if pretrained and settings.encoder_weights:
        log.info(f"{settings.encoder_weights} weights of {settings.encoder}: from the local cache, or downloaded once")
    try:
        with extra_channels(settings.extra_channels):
            network = cls(
                encoder_name=settings.encoder,
                encoder_weights=settings.encoder_weights if pretrained else None,
                in_channels=channels,
                classes=space.outputs,
                **options,
            )
    except OSError as error:  # huggingface_hub's and urllib's network errors are OSErrors
        raise WeightsError(
            f"model.encoder_weights: {settings.encoder_weights}",
            f"cannot be downloaded for {settings.encoder}: {first_line(error)}.",
            "Fill the Hugging Face cache on a machine with a network, or train from random weights: "
            "model.encoder_weights=null.",
        ) from error
    except (ValueError, NotImplementedError, TypeError) as error:
        raise ConfigError(f"model: {settings.arch} over {settings.encoder}", str(error)) from error
    initialize(network, settings.init, pretrained_encoder=settings.encoder_weights is not None)
    if settings.bn_momentum is not None:
        set_bn_momentum(network, settings.bn_momentum)
    return network


def model_class(config: Config) -> tuple[Any, dict[str, Any]]:
    """The architecture of the `model` section and its options. Raises ConfigError for unknown names and options."""
    from hrseg import models

    settings = config.model
    cls = piece(settings.arch, models.ARCHITECTURES, where="model.arch", what="architecture")
    _check_encoder(settings.encoder, settings.encoder_weights)
    wired = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params")
    options = check_options(cls, settings.options, where="model", wired=wired, also=type(settings).model_fields)
    return cls, options


def _timm_like(name: str) -> list[str]:
    import timm

    return difflib.get_close_matches(name, timm.list_models(), n=5)


def _check_encoder(name: str, weights: str | None) -> None:
    import segmentation_models_pytorch as smp
    import timm

    if name.startswith("tu-"):
        plain = name.removeprefix("tu-").partition(".")[0]
        if not timm.is_model(plain):
            raise ConfigError("model.encoder", f"timm has no model '{plain}'.", nearest(plain, _timm_like(plain)))
        return
    if name not in smp.encoders.encoders:
        raise ConfigError("model.encoder", f"no encoder '{name}'.", nearest(name, smp.encoders.encoders))
    published = smp.encoders.encoders[name]["pretrained_settings"]
    if weights is not None and weights not in published:
        raise ConfigError("model.encoder_weights", f"{name} has no '{weights}'.", nearest(weights, published))


def criterion(config: Config, space: LabelSpace) -> CombinedLoss:
    """The sum of the terms of the `loss` section."""
    from hrseg.losses import CombinedLoss, make_term

    usual = "cross_entropy" if space.task is Task.MULTICLASS else "bce"
    terms = []
    for number, term in enumerate(config.loss or [LossConfig(name=usual)]):
        where = f"loss.{number}"
        try:
            terms.append((term.name, make_term(term.name, space, term.options), term.weight, term.output))
        except ConfigError as error:
            raise ConfigError(f"{where}.{error.where.removeprefix('loss.')}", error.what, error.way_out) from None
    return CombinedLoss(terms)


def device(config: RunConfig) -> torch.device:
    """The device of the `run` section, with this process set up for it."""
    from hrseg import runtime

    return runtime.set_up(config.device, threads=config.threads, deterministic=config.deterministic)


def syncs_batch_norm(config: ModelConfig, device: torch.device) -> bool:
    """Whether batch norm counts the images of all processes."""
    from hrseg import distributed

    return config.sync_bn and distributed.world_size() > 1 and device.type == "cuda"


def convert_sync_bn(network: nn.Module, config: ModelConfig, device: torch.device) -> nn.Module:
    """Batch norm over all processes, on CUDA with several of them; elsewhere plain batch norm."""
    from torch import nn

    if syncs_batch_norm(config, device):
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network
