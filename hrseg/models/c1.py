"""C1: all scales concatenated, mixed by one 3x3 convolution to a quarter of the channels, classified.

Source: CSAILVision/semantic-segmentation-pytorch, decoder "c1" over HRNetV2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn

from hrseg.models.hrnetv2 import HRNetV2Head, TrainOutput, four_scales, takes_any_size
from hrseg.models.ocrnet import concatenate

# How the names of the heads' parameters begin in the reference checkpoints, and here.
REFERENCE_NAMES = (
    ("cbr.0.", "decoder.project."),
    ("cbr.1.", "decoder.bn."),
    ("conv_last.", "segmentation_head.conv."),
)


class C1Decoder(nn.Module):
    """Features [N, C_i, H / 2^i, W / 2^i], i = 2 to 5, to [N, sum C_i / 4, H / 4, W / 4]."""

    def __init__(self, in_channels: Sequence[int]):
        super().__init__()
        width = sum(in_channels)
        self.project = nn.Conv2d(width, width // 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width // 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.relu(self.bn(self.project(concatenate(features[-4:], False))))


class C1(SegmentationModel):
    """C1 over any smp encoder with features at 1/4 to 1/32: image [N, in_channels, H, W] to logits [N, K, H, W].

    The arguments are those of HRNetV2. The reference trains on log-softmax at 1/4 and tests on the softmax of the
    enlarged logits; here, as everywhere, the logits come out.
    """

    def __init__(
        self,
        encoder_name: str = "hrnetv2_w48",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        classes: int = 150,
        activation: str | Callable | None = None,
        upsampling: int = 4,
    ):
        if upsampling not in (1, 4):
            raise ValueError(f"upsampling must be 4 (the image's size) or 1 (the finest feature's), not {upsampling}")
        super().__init__()
        self.encoder, channels = four_scales(encoder_name, encoder_weights, in_channels)
        self.requires_divisible_input_shape = not takes_any_size(self.encoder, in_channels)
        self.decoder = C1Decoder(channels)
        self.segmentation_head = HRNetV2Head(sum(channels) // 4, classes, activation=activation)
        self.classification_head = None
        self.upsampling = upsampling
        self.name = f"c1-{encoder_name}"
        self.initialize()

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        size = x.shape[-2:] if self.upsampling == 4 else features[-4].shape[-2:]
        return self.segmentation_head(self.decoder(features), size)

    @torch.jit.unused
    def forward_train(self, x: Tensor) -> TrainOutput:
        """The logits that `forward` returns, by name."""
        return TrainOutput(self(x))
