"""Tensors to a device, beside what is computed there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def moved(tensors: Sequence[Tensor | None], device: torch.device) -> list[Tensor | None]:
    """The tensors on a device. Pinned ones go to a GPU on a stream of its own; the current stream waits for them."""
    first = next((x for x in tensors if x is not None), None)
    if first is None or device.type != "cuda" or not torch.cuda.is_available() or not first.is_pinned():
        return [x if x is None else x.to(device, non_blocking=True) for x in tensors]
    copying, computing = _copying_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        there = [x if x is None else x.to(device, non_blocking=True) for x in tensors]
    computing.wait_stream(copying)
    for x in there:
        if x is not None:
            x.record_stream(computing)  # or else its memory would be written again when Python lets go of it
    return there


@lru_cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
