"""Faults of a whole mask: moved against its image, or made for another image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft

from hrseg.doctor.regions import cut_out
from hrseg.doctor.suspects import OTHER, SHIFTED, Region
from hrseg.doctor.views import View

SMALL = 96  # pixels of the longer side at which shifts are searched
TINY = (24, 48)  # height and width at which masks are compared with other images
FARTHEST = 1 / 8  # of each side
GAIN = 0.4  # share of the disagreement that a shift, or another image, must explain


class Sketch(NamedTuple):
    """An image as it is compared with all others. agreement: share of known pixels where model and label agree."""

    predicted: np.ndarray  # TINY
    agreement: float


def sketch(target: np.ndarray, view: View, classes: int) -> Sketch:
    known = target < classes
    agreement = float((view.predicted == target)[known].mean()) if known.any() else 1.0
    return Sketch(tiny(view.predicted), agreement)


def tiny(plane: np.ndarray) -> np.ndarray:
    """Class indices [H, W] at TINY, the nearest pixels."""
    rows, columns = ((np.arange(n) + 0.5) * side // n for n, side in zip(TINY, plane.shape, strict=True))
    return plane[np.ix_(rows.astype(int), columns.astype(int))]


def whole_image_fault(
    target: np.ndarray, view: View, classes: int, names: Sequence[str], sketches: Sequence[Sketch], place: int
) -> Region | None:
    """The fault of a whole mask, if there is one. place: of the image among all, which have the names and sketches."""
    agreement = sketches[place].agreement
    if agreement > float(np.median([s.agreement for s in sketches])):
        return None
    shift = best_shift(target, view.predicted, classes)
    moved = 0.0 if shift is None else explained(agreement, shift[2])
    if shift is not None and moved >= GAIN:
        down, right = shift[:2]
        detail = "by " + " and ".join(
            f"{abs(by)} pixels {word}" for by, word in ((down, "down" if down > 0 else "up"),
            (right, "to the right" if right > 0 else "to the left")) if by)  # fmt: skip
        return _everything(target, view, classes, SHIFTED, 0.75 + 0.25 * moved, detail)
    own = tiny(target)
    known = own < classes
    if not known.any():
        return None
    matches = np.array([(s.predicted == own)[known].mean() if i != place else 0.0 for i, s in enumerate(sketches)])
    here = float((sketches[place].predicted == own)[known].mean())
    if len(matches) > 1 and explained(here, float(matches.max())) >= GAIN and here < 0.8:
        score = 0.75 + 0.25 * (1 - agreement)
        return _everything(target, view, classes, OTHER, score, f"it fits {names[int(matches.argmax())]} better")
    return None


def explained(before: float, after: float) -> float:
    """The share of the disagreement that is gone."""
    return max(0.0, (after - before) / max(1e-6, 1 - before))


def best_shift(target: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[int, int, float] | None:
    """How far the labels are moved down and to the right against the prediction, and how well both agree without that.

    None where they fit best as they are. Pixels; the search is by FFT at 96 pixels and then by single pixels around it.
    """
    step = max(1, max(target.shape) // SMALL)
    a, b = target[::step, ::step], predicted[::step, ::step]
    size = [fft.next_fast_len(2 * n) for n in a.shape]
    known = a < classes
    total = np.zeros(size)
    for c in np.intersect1d(np.unique(a[known]), np.unique(b)):
        one, other = fft.rfft2((a == c).astype(np.float32), size), fft.rfft2((b == c).astype(np.float32), size)
        total += fft.irfft2(one * np.conj(other), size)
    overlap = fft.irfft2(
        fft.rfft2(known.astype(np.float32), size) * np.conj(fft.rfft2(np.ones_like(a, np.float32), size)), size
    )
    rates = total / np.maximum(overlap, 1)
    far = [max(1, int(n * FARTHEST)) for n in a.shape]
    near = np.full(size, -1.0)
    for rows in (np.s_[: far[0] + 1], np.s_[-far[0] :]):
        for columns in (np.s_[: far[1] + 1], np.s_[-far[1] :]):
            near[rows, columns] = rates[rows, columns]
    down, right = (int(v) for v in np.unravel_index(near.argmax(), near.shape))
    down, right = down - size[0] * (down > size[0] // 2), right - size[1] * (right > size[1] // 2)
    if not (down or right):
        return None
    around = range(-step, step + 1)
    tried = [(d, r, _agreement(target, predicted, classes, d, r)) for d in (down * step + i for i in around)
             for r in (right * step + i for i in around)]  # fmt: skip
    best = max(tried, key=lambda one: one[2])
    return best if best[0] or best[1] else None


def _agreement(target: np.ndarray, predicted: np.ndarray, classes: int, down: int, right: int) -> float:
    """The share of known pixels that agree after the labels are moved back."""
    height, width = target.shape
    labels = target[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    said = predicted[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    known = labels < classes
    return float((labels == said)[known].mean()) if known.any() else 0.0


def _everything(target: np.ndarray, view: View, classes: int, kind: str, score: float, detail: str) -> Region | None:
    differs = (target < classes) & (view.predicted != target)
    if not differs.any():
        return None
    box, inside = cut_out(differs)
    return Region(box, inside, None, None, float(view.sure[differs].mean()) / 255, min(1.0, score), kind, detail)
