"""The network as users typically write it: timm's HRNet, features upsampled, concatenated, mixed and classified."""

from __future__ import annotations

import copy
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hrseg
from hrseg.models.hrnetv2 import REFERENCE_NAMES

CLASSES = 19


class Head(nn.Sequential):
    """Features at 1/4 to 1/32 to logits at 1/4. The names are those of the published checkpoints' last layer."""

    def __init__(self, channels: list[int]):
        width = sum(channels)
        super().__init__(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, CLASSES, 1))

    def forward(self, *features: Tensor) -> Tensor:
        size = features[0].shape[-2:]
        resized = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in features[1:])
        return super().forward(torch.cat([features[0], *resized], 1))


class Textbook(nn.Module):
    """timm's HRNet under `Head`: [N, 3, H, W] to logits of that size; H and W divide by 32."""

    def __init__(self, variant: str):
        super().__init__()
        name = {"w18_small_v1": "w18_small"}.get(variant, variant)
        self.backbone = timm.create_model(f"hrnet_{name}", features_only=True, feature_location="")
        info: Any = self.backbone.feature_info
        self.head = Head(info.channels()[-4:])

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(*self.backbone(x)[-4:])
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)


def pair(variant: str) -> tuple[Textbook, hrseg.HRNetV2]:
    """The textbook network and hrseg's with the same weights, chosen so that features keep their magnitude."""
    torch.manual_seed(0)
    theirs, ours = Textbook(variant), hrseg.HRNetV2(f"hrnetv2_{variant}_nearest", classes=CLASSES)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    ours.encoder.load_state_dict(theirs.backbone.state_dict())
    head = {f"last_layer.{name}": tensor for name, tensor in theirs.head.state_dict().items()}
    renamed = {
        mine + k.removeprefix(his): t for his, mine in REFERENCE_NAMES for k, t in head.items() if k.startswith(his)
    }
    missing = ours.load_state_dict(renamed, strict=False).missing_keys
    assert all(name.startswith("encoder.") for name in missing)
    return theirs, ours


def macs(model: nn.Module, *inputs: Tensor) -> float:
    """Multiply-adds of all convolutions and matrix products in a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).to("meta")(*(x.to("meta") for x in inputs))
    return counter.get_total_flops() / 2


def difference(a: Tensor, b: Tensor, tolerance: float) -> str:
    """The largest difference as a share of the largest value. Raises AssertionError above the tolerance."""
    share = float((a - b).abs().max() / b.abs().max())
    assert share <= tolerance, f"{share:.1e} of the maximum"
    return f"{share:.0e} of the maximum"
