"""COCO's run lengths and polygons as pixels. The door of faster_coco_eval, whose masks are those of pycocotools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrseg.importing.polygons import require_sound_rings
from hrseg.importing.records import BrokenError, Size, Window
from hrseg.importing.text_files import missing_extra

# Numbers of up to 32 bits in groups of five: 'P' to 'o' go on, '0' to 'O' end one. Anything else makes readers in C
# run beyond the end of the text.
COMPRESSED = re.compile(r"(?:[P-o]{0,6}[0-O])*")


def _library() -> Any:
    try:
        import faster_coco_eval.mask_api_new_cpp as masks
    except ImportError:
        raise missing_extra("faster-coco-eval", "import") from None
    return masks


@dataclass(frozen=True)
class Polygons:
    """Rings as flat lists x, y, x, y, ...; the area is their union. holes: the area that is not covered."""

    rings: Sequence[Sequence[float]]
    holes: Sequence[Sequence[float]] = ()

    def draw(self, size: Size) -> Window:
        covered = _decoded(_of_rings(require_sound_rings(self.rings, size), size), size)
        if self.holes:
            hole = _decoded(_of_rings(require_sound_rings(self.holes, size), size), size)
            whole = np.zeros(size, bool)
            paste(whole, hole)
            top, left, mask = covered
            covered = Window(top, left, mask & ~whole[top : top + mask.shape[0], left : left + mask.shape[1]])
        return covered


@dataclass(frozen=True)
class Runs:
    """Run lengths down the columns, from the top left: a list of numbers, or the compressed text.

    size: (height, width) that they were made for. by_rows: they go along the rows.
    """

    counts: Any
    size: Any
    by_rows: bool = False

    def draw(self, size: Size) -> Window:
        own = self.size
        if not (isinstance(own, list | tuple) and len(own) == 2 and all(type(v) is int for v in own)):
            raise BrokenError(f"the size of its run lengths is {own!r}, not [height, width].")
        if tuple(own) != tuple(size):
            raise BrokenError(f"its run lengths are for {own[0]}x{own[1]} (height x width), not {size[0]}x{size[1]}.")
        if self.by_rows:
            top, left, mask = _decoded(_of_runs(self.counts, size[::-1]), size[::-1])
            return Window(left, top, mask.T)
        return _decoded(_of_runs(self.counts, size), size)


def paste(whole: np.ndarray, window: Window) -> None:
    """Set the pixels of a window in a boolean array [H, W]."""
    top, left, mask = window
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] |= mask


def _of_rings(rings: list[list[float]], size: Size) -> dict:
    masks = _library()
    drawn = masks.frPoly(rings, *size)
    return drawn[0] if len(drawn) == 1 else masks.merge(drawn, 0)


def _of_runs(counts: Any, size: Size) -> dict:
    height, width = size
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if isinstance(counts, str):
        if len(counts) > 8 * height * width + 8 or not COMPRESSED.fullmatch(counts):
            raise BrokenError("its run lengths are damaged.")
        rle = {"size": [height, width], "counts": counts.encode("ascii")}
        try:
            counts = _library().toUncompressedRLE([rle])[0]["counts"]
        except ValueError:  # more than the size
            counts = []
        if sum(counts) != height * width:
            raise BrokenError(f"its run lengths do not add up to the {height * width} pixels of the image.")
        return rle
    if not isinstance(counts, list) or not all(type(v) is int and 0 <= v <= height * width for v in counts):
        raise BrokenError("its run lengths are not counts of pixels.")
    if sum(counts) != height * width:
        raise BrokenError(f"its run lengths add up to {sum(counts)} pixels, the image has {height * width}.")
    return _library().frUncompressedRLE([{"size": [height, width], "counts": counts}])[0]


def _decoded(rle: dict, size: Size) -> Window:
    """The columns between the first and the last covered pixel: most annotations are much smaller than the image."""
    masks = _library()
    left, top, width, height = (int(v) for v in masks.toBbox([rle])[0])
    if width == 0 or height == 0:
        raise BrokenError("it covers no pixel of the image.")
    counts = np.array(masks.toUncompressedRLE([rle])[0]["counts"])
    counts[0] -= left * size[0]
    counts = counts[: 2 * (len(counts) // 2)]
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    columns = np.zeros((width, size[0]), bool)
    columns.ravel()[: len(runs)] = runs
    return Window(top, left, np.ascontiguousarray(columns[:, top : top + height].T))
