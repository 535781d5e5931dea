"""Polarized self-attention inside the HRNet's basic blocks: one mask over channels, one over positions.

Source: Liu et al., Polarized Self-Attention: Towards High-quality Pixel-wise Regression, 2021 (arXiv 2107.00782).
The names of the parameters are those of the published checkpoints: `right` makes the channel mask, `left` the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _PolarizedAttention(nn.Module):
    """What both forms share: [N, C, H, W] to masks in (0, 1), from C / 2 inner channels."""

    def __init__(self, channels: int, conv_up: nn.Module):
        super().__init__()
        inner = channels // 2
        self.conv_q_right = nn.Conv2d(channels, 1, 1, bias=False)
        self.conv_v_right = nn.Conv2d(channels, inner, 1, bias=False)
        self.conv_up = conv_up
        self.conv_q_left = nn.Conv2d(channels, inner, 1, bias=False)
        self.conv_v_left = nn.Conv2d(channels, inner, 1, bias=False)

    def channel_mask(self, x: Tensor) -> Tensor:
        """[N, C, 1, 1]: the mean of the values, weighted over the positions by the query, back to C channels."""
        weights = self.conv_q_right(x).flatten(2).softmax(dim=2)  # [N, 1, H W]
        values = self.conv_v_right(x).flatten(2)  # [N, C / 2, H W]
        mean = (values @ weights.transpose(1, 2)).unsqueeze(3)
        return torch.sigmoid(self.conv_up(mean))

    def query_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the position mask: [N, 1, C / 2], a mean over the positions, and [N, C / 2, H W]."""
        return self.conv_q_left(x).mean(dim=(2, 3)).unsqueeze(1), self.conv_v_left(x).flatten(2)


class ParallelPSA(_PolarizedAttention):
    """x masked over channels plus x masked over positions: [N, C, H, W] to the same shape."""

    def __init__(self, channels: int):
        super().__init__(channels, nn.Conv2d(channels // 2, channels, 1, bias=False))

    def position_mask(self, x: Tensor) -> Tensor:
        """[N, 1, H, W]: the products of query and values, softmax over the positions."""
        query, values = self.query_and_values(x)
        mask = torch.sigmoid((query @ values).softmax(dim=2))
        return mask.reshape(x.shape[0], 1, x.shape[2], x.shape[3])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel_mask(x) + x * self.position_mask(x)


class SequentialPSA(_PolarizedAttention):
    """x masked over channels, and that masked over positions: [N, C, H, W] to the same shape. C is at least 8."""

    def __init__(self, channels: int):
        narrow = channels // 8
        down, up = nn.Conv2d(channels // 2, narrow, 1), nn.Conv2d(narrow, channels, 1)
        super().__init__(channels, nn.Sequential(down, nn.LayerNorm([narrow, 1, 1]), nn.ReLU(), up))

    def position_mask(self, x: Tensor) -> Tensor:
        """[N, 1, H, W]: the products of query and values, these after a softmax over the positions."""
        query, values = self.query_and_values(x)
        mask = torch.sigmoid(query @ values.softmax(dim=2))
        return mask.reshape(x.shape[0], 1, x.shape[2], x.shape[3])

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_mask(x)
        return x * self.position_mask(x)
