"""Which tiles of ground are for validation: whole blocks of neighbouring tiles, never single ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

BLOCKS = 25  # about as many, if there are tiles enough
LEAST_BLOCK = 2  # tiles along a side


class Footprint(NamedTuple):
    """Where a tile lies. system: coordinates of one system can be compared. bounds: left, bottom, right, top."""

    system: Hashable
    bounds: tuple[float, float, float, float]


class Split(NamedTuple):
    """split: "train", "val", or None where a tile lies in blocks of both. block: the name of that of its middle."""

    split: str | None
    block: str


def split_blocks(footprints: Sequence[Footprint], val_share: float) -> list[Split]:
    """Assign blocks of ground to validation until they have this share of the tiles.

    Blocks are chosen by a hash of their place, so that the same ground has the same split again. Where there is one
    block only, all is train.
    """
    if not footprints:
        return []
    side = max(LEAST_BLOCK, math.isqrt(len(footprints) // BLOCKS))
    systems = list(dict.fromkeys(f.system for f in footprints))
    origins: dict[Hashable, tuple[float, float, float, float]] = {}
    for footprint in footprints:
        left, bottom, right, top = footprint.bounds
        # That of the first raster, whose tiles then fill blocks; all tiles but those at its far edges have this size.
        origins.setdefault(footprint.system, (left, top, (right - left) * side, (top - bottom) * side))

    def block(footprint: Footprint, x: float, y: float) -> tuple[int, int, int]:
        left, top, width, height = origins[footprint.system]
        number = systems.index(footprint.system)
        return number, math.floor((top - y) / height), math.floor((x - left) / width)

    middles = [block(f, (f.bounds[0] + f.bounds[2]) / 2, (f.bounds[1] + f.bounds[3]) / 2) for f in footprints]
    count: dict[tuple[int, int, int], int] = {}
    for middle in middles:
        count[middle] = count.get(middle, 0) + 1
    wanted, chosen = val_share * len(footprints), 0
    val: set[tuple[int, int, int]] = set()
    for candidate in sorted(count, key=_hash):
        if len(val) == len(count) - 1 or chosen >= wanted:
            break
        val.add(candidate)
        chosen += count[candidate]
    splits = []
    for footprint, middle in zip(footprints, middles, strict=True):
        left, bottom, right, top = footprint.bounds
        inset_x, inset_y = (right - left) * 1e-6, (top - bottom) * 1e-6  # tiles that only touch a block are not in it
        corners = {
            block(footprint, x, y) for x in (left + inset_x, right - inset_x) for y in (bottom + inset_y, top - inset_y)
        }
        both = len({corner in val for corner in corners}) == 2
        name = "_".join(map(str, middle if len(systems) > 1 else middle[1:]))
        splits.append(Split(None if both else "val" if middle in val else "train", f"block{name}"))
    return splits


def _hash(block: tuple[int, int, int]) -> str:
    return hashlib.sha256(repr(block).encode()).hexdigest()
