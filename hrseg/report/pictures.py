"""Pictures for people: classes in colour, overlays, and image, ground truth, prediction and error side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hrseg.task import LabelSpace, Normalisation, Task

RIGHT, WRONG, IGNORED = (222, 222, 222), (196, 30, 58), (255, 255, 255)  # grey, red, white


def displayable(image: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an image [H, W, C]: its first three channels, or the first in grey, over their range."""
    channels = [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]
    low, high = np.array([normalisation.input_range[c] for c in channels], np.float32).T
    return (np.clip((image[..., channels] - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)


def colored(labels: np.ndarray, space: LabelSpace) -> np.ndarray:
    """uint8 RGB [H, W, 3] of class indices [H, W]; of multilabel {0, 1} [L, H, W] the mean colour of the labels."""
    if space.task is Task.MULTILABEL:
        there = (labels == 1).astype(np.float32)
        mixed = np.einsum("lhw,lc->hwc", there, space.palette[: len(there)].astype(np.float32))
        return (mixed / np.maximum(there.sum(0), 1)[..., None]).round().astype(np.uint8)
    palette = space.palette
    if len(space.classes) > 256:
        palette = np.array([c.color for c in space.classes], np.uint8)
    return palette[np.clip(labels, 0, len(palette) - 1)]


def pixels_per_class(labels: np.ndarray, space: LabelSpace) -> np.ndarray:
    """int64 [K]: how many pixels each class has in class indices [H, W], or multilabel {0, 1} [L, H, W]."""
    if space.task is Task.MULTILABEL:
        return (labels == 1).sum((1, 2))
    return np.bincount(labels.reshape(-1), minlength=len(space.classes))


def overlay(image: np.ndarray, labels: np.ndarray, space: LabelSpace, opacity: float = 0.55) -> np.ndarray:
    """The classes' colours over an RGB image, both [H, W]."""
    return cv2.addWeighted(colored(labels, space), opacity, image, 1 - opacity, 0)


def errors(prediction: np.ndarray, target: np.ndarray, space: LabelSpace) -> np.ndarray:
    """uint8 RGB [H, W, 3]: grey where right, red where wrong (in any label), white where the target is ignored."""
    ignored, wrong = target == space.ignore_index, prediction != target
    if space.task is Task.MULTILABEL:
        ignored, wrong = ignored.all(0), (wrong & ~ignored).any(0)
    picture = np.full((*wrong.shape, 3), RIGHT, np.uint8)
    picture[wrong] = WRONG
    picture[ignored] = IGNORED
    return picture


def panel(image: np.ndarray, target: np.ndarray, prediction: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Image, ground truth, prediction and error side by side, each under its title. image: uint8 RGB [H, W, 3]."""
    if image.shape[:2] != target.shape[-2:]:
        image = cv2.resize(image, target.shape[:-3:-1])
    parts = [image, colored(target, space), colored(prediction, space), errors(prediction, target, space)]
    return beside([titled(p, t) for p, t in zip(parts, ("image", "ground truth", "prediction", "error"), strict=True)])


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """The picture under a line of text."""
    bar = np.full((22, picture.shape[1], 3), 255, np.uint8)
    _write(bar, title, (6, 16), 0.45)
    return np.concatenate([bar, picture])


def legend(entries: Mapping[str, Sequence[int]], width: int | None = None, *, scale: float = 1.0) -> np.ndarray:
    """Texts next to their colours, uint8 RGB [H, W, 3], column by column.

    width: pixels to fill with columns; W is larger where one column needs more. None: up to four columns. scale: at 1
    letters are 13 pixels high.
    """
    size = 0.5 * scale
    em, line = round(16 * scale), round(24 * scale)
    text_widths = [cv2.getTextSize(_printable(text), cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0] for text in entries]
    column = max(text_widths) + 4 * em
    columns = max(1, min((width or 4 * column) // column, len(entries)))
    rows = math.ceil(len(entries) / columns)
    picture = np.full((rows * line + em, max(width or 0, columns * column), 3), 255, np.uint8)
    for number, (text, color) in enumerate(entries.items()):
        x, y = number // rows * column + em // 2, number % rows * line + em // 2
        corners = (x, y + line - em), (x + 3 * em // 2, y + line)
        cv2.rectangle(picture, *corners, [int(value) for value in color], cv2.FILLED)
        cv2.rectangle(picture, *corners, (128, 128, 128), max(1, round(scale)))
        _write(picture, text, (x + 2 * em, y + line - em // 4), size)
    return picture


def _write(picture: np.ndarray, text: str, at: tuple[int, int], size: float) -> None:
    cv2.putText(picture, _printable(text), at, cv2.FONT_HERSHEY_SIMPLEX, size, (40, 40, 40), 1, cv2.LINE_AA)


def _printable(text: str) -> str:
    """The text with question marks for what OpenCV cannot draw: line ends and bytes that are not UTF-8."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures one below the other, narrower ones padded with white."""
    width = max(picture.shape[1] for picture in pictures)
    padding = [((0, 0), (0, width - picture.shape[1]), (0, 0)) for picture in pictures]
    return np.concatenate([np.pad(p, sides, constant_values=255) for p, sides in zip(pictures, padding, strict=True)])


def beside(pictures: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Pictures of equal height in a row."""
    space = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (space, picture)]
    return np.concatenate(row[1:], axis=1)


def sheet(pictures: Sequence[np.ndarray], columns: int | None = None, gap: int = 4) -> np.ndarray:
    """Pictures of equal size in rows and columns."""
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    blank = np.full_like(pictures[0], 255)
    padded = [*pictures, *[blank] * (-len(pictures) % columns)]
    rows = [beside(padded[i : i + columns], gap) for i in range(0, len(padded), columns)]
    space = np.full((gap, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (space, row)][1:])


def save(picture: np.ndarray, path: Path) -> Path:
    """Write an RGB picture as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path
