"""C1: all scales concatenated, mixed by one 3x3 convolution to a quarter of the channels, classified.

Source: CSAILVision/semantic-segmentation-pytorch, decoder "c1" over HRNetV2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from segmentation_models_pytorch.base.hub_mixin import supports_config_loading
from torch import Tensor, nn

from hrseg.models.four_scale_model import FourScaleModel
from hrseg.models.hrnetv2 import HRNetV2Head
from hrseg.models.ocrnet import concatenate

# How the names of the heads' parameters begin in the reference checkpoints, and here.
REFERENCE_NAMES = (
    ("cbr.0.", "decoder.project."),
    ("cbr.1.", "decoder.bn."),
    ("conv_last.", "segmentation_head.conv."),
)


class C1Decoder(nn.Module):
    """Features [N, C_i, H / 2^i, W / 2^i], i = 2 to 5, to [N, sum C_i / 4, H / 4, W / 4]."""

    def __init__(self, in_channels: Sequence[int], *, align_corners: bool = False):
        super().__init__()
        width = sum(in_channels)
        self.align_corners = align_corners
        self.project = nn.Conv2d(width, width // 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width // 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.relu(self.bn(self.project(concatenate(features[-4:], self.align_corners))))


class C1(FourScaleModel):
    """C1 over any smp encoder with features at 1/4 to 1/32: image [N, in_channels, H, W] to logits [N, K, H, W].

    The arguments are those of HRNetV2. The reference trains on log-softmax at 1/4 and tests on the softmax of the
    enlarged logits; here, as everywhere, the model returns logits.
    """

    @supports_config_loading
    def __init__(
        self,
        encoder_name: str = "hrnetv2_w48",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        classes: int = 150,
        activation: str | Callable | None = None,
        upsampling: int = 4,
        align_corners: bool = False,
        aux_params: dict[str, Any] | None = None,
        encoder_depth: int = 5,
    ):
        super().__init__(
            "c1", encoder_name, encoder_weights, in_channels, upsampling=upsampling, encoder_depth=encoder_depth
        )
        channels = self.scale_channels
        self.decoder = C1Decoder(channels, align_corners=align_corners)
        self.segmentation_head = HRNetV2Head(
            sum(channels) // 4, classes, activation=activation, align_corners=align_corners
        )
        self.add_classification_head(aux_params)
        self.initialize()
