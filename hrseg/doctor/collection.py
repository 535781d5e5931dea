"""What the images tell together: near-duplicates, images unlike all others, classes that are hard to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from hrseg.doctor.views import Habits

PRINT = (16, 32)  # height and width of the small grey picture by which images are compared
ALIKE = 0.985  # correlation of these pictures from which two images are near-duplicates
AT_ONCE = 256
UNUSUAL = 6.0  # deviations (1.48 times the median absolute one) from the median
CONFUSED = 0.15  # of the pixels of the smaller class


def fingerprint(photo: np.ndarray) -> np.ndarray:
    """float32 [512] of an RGB picture [H, W, 3]: small and grey, with mean 0 and length 1; zeros where it is plain."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, PRINT[::-1], interpolation=cv2.INTER_AREA).astype(np.float32).reshape(-1)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return small / length if length > 1 else np.zeros_like(small)


def near_duplicates(
    names: Sequence[str], prints: np.ndarray, masks: np.ndarray, *, ignored_from: int, different: float = 0.05
) -> list[dict[str, Any]]:
    """Pairs of nearly the same image whose masks differ, the most different first.

    prints: [N, 512] of `fingerprint`. masks: class indices [N, h, w], small. different: share of the pixels.
    """
    found = []
    for start in range(0, len(prints), AT_ONCE):
        rows, others = np.nonzero(prints[start : start + AT_ONCE] @ prints.T > ALIKE)
        for i, j in zip((rows + start).tolist(), others.tolist(), strict=True):
            if i >= j:
                continue
            known = (masks[i] < ignored_from) & (masks[j] < ignored_from)
            share = float((masks[i] != masks[j])[known].mean()) if known.any() else 0.0
            if share >= different:
                found.append({"images": [names[i], names[j]], "different": round(share, 4)})
    return sorted(found, key=lambda pair: -pair["different"])


def unusual_images(names: Sequence[str], looks: np.ndarray) -> list[dict[str, Any]]:
    """Images that are far from even their nearest neighbour, the farthest first. looks: float [N, D].

    A distance is told in deviations from the median of all images.
    """
    if len(looks) < 8:
        return []
    spread = looks.std(0)
    scaled = looks / np.where(spread > 1e-6, spread, 1)
    nearest = np.empty(len(scaled))
    squares = (scaled**2).sum(1)
    for start in range(0, len(scaled), AT_ONCE):
        some = scaled[start : start + AT_ONCE]
        distances = squares[start : start + AT_ONCE, None] + squares[None] - 2 * some @ scaled.T
        distances[np.arange(len(some)), np.arange(start, start + len(some))] = np.inf
        nearest[start : start + AT_ONCE] = np.sqrt(np.maximum(distances.min(1), 0))
    middle = np.median(nearest)
    deviation = 1.4826 * np.median(np.abs(nearest - middle))
    far = (nearest - middle) / max(deviation, 1e-6)
    order = np.argsort(-far)
    return [{"image": names[i], "deviations": round(float(far[i]), 1)} for i in order if far[i] > UNUSUAL]


def look(photo: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """float32 [27 + K]: the colours of nine parts of an RGB picture, and the share of each class that a model sees."""
    colors = cv2.resize(photo, (3, 3), interpolation=cv2.INTER_AREA).astype(np.float32).reshape(-1) / 255
    shares = np.bincount(predicted.reshape(-1), minlength=classes)[:classes] / predicted.size
    return np.concatenate([colors, np.sqrt(shares)]).astype(np.float32)


def confused_classes(habits: Habits, names: Sequence[str]) -> list[dict[str, Any]]:
    """Pairs of classes that models and labels confidently tell apart differently, in both directions, the worst first.

    share: of such pixels in those of the class with fewer.
    """
    confident, pixels = habits.confident(), habits.pixels
    found = []
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            fewer = min(pixels[a], pixels[b])
            both = (int(confident[a, b]), int(confident[b, a]))
            # In one direction only it is a weakness of the models, or a fault of the labels, but no unclear definition.
            if fewer and min(both) > 0.1 * max(both) and sum(both) >= CONFUSED * fewer:
                share = round(sum(both) / int(fewer), 4)
                found.append({"classes": [names[a], names[b]], "share": share, "pixels": list(both)})
    return sorted(found, key=lambda pair: -pair["share"])
