"""Weights and inputs of the reference outputs: pure functions of tensor names, see the README beside them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def reference_tensor(name: str, shape: list[int], gain: float = 0.5) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", ".bias")):
        values = rng.normal(0, 0.1, shape)
    elif len(shape) == 1:
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.normal(0, gain * np.sqrt(2.0 / np.prod(shape[1:])), shape)
    return torch.from_numpy(np.asarray(values).astype(np.float32))


def reference_state(golden: Path, case: str, part: str | None = None) -> dict[str, Tensor]:
    """The state dict of a case, at gain 0.5, under the reference's own names. part: of those with several."""
    keys = json.loads((golden / f"{case}.keys.json").read_text())
    return {name: reference_tensor(name, shape) for name, shape, _ in (keys[part] if part else keys)}


def reference_input(height: int, width: int) -> Tensor:
    values = np.random.Generator(np.random.PCG64(0)).normal(size=(1, 3, height, width))
    return torch.from_numpy(values.astype(np.float32))


def renamed(state: Mapping[str, Tensor], names: Iterable[tuple[str, str]], otherwise: str = "encoder.") -> dict:
    """A state dict under hrseg's names by a table of prefixes; what no row names belongs to the encoder."""
    names = tuple(names)
    result = {}
    for key, tensor in state.items():
        theirs, ours = next(((a, b) for a, b in names if key.startswith(a)), ("", otherwise))
        result[ours + key.removeprefix(theirs)] = tensor
    return result


def assert_close(actual: Tensor, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    """max|difference| <= tolerance * max|expected|, the bound that comes with the reference outputs."""
    assert tuple(actual.shape) == expected.shape
    assert np.abs(actual.numpy() - expected).max() <= tolerance * np.abs(expected).max()
