"""Masks in files, by value or by colour, as categories: what several formats have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from hrseg.data.images import read_mask
from hrseg.data.pairs import size_mismatch
from hrseg.importing.records import BrokenError, Color, Drawn, Size


def read_values(path: Path, size: Size) -> np.ndarray:
    """The values [H, W] of a mask. Raises BrokenError where it has colours, or another size than its image."""
    mask = _of_size(read_mask(path), path, size)
    if mask.ndim == 3:
        if not (mask == mask[:, :, :1]).all():
            raise BrokenError(f"the mask {path.name} has colours where a value for each class is expected.")
        mask = mask[:, :, 0]  # grey, saved as RGB
    return mask


def read_colors(path: Path, size: Size) -> np.ndarray:
    """The colours of a mask as numbers, int32 [H, W]: red * 65536 + green * 256 + blue."""
    mask = _of_size(read_mask(path, colors=True), path, size).astype(np.int32)
    return mask[:, :, 0] << 16 | mask[:, :, 1] << 8 | mask[:, :, 2]


def packed(color: Color) -> int:
    """The number that `read_colors` gives a colour."""
    return color[0] << 16 | color[1] << 8 | color[2]


def named(number: int) -> str:
    """The colour of a number in words."""
    return f"({number >> 16}, {number >> 8 & 255}, {number & 255})"


def by_value(path: Path, size: Size, meaning: Mapping[int, int]) -> Drawn:
    """meaning: the category, or IGNORED, of each value. Raises BrokenError for any other value."""
    return Drawn(translated(read_values(path, size), meaning, path, str))


def by_color(path: Path, size: Size, meaning: Mapping[int, int]) -> Drawn:
    """The same for colours as `packed` gives them."""
    return Drawn(translated(read_colors(path, size), meaning, path, named))


def translated(values: np.ndarray, meaning: Mapping[int, int], path: Path, words: Callable[[int], str]) -> np.ndarray:
    """int32 [H, W]: the meaning of each value. words: how a message names a value."""
    known = np.array(sorted(meaning), np.int64)
    place = np.searchsorted(known, values)
    np.minimum(place, max(len(known) - 1, 0), out=place)
    if not len(known) or (known[place] != values).any():
        wrong = values[known[place] != values] if len(known) else values
        row, column = np.argwhere(values == wrong.flat[0])[0]
        first = words(int(wrong.flat[0]))
        raise BrokenError(f"the mask {path.name} has {first} at row {row}, column {column}, which is no class.")
    return np.array([meaning[int(v)] for v in known], np.int32)[place]


def _of_size(mask: np.ndarray, path: Path, size: Size) -> np.ndarray:
    if mask.shape[:2] != tuple(size):
        raise BrokenError(f"{size_mismatch(size, mask.shape[:2])[:-1]} ({path.name}).")
    return mask
