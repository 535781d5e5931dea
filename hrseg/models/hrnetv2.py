"""HRNetV2: every scale of an encoder resized to the finest, concatenated, mixed by a 1x1 convolution, classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from segmentation_models_pytorch.base.hub_mixin import supports_config_loading
from segmentation_models_pytorch.base.modules import Activation
from torch import Tensor, nn

from hrseg.models.four_scale_model import FourScaleModel

# The head's parameters in the reference checkpoints, and here.
REFERENCE_NAMES = (
    ("last_layer.0.", "decoder.conv."),
    ("last_layer.1.", "decoder.bn."),
    ("last_layer.3.", "segmentation_head.conv."),
)


class HRNetV2Decoder(nn.Module):
    """Features [N, C_i, H / 2^i, W / 2^i], i = 2 to 5, to [N, sum C_i, H / 4, W / 4]: resized, concatenated, mixed.

    The paper resizes, concatenates, then mixes by a 1x1 convolution. The two commute, conv(cat(up(x_i))) =
    sum_i up(conv_i(x_i)), and x_i has 4^(i-2) times fewer pixels: each scale is mixed first, then resized and added.
    The parameters are those of the one convolution.
    """

    def __init__(self, in_channels: Sequence[int], *, align_corners: bool = False):
        super().__init__()
        width = sum(in_channels)
        self.in_channels = list(in_channels)
        self.align_corners = align_corners
        self.conv = nn.Conv2d(width, width, 1)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        scales = features[-4:]
        size = scales[0].shape[-2:]
        weights = self.conv.weight.split(self.in_channels, dim=1)
        mixed = F.conv2d(scales[0], weights[0], self.conv.bias)
        for coarse, weight in zip(scales[1:], weights[1:]):  # noqa: B905 (TorchScript)
            part = F.conv2d(coarse, weight)
            mixed += F.interpolate(part, size=size, mode="bilinear", align_corners=self.align_corners)
        return self.relu(self.bn(mixed))


class HRNetV2Head(nn.Module):
    """A 1x1 convolution to the classes, bilinear interpolation to `size`, an activation."""

    def __init__(
        self, in_channels: int, classes: int, *, activation: str | Callable | None = None, align_corners: bool = False
    ):
        super().__init__()
        self.align_corners = align_corners
        self.conv = nn.Conv2d(in_channels, classes, 1)
        self.activation = Activation(activation)

    def forward(self, x: Tensor, size: list[int]) -> Tensor:
        logits = F.interpolate(self.conv(x), size=size, mode="bilinear", align_corners=self.align_corners)
        return self.activation(logits)


class HRNetV2(FourScaleModel):
    """HRNetV2 over any smp encoder with features at 1/4 to 1/32: image [N, in_channels, H, W] to logits [N, K, H, W].

    encoder_name: e.g. hrnetv2_w48, resnet50, tu-convnext_tiny. upsampling: 4 gives logits at the image's size, 1 at the
    finest feature's (1/4). align_corners: of every interpolation in the head; fusion inside the encoder follows its
    name. aux_params: as in smp, adds an image-level classifier; the model then returns (logits, labels).
    encoder_depth: smp's; only 5 gives all four scales.
    Raises ValueError for another upsampling or depth, and for an encoder without these scales.
    Source: HRNet-Semantic-Segmentation, branch pytorch-v1.1.
    """

    @supports_config_loading
    def __init__(
        self,
        encoder_name: str,
        encoder_weights: str | None = None,
        in_channels: int = 3,
        classes: int = 19,
        activation: str | Callable | None = None,
        upsampling: int = 4,
        align_corners: bool = False,
        aux_params: dict[str, Any] | None = None,
        encoder_depth: int = 5,
    ):
        super().__init__(
            "hrnetv2", encoder_name, encoder_weights, in_channels, upsampling=upsampling, encoder_depth=encoder_depth
        )
        channels = self.scale_channels
        self.decoder = HRNetV2Decoder(channels, align_corners=align_corners)
        self.segmentation_head = HRNetV2Head(sum(channels), classes, activation=activation, align_corners=align_corners)
        self.add_classification_head(aux_params)
        self.initialize()
