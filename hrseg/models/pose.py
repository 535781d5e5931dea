"""HRNetV1 for human pose: the finest stream to one heatmap a joint, and heatmaps to coordinates.

Source: Sun et al., Deep High-Resolution Representation Learning for Human Pose Estimation, CVPR 2019, arXiv 1902.09212.
"""

from __future__ import annotations

from typing import NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from hrseg.models.hrnet import HRNet

# How the names of the head's parameters begin in the reference checkpoints, and here.
REFERENCE_NAMES = (("final_layer.", "head."),)
STRIDE = 4  # image pixels between two positions of a heatmap


class PoseHRNet(nn.Module):
    """HRNetV1: image [N, in_channels, H, W] to heatmaps [N, joints, H / 4, W / 4] from the finest stream alone.

    encoder_name: an HRNet; the published pose weights fuse by nearest interpolation. joints: 17 are those of COCO.
    Raises ValueError for another encoder. Source: deep-high-resolution-net.pytorch.
    """

    def __init__(
        self,
        encoder_name: str = "hrnetv2_w32_nearest",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        joints: int = 17,
    ):
        super().__init__()
        # Of depth 2, an HRNet gives the stem's feature and the finest stream, and has no fusion into the other streams.
        self.encoder = smp.encoders.get_encoder(encoder_name, in_channels=in_channels, depth=2, weights=encoder_weights)
        if not isinstance(self.encoder, HRNet):
            raise ValueError(f"PoseHRNet reads the finest stream of an HRNet; encoder '{encoder_name}' is none.")
        self.head = nn.Conv2d(self.encoder.channels[-1], joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[-1])


class Joints(NamedTuple):
    """coordinates: float [N, joints, 2], (x, y) in image pixels. scores: float [N, joints], the heatmaps' maxima."""

    coordinates: Tensor
    scores: Tensor


def decode(heatmaps: Tensor) -> Joints:
    """The place of each heatmap's maximum, moved a quarter of a position towards the higher of its neighbours.

    heatmaps: [N, joints, h, w] of `PoseHRNet`. A quarter of a position is one image pixel; at the first two positions
    of an axis, and at the last, it is not moved along it. Where no value is positive there is no joint: it is at (0, 0)
    with a score <= 0.
    Source: deep-high-resolution-net.pytorch, TEST.POST_PROCESS, with the image itself as the person's box.
    """
    h, w = heatmaps.shape[-2:]
    flat = heatmaps.flatten(2)
    scores, place = flat.max(dim=2)
    x, y = place % w, place // w

    def slope(step: int, along: Tensor, length: int) -> Tensor:
        """-1, 0 or 1 by the neighbours before and after along an axis whose positions lie `step` apart in `flat`."""
        inside = (along > 1) & (along < length - 1)
        before = flat.gather(2, (place - step).clamp(min=0)[..., None])[..., 0]
        after = flat.gather(2, (place + step).clamp(max=h * w - 1)[..., None])[..., 0]
        return torch.where(inside, (after - before).sign(), 0)

    moved = torch.stack([x + 0.25 * slope(1, x, w), y + 0.25 * slope(w, y, h)], dim=2)
    return Joints((STRIDE * moved).masked_fill(scores[..., None] <= 0, 0), scores)
