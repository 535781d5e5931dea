"""The regions of one image in which a model surely sees something else than the label says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from hrseg.doctor.suspects import BORDER, MISSING, NONE, SWAPPED, WRONG, Box, Region
from hrseg.doctor.views import View

LEAST_SHARE, LEAST_PIXELS = 1 / 5000, 12  # of an image, below which a region is not listed
THIN = 1 / 48  # of the shorter side: the depth at which a region weighs half
SMALL = 0.006  # of the image: the area at which a region weighs half
AS_STRONG, RARE = 0.8, 0.01  # what counts as as strong; the share of images with it that halves a region's score
SWAPPED_SHARE, SWAPPED_AREA = 0.6, 0.005  # of a class's pixels; of the image
RING = np.ones((5, 5), np.uint8)


class Strengths:
    """The strongest region of each pair of label and prediction in each image that has one.

    What models see all over the data set is their weakness; what they see in few images is more likely a fault there.
    """

    def __init__(self) -> None:
        self.images = 0
        self._found: dict[tuple[int, int], list[float]] = {}

    def add(self, target: np.ndarray, view: View, classes: int) -> None:
        """Add an image."""
        best: dict[tuple[int, int], float] = {}
        for part in _parts(target, view, classes):
            best[part.label, part.said] = max(part.strength, best.get((part.label, part.said), 0.0))
        self.images += 1
        for pair, strength in best.items():
            self._found.setdefault(pair, []).append(strength)

    def rarity(self, label: int, said: int, strength: float) -> float:
        """From 1, where no other image has a region of the pair that is nearly as strong, down to 0."""
        as_strong = sum(one >= AS_STRONG * strength for one in self._found.get((label, said), ()))
        return 1 / (1 + max(0, as_strong - 1) / max(1.0, RARE * self.images))


class Knowledge(NamedTuple):
    """What all images together tell. thresholds [K]: of `Habits`."""

    strengths: Strengths
    thresholds: np.ndarray


def regions(target: np.ndarray, view: View, known: Knowledge, *, most: int = 20) -> list[Region]:
    """The most suspicious regions of an image, best first. target: class indices [H, W]; from K on they are ignored."""
    swapped = list(_swapped(target, view, known))
    taken = {(region.label, region.said) for region in swapped}
    parts = [part for part in _parts(target, view, len(known.thresholds)) if (part.label, part.said) not in taken]
    parts.sort(key=lambda part: -part.strength)
    scored = [(part.strength * known.strengths.rarity(part.label, part.said, part.strength), part) for part in parts]
    scored.sort(key=lambda pair: -pair[0])
    told = [_told(part, score, target, view) for score, part in scored[:most]]
    return sorted([*swapped, *told], key=lambda region: -region.score)[:most]


class _Part(NamedTuple):
    box: Box
    inside: np.ndarray
    label: int
    said: int
    sure: float
    strength: float
    depth: float  # pixels from its inmost point to its edge


def _parts(target: np.ndarray, view: View, classes: int) -> Iterator[_Part]:
    """Connected areas of one label and one prediction."""
    least = max(LEAST_PIXELS, round(target.size * LEAST_SHARE))
    thin = max(1.5, THIN * min(target.shape))
    places = np.flatnonzero((target < classes) & (view.predicted != target))
    width = target.shape[1]
    pairs = target.reshape(-1)[places].astype(np.int64) * classes + view.predicted.reshape(-1)[places]
    order = np.argsort(pairs, kind="stable")
    starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
    for group in np.split(order, starts[1:]) if len(order) else ():
        if len(group) < least:
            continue
        label, said = divmod(int(pairs[group[0]]), classes)
        rows, columns = np.divmod(places[group], width)
        top, left = int(rows.min()), int(columns.min())
        plane = np.zeros((int(rows.max()) - top + 3, int(columns.max()) - left + 3), np.uint8)  # with an empty edge
        plane[rows - top + 1, columns - left + 1] = 1
        count, parts, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=4)
        if stats[1:, cv2.CC_STAT_AREA].max(initial=0) < least:
            continue
        depths = cv2.distanceTransform(plane, cv2.DIST_L2, 3)
        window = np.s_[top : top + plane.shape[0] - 2, left : left + plane.shape[1] - 2]
        for n in range(1, count):
            x, y, w, h, area = (int(v) for v in stats[n])
            if area < least:
                continue
            inside = parts[y : y + h, x : x + w] == n
            cut = np.s_[y - 1 : y - 1 + h, x - 1 : x - 1 + w]
            sure, given = (float(plane_[window][cut][inside].mean()) / 255 for plane_ in (view.sure, view.given))
            depth = float(depths[y : y + h, x : x + w][inside].max())
            strength = max(0.0, sure - given) * depth**2 / (depth**2 + thin**2) * _weight(area, target.size)
            box = (top + y - 1, left + x - 1, top + y - 1 + h, left + x - 1 + w)
            yield _Part(box, inside, label, said, sure, strength, depth)


def _weight(area: int, pixels: int) -> float:
    return area / (area + SMALL * pixels)


def _swapped(target: np.ndarray, view: View, known: Knowledge) -> Iterator[Region]:
    """Classes of which nearly all pixels, in several areas, are confidently seen as one other class."""
    classes = len(known.thresholds)
    pixels = np.bincount(target[target < classes].astype(np.int64), minlength=classes)
    for label in np.flatnonzero(pixels >= max(SWAPPED_AREA * target.size, LEAST_PIXELS)):
        here = target == label
        said = int(np.bincount(view.predicted[here], minlength=classes).argmax())
        if said == label:
            continue
        inside = here & (view.predicted == said)
        confident = np.count_nonzero(view.sure[inside] >= known.thresholds[said])
        parts = cv2.connectedComponentsWithStats(here.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
        several = parts.max(initial=0) < 0.9 * pixels[label]
        if several and confident >= SWAPPED_SHARE * pixels[label]:
            box, inside = cut_out(inside)
            cut = np.s_[box[0] : box[2], box[1] : box[3]]
            sure, given = (float(plane[cut][inside].mean()) / 255 for plane in (view.sure, view.given))
            strength = max(0.0, sure - given) * _weight(int(inside.sum()), target.size)
            score = strength * known.strengths.rarity(int(label), said, strength)
            yield Region(box, inside, int(label), said, sure, score, SWAPPED)


def cut_out(inside: np.ndarray) -> tuple[Box, np.ndarray]:
    """The box around the true pixels of bool [H, W], and what is in it."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return box, inside[box[0] : box[2], box[1] : box[3]]


def _told(part: _Part, score: float, target: np.ndarray, view: View) -> Region:
    """A part with the kind of its fault, by what surrounds it and how much of an object it is."""
    top, left, bottom, right = part.box
    high, wide = bottom - top, right - left
    y0, x0 = max(0, top - high - 4), max(0, left - wide - 4)
    window = np.s_[y0 : bottom + high + 4, x0 : right + wide + 4]
    labels, said = target[window], view.predicted[window]
    here = np.zeros(labels.shape, bool)
    here[top - y0 : bottom - y0, left - x0 : right - x0] = part.inside
    ring = (cv2.dilate(here.astype(np.uint8), RING) > 0) & ~here
    around = labels[ring]
    touches = float((around == part.said).mean()) if around.size else 0.0
    of_object = np.count_nonzero(here) / max(1, _touching(labels == part.label, here))
    of_seen = np.count_nonzero(here) / max(1, _touching(said == part.said, here))
    width = max(1, round(2 * part.depth - 1))
    thin = part.depth <= max(3.0, 1.5 * THIN * min(target.shape))
    detail = ""
    if of_object >= 0.6 and not (thin and of_object < 0.9):
        kind = NONE if touches >= 0.5 else WRONG
    elif of_seen >= 0.6 and touches < 0.1:
        kind = MISSING
    elif touches >= 0.1 and (thin or touches >= 0.3):
        kind, detail = BORDER, f"by about {width} pixel{'s' if width > 1 else ''}"
    else:
        kind = MISSING if of_seen >= 0.4 else WRONG
    return Region(part.box, part.inside, part.label, part.said, part.sure, score, kind, detail)


def _touching(plane: np.ndarray, here: np.ndarray) -> int:
    """Pixels of the connected areas of bool [h, w] that have some of `here`."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(plane.astype(np.uint8), connectivity=4)
    numbers = np.unique(parts[here & plane])
    return int(stats[numbers, cv2.CC_STAT_AREA].sum())
