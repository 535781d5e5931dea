"""HRNetV2p: a pyramid of five levels from the concatenated streams, as a backbone for torchvision's detectors.

Source: Wang et al., Deep High-Resolution Representation Learning for Visual Recognition, TPAMI 2020 (arXiv 1908.07919).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.models.four_scale_model import four_scale_encoder
from hrseg.models.ocrnet import concatenate

# How the names of the neck's parameters begin in the reference checkpoints, and here.
REFERENCE_NAMES = (
    ("backbone.", "encoder."),
    ("neck.reduction_conv.0.", "neck.reduction."),
    ("neck.fpn_conv.", "neck.levels."),
)
LEVELS = 5


class HRFPN(nn.Module):
    """Features of four scales, 1/4 to 1/32, to five of `out_channels`, 1/4 to 1/64.

    The scales are concatenated at the finest and reduced once; each level averages 2^i x 2^i of that, then convolves.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256):
        super().__init__()
        self.reduction = nn.Conv2d(sum(in_channels), out_channels, 1)
        self.levels = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in range(LEVELS))

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        reduced = self.reduction(concatenate(scales, False))
        return [level(F.avg_pool2d(reduced, 2**i)) for i, level in enumerate(self.levels)]


class HRNetV2p(nn.Module):
    """An encoder, a pyramid: image [N, in_channels, H, W] to {"0": [N, out_channels, H / 4, W / 4], ...}, "4" at 1/64.

    A backbone of torchvision's detectors, whose own anchors and pooling fit the five levels and their names:

        FasterRCNN(HRNetV2p("hrnetv2_w18_nearest"), num_classes=91)
        MaskRCNN(HRNetV2p("hrnetv2_w18_nearest"), num_classes=91)
        KeypointRCNN(HRNetV2p("hrnetv2_w32_nearest"), num_classes=2, num_keypoints=17)

    encoder_name: any smp encoder with features at 1/4 to 1/32, else ValueError; the published weights fuse by nearest
    interpolation. H and W are at least 64. Source: HRNet-Object-Detection (HRFPN).
    """

    def __init__(
        self,
        encoder_name: str = "hrnetv2_w32_nearest",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        out_channels: int = 256,
    ):
        super().__init__()
        self.encoder, channels = four_scale_encoder(encoder_name, encoder_weights, in_channels)
        self.neck = HRFPN(channels, out_channels)
        self.out_channels = out_channels  # torchvision's detectors ask for it

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        levels = self.neck(self.encoder(x)[-4:])
        return OrderedDict((str(i), level) for i, level in enumerate(levels))
