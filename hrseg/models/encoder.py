"""HRNet as encoders of segmentation_models_pytorch (smp): names, published weights, registration."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from hrseg.models.hrnet import VARIANTS, Attention, HRNet
from hrseg.models.psa import ParallelPSA, SequentialPSA
from hrseg.task import IMAGENET_MEAN, IMAGENET_STD

log = logging.getLogger(__name__)

# smp drops keyword arguments for registered encoders in silence, so fusion and attention are part of the name.
SUFFIXES: dict[str, dict[str, Any]] = {
    "": {"fusion": "bilinear"},
    "_nearest": {"fusion": "nearest"},
    "_ac": {"fusion": "bilinear_ac"},
    "_psa_p": {"fusion": "bilinear", "attention": ParallelPSA},
    "_psa_s": {"fusion": "bilinear", "attention": SequentialPSA},
}

# The name of a set in smp: its place on the Hugging Face hub, in timm's organisation. "imagenet" is timm's own default.
# ms: the authors' weights; aug: theirs with more augmentation; gluon: GluonCV's; ssld: distilled, from PaddleClas.
PUBLISHED: dict[str, dict[str, str]] = {
    "w18_small_v1": {
        "imagenet": "hrnet_w18_small.gluon_in1k",
        "imagenet-gluon": "hrnet_w18_small.gluon_in1k",
        "imagenet-ms": "hrnet_w18_small.ms_in1k",
    },
    "w18_small_v2": {
        "imagenet": "hrnet_w18_small_v2.gluon_in1k",
        "imagenet-gluon": "hrnet_w18_small_v2.gluon_in1k",
        "imagenet-ms": "hrnet_w18_small_v2.ms_in1k",
    },
    "w18": {
        "imagenet": "hrnet_w18.ms_aug_in1k",
        "imagenet-aug": "hrnet_w18.ms_aug_in1k",
        "imagenet-ms": "hrnet_w18.ms_in1k",
        "imagenet-ssld": "hrnet_w18_ssld.paddle_in1k",
    },
    "w30": {"imagenet": "hrnet_w30.ms_in1k", "imagenet-ms": "hrnet_w30.ms_in1k"},
    "w32": {"imagenet": "hrnet_w32.ms_in1k", "imagenet-ms": "hrnet_w32.ms_in1k"},
    "w40": {"imagenet": "hrnet_w40.ms_in1k", "imagenet-ms": "hrnet_w40.ms_in1k"},
    "w44": {"imagenet": "hrnet_w44.ms_in1k", "imagenet-ms": "hrnet_w44.ms_in1k"},
    "w48": {
        "imagenet": "hrnet_w48.ms_in1k",
        "imagenet-ms": "hrnet_w48.ms_in1k",
        "imagenet-ssld": "hrnet_w48_ssld.paddle_in1k",
    },
    "w64": {"imagenet": "hrnet_w64.ms_in1k", "imagenet-ms": "hrnet_w64.ms_in1k"},
}
# The sets of all variants were normalised alike. The revision is a branch: no commit of these repositories is recorded
# in timm or smp, which know them by name only. To pin one, replace it in smp.encoders.encoders[name].
PREPROCESSING = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "input_space": "RGB", "input_range": (0, 1)}
REVISION = "main"

ExtraChannels = Literal["tile", "zero"]
_extra_channels: ContextVar[ExtraChannels] = ContextVar("extra_channels", default="tile")


@contextmanager
def extra_channels(rule: ExtraChannels) -> Iterator[None]:
    """Encoders of this module that are built inside start their input channels beyond red, green and blue by `rule`.

    tile: smp's own, the weights of the three repeat and all are scaled by 3 / in_channels. zero: the three keep their
    weights and the others start at 0, so that at first the network computes what it computes on the three alone.
    """
    if rule not in ("tile", "zero"):
        raise ValueError(f"extra channels start by 'tile' or 'zero', not {rule!r}")
    token = _extra_channels.set(rule)
    try:
        yield
    finally:
        _extra_channels.reset(token)


class HRNetEncoder(HRNet, EncoderMixin):
    """Image [N, in_channels, H, W] to [image, 1/2 (64), 1/4 (C), 1/8 (2C), 1/16 (4C), 1/32 (8C)], the first depth + 1.

    output_stride: 8 or 16 enlarges the coarser features to 1/8 or 1/16 bilinearly. Streams that exchange what they know
    cannot be dilated, so this is how decoders that want dense features (DeepLabV3, PAN) get them.
    variant, fusion, attention: as in HRNet. Raises ValueError for a depth outside 1 to 5 or another output stride.
    """

    def __init__(
        self,
        variant: str,
        fusion: str = "bilinear",
        depth: int = 5,
        output_stride: int = 32,
        attention: Attention = nn.Identity,
    ):
        super().__init__(variant, fusion=fusion, depth=depth, attention=attention)
        self.fusion = fusion
        self._in_channels = 3
        self._out_channels = [3, *self.channels]
        self._depth = depth
        self.make_dilated(output_stride)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x] + self.features(x)  # noqa: RUF005 (TorchScript)
        for i in range(1, len(features)):
            if 2**i > self._output_stride:
                size = features[i - 1].shape[-2:]
                features[i] = F.interpolate(features[i], size=size, mode="bilinear", align_corners=False)
        return features

    def make_dilated(self, output_stride: int) -> None:
        """The name is smp's; nothing is dilated, the features are enlarged. Raises ValueError but for 8, 16 or 32."""
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, not {output_stride}")
        self._output_stride = output_stride

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Fit the first convolution to another number of channels, by smp's rule (1: the sum; n: repeated and scaled).

        Within `extra_channels("zero")`, channels beyond three start at 0.
        """
        rgb = self.conv1.weight.detach()
        super().set_in_channels(in_channels, pretrained)
        if in_channels > 3 and _extra_channels.get() == "zero":
            with torch.no_grad():
                self.conv1.weight.zero_()
                self.conv1.weight[:, :3] = rgb

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, for complete checkpoints too: heads, and what a lower depth does without, are passed over."""
        from_imagenet = any(key.startswith("incre_modules.") for key in state_dict)
        if from_imagenet and self.fusion != "nearest":
            log.info(
                "ImageNet weights, trained with nearest fusion, start a network that fuses by %s interpolation: "
                "this is the reference segmentation recipe. The encoder names that end in _nearest keep the function.",
                "bilinear" if self.fusion == "bilinear" else "bilinear align_corners",
            )
        attention = {key: tensor for key, tensor in self.state_dict().items() if ".deattn." in key}
        if attention and not any(".deattn." in key for key in state_dict):
            log.warning("Weights of an HRNet without attention: the attention starts from random values.")
            state_dict = {**state_dict, **attention}
        return super().load_state_dict(state_dict, strict, assign)


def encoder_entries() -> dict[str, dict[str, Any]]:
    """Every encoder by its name, as smp lists them."""
    entries = {}
    for variant in VARIANTS:
        published = {
            name: {"repo_id": f"timm/{repository}", "revision": REVISION, **PREPROCESSING}
            for name, repository in PUBLISHED[variant].items()
        }
        for suffix, options in SUFFIXES.items():
            entries[f"hrnetv2_{variant}{suffix}"] = {
                "encoder": HRNetEncoder,
                "pretrained_settings": published,
                "params": {"variant": variant, **options},
            }
    return entries


_smp_get_preprocessing_params = smp.encoders.get_preprocessing_params


@functools.wraps(_smp_get_preprocessing_params)
def get_preprocessing_params(encoder_name: str, pretrained: str = "imagenet") -> dict[str, Any]:
    # smp reads mean and std at the top of the hub's config.json, where timm's repositories do not have them. Encoders
    # that carry them in their settings are answered from there, without the hub; all others by smp.
    settings = smp.encoders.encoders.get(encoder_name, {}).get("pretrained_settings", {}).get(pretrained, {})
    if not PREPROCESSING.keys() <= settings.keys():
        return _smp_get_preprocessing_params(encoder_name, pretrained)
    return {key: list(settings[key]) if key != "input_space" else settings[key] for key in PREPROCESSING}


def is_same_class(a: type, b: type) -> bool:
    """Whether two classes are one, also where a module was loaded twice."""
    return (a.__module__, a.__qualname__) == (b.__module__, b.__qualname__)


def register() -> None:
    """Add the encoders to smp; twice is harmless.

    Raises RuntimeError where smp has another encoder of one of the names.
    """
    known = smp.encoders.encoders
    entries = encoder_entries()
    for name, entry in entries.items():
        if name in known and not is_same_class(known[name]["encoder"], entry["encoder"]):
            other = known[name]["encoder"]
            raise RuntimeError(
                f"smp already has an encoder '{name}', from {other.__module__}.{other.__qualname__}: "
                f"hrseg cannot register its own. Remove one: del smp.encoders.encoders['{name}']."
            )
    known.update(entries)
    smp.encoders.get_preprocessing_params = get_preprocessing_params
