"""Every call into parts of torch that it does not document, each behind a guard: the only file that may make one.

A guard calls the private function once with known values and compares the answer with the public way. Where the
function is missing or answers otherwise, the callers take the public way: slower, the same function.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger(__name__)

# Versions of torch on which tests/fast/test_torch_private.py passed with every private call in use.
CHECKED_VERSIONS = ("2.14",)

ConvShape = Sequence[Any]  # stride, padding, dilation, groups, in F.conv2d's order


def cpu_computes_bf16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def can_fuse_convolution(x: Tensor) -> bool:
    """Whether `convolution` and `convolution_add` may be called for this input; else F.conv2d is the way."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if x.dtype == torch.float32:
        return fused_convolution_works(torch.float32)
    return x.dtype == torch.bfloat16 and cpu_computes_bf16() and fused_convolution_works(torch.bfloat16)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape, relu: bool) -> Tensor:
    """oneDNN's convolution with a ReLU in the same pass if asked."""
    stride, padding, dilation, groups = shape
    after = "relu" if relu else "none"
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, dilation, groups, after, [], "")


def convolution_add(
    x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape, relu: bool, other: Tensor, inplace: bool
) -> Tensor:
    """oneDNN's convolution added to `other` in the same pass, then a ReLU if asked. inplace: written into `other`."""
    stride, padding, dilation, groups = shape
    rest: tuple[Any, ...] = (
        weight,
        bias,
        padding,
        stride,
        dilation,
        groups,
        "add",
        1.0,
        "relu" if relu else None,
        [],
        None,
    )
    if inplace:
        return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *rest)
    return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *rest)


def cudnn_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape, other: Tensor | None = None
) -> Tensor | None:
    """cuDNN's convolution, added to `other` where given, and a ReLU, all in one kernel; None where there is none.

    Which combinations of types, channels and sizes have such a kernel is known by trying.
    """
    if not cudnn_fused_convolution_works(x.dtype):
        return None
    key = (x.dtype, tuple(x.shape), tuple(weight.shape), str(shape), other is None)
    return None if key in _without_kernel else _tried(key, x, weight, bias, shape, other)


_without_kernel: set[Any] = set()


def _tried(
    key: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape, other: Tensor | None
) -> Tensor | None:
    try:
        if other is None:
            return torch.cudnn_convolution_relu(x, weight, bias, *shape)
        return torch.cudnn_convolution_add_relu(x, weight, other, 1.0, bias, *shape)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        log.debug("cuDNN has no fused kernel for %s: %s", key, error)
        _without_kernel.add(key)
        return None


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel of [N, C, H, W], both [C], in one pass."""
    return torch.batch_norm_update_stats(x, None, None, 0)


def normalise_into(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> None:
    """weight * (x - mean) / sqrt(variance + eps) + bias per channel, written into `out`."""
    unused = mean.new_empty(0), mean.new_empty(0)
    torch.native_batch_norm(x, weight, bias, mean, variance, False, 0, eps, out=(out, *unused))


def batch_norm_parameter_gradients(dy: Tensor, x: Tensor, mean: Tensor, rsqrt: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel the sums of dy * (x - mean) * rsqrt and of dy: the gradients of a batch norm's weight and bias."""
    wanted = [False, True, True]  # not the gradient of x
    _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
        dy, x, None, None, None, mean, rsqrt, True, 0.0, wanted
    )
    return d_weight, d_bias


def _answers_like(private: Callable[[], Sequence[Tensor]], public: Callable[[], Sequence[Tensor]], what: str) -> bool:
    """Whether two ways give the same to rounding; what the private one raises counts as another answer."""
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            pairs = list(zip(private(), public(), strict=True))
            same = all(torch.allclose(a.float(), b.float(), rtol=0.03, atol=0.03) for a, b in pairs)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        same, what = False, f"{what} ({error})"
    if not same:
        log.warning("torch %s: %s is not as hrseg knows it; the public way is used.", torch.__version__, what)
    return same


@functools.cache
def fused_convolution_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused convolutions exist and compute what F.conv2d, an addition and a ReLU compute."""

    def layout(tensor: Tensor) -> Tensor:
        return tensor.to(dtype).contiguous(memory_format=torch.channels_last)

    # No random numbers: a guard must not move anybody's generator.
    x = layout(torch.linspace(-1, 1, 2 * 4 * 5 * 6).reshape(2, 4, 5, 6))
    weight, bias = layout(torch.linspace(1, -1, 3 * 4 * 9).reshape(3, 4, 3, 3)), torch.tensor([0.1, 0, -0.1]).to(dtype)
    shape: ConvShape = ([1, 2], [1, 0], [1, 1], 1)

    def other() -> Tensor:
        return layout(torch.linspace(-2, 2, 2 * 3 * 5 * 2).reshape(2, 3, 5, 2))

    def private() -> Sequence[Tensor]:
        arguments = x, weight, bias, shape
        added = [
            convolution_add(*arguments, relu, other(), inplace) for relu in (False, True) for inplace in (False, True)
        ]
        return [convolution(*arguments, False), convolution(*arguments, True), *added]

    def public() -> Sequence[Tensor]:
        y = F.conv2d(x.float(), weight.float(), bias.float(), *shape)
        total = y + other().float()
        return [y, y.relu(), total, total, total.relu(), total.relu()]

    return _answers_like(private, public, "oneDNN's convolution with an addition and a ReLU")


@functools.cache
def cudnn_fused_convolution_works(dtype: torch.dtype) -> bool:
    """Whether cuDNN's fused convolutions exist here and compute what F.conv2d, an addition and a ReLU compute."""
    if not torch.cuda.is_available() or not torch.backends.cudnn.is_available():
        return False

    def values(first: float, last: float, *size: int) -> Tensor:
        tensor = torch.linspace(first, last, math.prod(size)).reshape(size).to("cuda", dtype)
        return tensor.contiguous(memory_format=torch.channels_last)

    x, weight, other = values(-1, 1, 2, 16, 6, 5), values(0.1, -0.1, 8, 16, 3, 3), values(-2, 2, 2, 8, 3, 5)
    bias = torch.linspace(-0.1, 0.1, 8).to("cuda", dtype)
    shape: ConvShape = ([2, 1], [1, 1], [1, 1], 1)

    def private() -> Sequence[Tensor]:
        plain = torch.cudnn_convolution_relu(x, weight, bias, *shape)
        return [plain, torch.cudnn_convolution_add_relu(x, weight, other, 1.0, bias, *shape)]

    def public() -> Sequence[Tensor]:
        y = F.conv2d(x.float(), weight.float(), bias.float(), *shape)
        return [y.relu(), (y + other.float()).relu()]

    return _answers_like(private, public, "cuDNN's convolution with an addition and a ReLU")


@functools.cache
def batch_norm_works() -> bool:
    """Whether the parts of torch's batch norm exist and compute what their formulas say."""
    x = torch.linspace(-1, 1, 2 * 3 * 4 * 5).square().reshape(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    dy = torch.linspace(2, -1, x.numel()).reshape(x.shape).contiguous(memory_format=torch.channels_last)
    weight, bias, eps = torch.tensor([0.5, 1, -2]), torch.tensor([0.1, 0, -0.1]), 1e-5

    def private() -> Sequence[Tensor]:
        mean, variance = batch_statistics(x)
        y = torch.empty_like(x)
        normalise_into(y, x, weight, bias, mean, variance, eps)
        return [mean, variance, y, *batch_norm_parameter_gradients(dy, x, mean, torch.rsqrt(variance + eps))]

    def public() -> Sequence[Tensor]:
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        normalised = (x - mean[:, None, None]) * torch.rsqrt(variance + eps)[:, None, None]
        y = normalised * weight[:, None, None] + bias[:, None, None]
        return [mean, variance, y, (dy * normalised).sum((0, 2, 3)), dy.sum((0, 2, 3))]

    return _answers_like(private, public, "the batch norm in parts")
