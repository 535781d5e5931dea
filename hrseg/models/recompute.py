"""Activation checkpointing: less memory in training, for the price of a second forward pass through the blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hrseg.models.hrnet import BATCH_NORMS, Bottleneck, HighResolutionModule


class _Recomputed(nn.Module):
    """Keeps its inputs alone, and computes what is inside again when the gradient comes."""

    def forward(self, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*inputs)
        return checkpoint(
            super().forward,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing in there is random
            context_fn=lambda: (contextlib.nullcontext(), _statistics_left_alone(self)),
        )


class RecomputedModule(_Recomputed, HighResolutionModule): ...


class RecomputedBottleneck(_Recomputed, Bottleneck): ...


def recompute_activations(model: nn.Module) -> int:
    """Let the bottlenecks and modules of an HRNet compute their activations twice instead of keeping them.

    Losses, gradients and batch norm's statistics stay what they are. Returns how many parts do so; 0: none is there.
    """
    parts = 0
    for module in model.modules():
        for plain, recomputed in ((HighResolutionModule, RecomputedModule), (Bottleneck, RecomputedBottleneck)):
            if type(module) is plain:
                module.__class__ = recomputed
                parts += 1
    return parts


@contextlib.contextmanager
def _statistics_left_alone(module: nn.Module) -> Iterator[None]:
    """Batch norms, which have seen this batch already, count it in copies that are thrown away."""
    norms = [m for m in module.modules() if isinstance(m, BATCH_NORMS) and m.training]
    originals = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, originals, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
