"""Batch norm over few channels in channels_last on the CPU: several pixels are taken as one of more channels.

There PyTorch's own goes through the channels of one pixel after the other. 18 of them do not fill the processor's
vectors, which makes the forward pass four times and the backward pass eight times as long as over 16 x 18.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hrseg.fast import torch_private

VECTOR = 16  # float32 values; channels that are a multiple of it fill every vector as they are
PIXELS = 16  # that are taken as one, at most
WORTH_IT = 2**17  # values of an image batch; below, the calls take longer than the values


class WideBatchNorm2d(nn.BatchNorm2d):
    """As nn.BatchNorm2d, to rounding, but for second derivatives; faster in training where `pixels_at_once` says so."""

    def forward(self, x: Tensor) -> Tensor:
        count = pixels_at_once(x) if self.training and self.affine else 1
        if count == 1 or not torch_private.batch_norm_works():
            return super().forward(x)
        if self.momentum is None or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        y, mean, variance = _Normalised.apply(x, self.weight, self.bias, self.eps, count)  # type: ignore[no-untyped-call]
        pixels = x.numel() // x.shape[1]
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (pixels / (pixels - 1)), self.momentum)
        return y


def widen_batch_norm(model: nn.Module) -> int:
    """Let the batch norms of a model train faster in channels_last on the CPU; names and values stay.

    Returns how many there are whose channels leave vectors unfilled.
    """
    found = [m for m in model.modules() if type(m) is nn.BatchNorm2d and m.num_features % VECTOR]
    for module in found:
        module.__class__ = WideBatchNorm2d
    return len(found)


def pixels_at_once(x: Tensor) -> int:
    """How many pixels of [N, C, H, W] are taken as one of so many times C channels; 1: PyTorch's own is as fast."""
    apt = x.device.type == "cpu" and x.dtype in (torch.float64, torch.float32, torch.bfloat16)
    if not apt or x.shape[1] % VECTOR == 0 or x.numel() < WORTH_IT:
        return 1
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return 1
    pixels, count = x.numel() // x.shape[1], PIXELS
    while pixels % count:
        count //= 2
    return count


class _Normalised(torch.autograd.Function):
    """y = weight * (x - mean) / sqrt(variance + eps) + bias, mean and variance of this batch; returns y and both.

    Source of the gradient: Ioffe and Szegedy, Batch Normalization, 2015.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(x, count)
        precise = wide.to(weight.dtype)
        means, variances = (part.view(count, -1) for part in torch_private.batch_statistics(precise))
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        w, b, m, v = _repeated(count, weight, bias, mean, variance)
        y = torch.empty_like(x)  # no view, which could not be rectified in place
        torch_private.normalise_into(_wide(y, count), wide, w, b, m, v, eps)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, rsqrt = ctx.saved_tensors
        count, pixels = ctx.count, x.numel() // x.shape[1]
        wide, dy = _wide(x, count), _wide(dy.contiguous(memory_format=torch.channels_last), count)
        parts = torch_private.batch_norm_parameter_gradients(dy, wide, *_repeated(count, mean, rsqrt))
        d_weight, d_bias = (part.view(count, -1).sum(0) for part in parts)
        # dx = weight * rsqrt * (dy - mean(dy) - (x - mean) * rsqrt * mean(dy * (x - mean) * rsqrt))
        of_dy = weight * rsqrt
        of_x = -of_dy * rsqrt * d_weight / pixels
        constant = -of_dy * d_bias / pixels - of_x * mean
        of_dy, of_x, constant = (each[:, None, None] for each in _repeated(count, of_dy, of_x, constant))
        dx = torch.addcmul(constant, dy, of_dy).addcmul_(wide, of_x)
        return _narrow(dx.to(x.dtype), x.shape), d_weight, d_bias, None, None


def _wide(x: Tensor, count: int) -> Tensor:
    """[N, C, H, W] in channels_last, seen as [1, count * C, 1, N * H * W / count]."""
    return x.permute(0, 2, 3, 1).reshape(1, 1, -1, count * x.shape[1]).permute(0, 3, 1, 2)


def _repeated(count: int, *of_channel: Tensor) -> tuple[Tensor, ...]:
    """Values [C] of the channels that `_wide` sees, [count * C]."""
    return torch.stack(of_channel).repeat(1, count).unbind()


def _narrow(wide: Tensor, shape: torch.Size) -> Tensor:
    """What `_wide` saw, as it was."""
    n, c, h, w = shape
    return wide.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)
