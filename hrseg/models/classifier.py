"""HRNet for image classification: what the published ImageNet weights are, whole.

Source: HRNet-Image-Classification, and timm, whose names of parameters are the same. Both fuse by nearest neighbours.
"""

from __future__ import annotations

import itertools

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from hrseg.models.hrnet import Bottleneck

HEAD_WIDTHS = (32, 64, 128, 256)  # inner channels of the four streams' increase modules; they give four times as many
FINAL_CHANNELS = 2048

# How the names of the head's parameters begin, in the reference checkpoints and here.
INCREASE_NAMES = (("incre_modules.", "incre_modules."),)
REFERENCE_NAMES = (
    *INCREASE_NAMES,
    ("downsamp_modules.", "downsamp_modules."),
    ("final_layer.", "final_layer."),
    ("classifier.", "classifier."),
)


class _Increased(nn.Module):
    """HRNet and a bottleneck a stream."""

    def __init__(self, encoder_name: str = "hrnetv2_w18_nearest", in_channels: int = 3):
        super().__init__()
        self.encoder = smp.encoders.get_encoder(encoder_name, in_channels=in_channels, depth=5, weights=None)
        channels = self.encoder.out_channels[-4:]
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(c, width)) for c, width in zip(channels, HEAD_WIDTHS, strict=True)
        )

    def features(self, x: Tensor) -> list[Tensor]:
        _, stem, *streams = self.encoder(x)
        return [stem, *(increase(stream) for increase, stream in zip(self.incre_modules, streams, strict=True))]


class IncreasedHRNet(_Increased):
    """Image to [N, 64 | 128 | 256 | 512 | 1024, H / 2^i, W / 2^i], i = 1 to 5: timm's `features_only` of its HRNets.

    encoder_name: an HRNet encoder of hrseg.
    """

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.features(x)


class HRNetClassifier(_Increased):
    """Image [N, in_channels, H, W] to logits [N, classes]."""

    def __init__(self, encoder_name: str = "hrnetv2_w18_nearest", in_channels: int = 3, classes: int = 1000):
        super().__init__(encoder_name, in_channels)
        widths = [width * Bottleneck.expansion for width in HEAD_WIDTHS]
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True))
            for a, b in itertools.pairwise(widths)
        )
        self.final_layer = nn.Sequential(
            nn.Conv2d(widths[-1], FINAL_CHANNELS, 1), nn.BatchNorm2d(FINAL_CHANNELS), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Linear(FINAL_CHANNELS, classes)

    def final_map(self, x: Tensor) -> Tensor:
        """The map before pooling, [N, 2048, H / 32, W / 32]: from fine to coarse, each stream adds what it has."""
        _, total, *coarser = self.features(x)
        for downsample, stream in zip(self.downsamp_modules, coarser, strict=True):
            total = stream + downsample(total)
        return self.final_layer(total)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.final_map(x).mean(dim=(2, 3)))
