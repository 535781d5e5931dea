"""An image of any size through overlapping tiles, blended so that no seam shows, in memory for one row of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 32  # the coarsest stride of a network: tiles start on it, so that a pixel meets the same grid in each
SMALLEST = 128


class Tile(NamedTuple):
    """One tile along one side. The network sees [start, stop); of that, [first, last) is used, with `weight`.

    [first, done) is finished with this tile, [done, last) is shared with the next. Weights of neighbours add up to 1.
    """

    start: int
    stop: int
    first: int
    done: int
    last: int
    weight: Tensor


def tiles(length: int, tile: int) -> list[Tile]:
    """Tiles of at most `tile` pixels over a side, a quarter of it shared by neighbours.

    In the middle of what is shared the one fades into the other over a sixteenth of a tile. What lies outside of that
    is context only: there the border of a tile harms its answer.
    """
    overlap, ramp = tile // 4, tile // 16
    count = 1 if length <= tile else 1 + -(-(length - tile) // (tile - overlap))
    starts = [_on_grid(i * (length - tile) / (count - 1)) for i in range(count)] if count > 1 else [0]
    stops = [*(start + tile for start in starts[:-1]), length]
    fades = [(start + stop - ramp) // 2 for start, stop in zip(starts[1:], stops[:-1], strict=True)]
    found = []
    rising = (torch.arange(ramp) + 0.5) / ramp
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        first = fades[i - 1] if i else 0
        done, last = (fades[i], fades[i] + ramp) if i < count - 1 else (length, length)
        weight = torch.ones(last - first)
        if i:
            weight[:ramp] = rising
        if i < count - 1:
            weight[-ramp:] = 1 - rising
        found.append(Tile(start, stop, first, done, last, weight))
    return found


def _whole_cells(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return F.pad(image.float(), (0, -width % GRID, 0, -height % GRID), mode="replicate")


def _on_grid(place: float) -> int:
    return int(-(-place // GRID)) * GRID


def blended(
    look: Callable[[Tensor], Tensor], rows: Callable[[int, int], Tensor], size: tuple[int, int], tile: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Logits [1, K, h, w] of finished blocks with their rows and columns, left to right, top to bottom.

    Up to rounding and the borders of tiles, they are those of the whole image with its last row and column repeated to
    multiples of GRID: with other sides a network stretches its coarse streams, and in each tile differently.
    look: logits of an image [1, C, h, w]; rows: the image's rows [top, bottom), [1, C, h, W]; size: (height, width).
    Beside one tile and one band of the image only what neighbouring tiles share is held, a sixteenth of a row of tiles.
    """
    above: Tensor | None = None
    columns = tiles(size[1], tile)
    for row in tiles(size[0], tile):
        band = rows(row.start, row.stop)
        below: list[Tensor] = []
        left: Tensor | None = None
        for column in columns:
            logits = look(_whole_cells(band[..., column.start : column.stop]))
            part = logits[
                ...,
                row.first - row.start : row.last - row.start,
                column.first - column.start : column.last - column.start,
            ] * (row.weight[:, None] * column.weight).to(logits.device)
            if left is not None:
                part[..., : left.shape[-1]] += left
            part, left = part.split([column.done - column.first, column.last - column.done], dim=-1)
            if above is not None:
                part[..., : above.shape[-2], :] += above[..., column.first : column.done]
            part, shared = part.split([row.done - row.first, row.last - row.done], dim=-2)
            below.append(shared.clone())
            yield slice(row.first, row.done), slice(column.first, column.done), part
        above = torch.cat(below, dim=-1)
