"""Images and masks at another size, whole or just a window of the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

CV2_CHANNELS = 128  # OpenCV 5 accepts no more at once
WARP_CHANNELS = 4

Window = tuple[int, int, int, int]  # top, left, height, width in pixels of the resized image


def resize(image: np.ndarray, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """An image [H, W, C] or a mask [H, W] resized to (height, width), keeping its type."""
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    pixels = image.reshape(*image.shape[:2], -1)
    parts = [
        cv2.resize(pixels[..., first : first + CV2_CHANNELS], (width, height), interpolation=interpolation)
        for first in range(0, pixels.shape[2], CV2_CHANNELS)
    ]
    return np.dstack(parts).reshape(height, width, *image.shape[2:])


def scaled_size(size: Sequence[int], factor: float) -> tuple[int, int]:
    """(height, width) times the factor, rounded to the nearest pixel, at least one."""
    height, width = size
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """An image [H, W, C] with its short side resized to `short_side` pixels, linearly, keeping its type."""
    return resize(image, scaled_size(image.shape[:2], short_side / min(image.shape[:2])))


def image_window(image: Any, size: tuple[int, int], window: Window) -> np.ndarray:
    """A window of `resize(image, size)`, of which nothing else is read or computed; integers within one grey level.

    image: [H, W, C], an array or anything that has a shape and gives arrays for [rows, columns].
    """
    top, left, height, width = window
    if tuple(image.shape[:2]) == tuple(size):
        return np.ascontiguousarray(image[top : top + height, left : left + width])
    rows, y, y_step = _source(image.shape[0], size[0], top, height)
    columns, x, x_step = _source(image.shape[1], size[1], left, width)
    part = image[rows, columns]
    matrix = np.array([[x_step, 0, x], [0, y_step, y]])

    def warp(channels: np.ndarray) -> np.ndarray:
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(channels, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)

    if part.shape[2] == 3:  # OpenCV warps four channels in less than half the time of three
        return cv2.cvtColor(warp(cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)), cv2.COLOR_RGBA2RGB)
    groups = range(0, part.shape[2], WARP_CHANNELS)
    return np.dstack([warp(np.ascontiguousarray(part[..., g : g + WARP_CHANNELS])) for g in groups])


def mask_window(mask: Any, size: tuple[int, int], window: Window) -> np.ndarray:
    """A window of a mask [..., H, W] resized to the nearest pixels, as INTER_NEAREST_EXACT finds them.

    mask: an array or anything that has a shape and gives arrays for [..., rows, columns].
    """
    top, left, height, width = window
    if tuple(mask.shape[-2:]) == tuple(size):
        return np.ascontiguousarray(mask[..., top : top + height, left : left + width])
    rows = _nearest(mask.shape[-2], size[0])[top : top + height]
    columns = _nearest(mask.shape[-1], size[1])[left : left + width]
    part = np.asarray(mask[..., rows[0] : rows[-1] + 1, :])
    rows = rows - rows[0]
    if len(rows) < part.shape[-2]:  # whole rows are copied fast: first what leaves fewer pixels
        return part.take(rows, axis=-2).take(columns, axis=-1)
    return part.take(columns, axis=-1).take(rows, axis=-2)


def _source(length: int, resized: int, first: int, count: int) -> tuple[slice, float, float]:
    """What `count` pixels from `first` of a resized side are made of.

    Returns the source pixels, the place of the first among them, and the step; pixels are counted at their centres.
    """
    step = length / resized
    place = (first + 0.5) * step - 0.5
    start = max(0, int(np.floor(place)))
    stop = min(length, int(np.floor(place + (count - 1) * step)) + 2)
    return slice(start, stop), place - start, step


def _nearest(length: int, resized: int) -> np.ndarray:
    """The source pixel of each pixel of a resized side: OpenCV's own, so that a window equals its part of the whole."""
    # Plain INTER_NEAREST would put the labels about half a pixel beside the image.
    places = np.arange(length, dtype=np.float64)[None]
    return cv2.resize(places, (resized, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0].astype(np.intp)
