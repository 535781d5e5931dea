"""The network as users typically write it: timm's HRNet, features upsampled, concatenated, mixed and classified."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 19


class Head(nn.Sequential):
    """Features at 1/4 to 1/32 to logits at 1/4. The names are those of the published checkpoints' last layer."""

    def __init__(self, channels: list[int], classes: int = CLASSES):
        width = sum(channels)
        super().__init__(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, classes, 1))

    def forward(self, *features: Tensor) -> Tensor:
        size = features[0].shape[-2:]
        resized = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in features[1:])
        return super().forward(torch.cat([features[0], *resized], 1))


class Textbook(nn.Module):
    """timm's HRNet under `Head`: [N, 3, H, W] to logits of that size; H and W divide by 32."""

    def __init__(self, variant: str, classes: int = CLASSES):
        super().__init__()
        name = {"w18_small_v1": "w18_small"}.get(variant, variant)
        self.backbone = timm.create_model(f"hrnet_{name}", features_only=True, feature_location="")
        info: Any = self.backbone.feature_info
        self.head = Head(info.channels()[-4:], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(*self.backbone(x)[-4:])
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)
