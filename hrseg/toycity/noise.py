"""Random textures: clouds, leaves and fine grain."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np


@cache
def noise_texture(kind: str) -> np.ndarray:
    """float32 [1024, 2048] of deviation 0.5: "clouds" (slow), "leaves" (clumps) or "grain" (fine)."""
    cells, weights = {
        "clouds": ((256, 128, 64, 32, 16), (1.0, 0.6, 0.35, 0.2, 0.12)),
        "leaves": ((24, 12, 6), (0.6, 1.0, 0.7)),
        "grain": ((96, 24, 6, 2), (0.5, 0.5, 0.6, 1.0)),
    }[kind]
    rng = np.random.default_rng(len(cells))
    total = np.zeros((1024, 2048), np.float32)
    for cell, weight in zip(cells, weights, strict=True):
        grid = rng.standard_normal((1024 // cell + 3, 2048 // cell + 3), dtype=np.float32)
        total += weight * cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)[:1024, :2048]
    return total / (2 * total.std())


def noise_piece(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """A random piece of the texture, mirrored where the piece is larger than it."""
    noise = noise_texture(kind)
    y, x = (rng.integers(max(1, whole - part)) for whole, part in zip(noise.shape, (height, width), strict=True))
    piece = noise[y : y + height, x : x + width]
    return np.pad(piece, ((0, height - piece.shape[0]), (0, width - piece.shape[1])), "symmetric")
