"""Pictures for people: classes in colour, overlays, and image, ground truth, prediction and error side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hrseg.task import LabelSpace, Normalisation, Task

Color = tuple[int, int, int]

SMALL_PART = 1 / 8  # of the range of 8-bit values: what uses less would look black, grey or white all over
SHOWN_PIXELS = 2**18  # from which the shown range follows

# In pictures and pages alike. After Okabe and Ito: told apart by all eyes.
RIGHT, IGNORED = (222, 222, 222), (255, 255, 255)  # grey, white
MISSED, FALSE_ALARM, CONFUSED = (213, 94, 0), (0, 114, 178), (204, 121, 167)  # orange, blue, purple


def displayable(
    image: np.ndarray, normalisation: Normalisation, shown: tuple[float, float] | None = None
) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an image [H, W, C]: its first three channels, or the first in grey.

    shown: the part of the input range from black to white, from `display_range` of the whole of which the image is a
    part; None: of this image.
    """
    black, white = display_range(image, normalisation) if shown is None else shown
    shares = _range_shares(image, normalisation)
    return (np.clip((shares - black) / (white - black), 0, 1) * 255).round().astype(np.uint8)


def display_range(image: np.ndarray, normalisation: Normalisation) -> tuple[float, float]:
    """The part of the input range that is shown from black to white, for example (0.02, 0.06).

    All of it, (0, 1), for 8-bit images that use more than an eighth of it; else from the 0.5th to the 99.5th percentile
    of the values. Pixels that are 0 in all channels, where there may be no data, do not count.
    """
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // SHOWN_PIXELS))
    thinned = image[::step, ::step]
    thinned = thinned[thinned.any(2)][None]
    if not thinned.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(_range_shares(thinned, normalisation), (0.005, 0.995)))
    if high <= low or (image.dtype == np.uint8 and high - low > SMALL_PART):
        return 0.0, 1.0
    return low, high


def _range_shares(image: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    channels = [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]
    low, high = np.array([normalisation.input_range[c] for c in channels], np.float32).T
    return (image[..., channels] - low) / (high - low)


def colored(labels: np.ndarray, space: LabelSpace) -> np.ndarray:
    """uint8 RGB [H, W, 3] of class indices [H, W]; of multilabel {0, 1} [L, H, W] the mean colour of the labels.

    Indices that are no class have the colour of ignored pixels.
    """
    if space.task is Task.MULTILABEL:
        there = (labels == 1).astype(np.float32)
        mixed = np.einsum("lhw,lc->hwc", there, space.palette[: len(there)].astype(np.float32))
        return (mixed / np.maximum(there.sum(0), 1)[..., None]).round().astype(np.uint8)
    palette = np.array([*(c.color for c in space.classes), ignored_color(space)], np.uint8)
    return palette[np.clip(labels, 0, len(palette) - 1)]


def pixels_per_class(labels: np.ndarray, space: LabelSpace) -> np.ndarray:
    """int64 [K]: how many pixels each class has in class indices [H, W], or multilabel {0, 1} [L, H, W].

    Indices that are no class, where an image has no data, do not count.
    """
    if space.task is Task.MULTILABEL:
        return (labels == 1).sum((1, 2))
    return np.bincount(labels.reshape(-1), minlength=len(space.classes))[: len(space.classes)]


def overlay(image: np.ndarray, labels: np.ndarray, space: LabelSpace, opacity: float = 0.55) -> np.ndarray:
    """The classes' colours over an RGB image, both [H, W]; where there is nothing, the image as it is.

    Nothing: the background of the space (`LabelSpace.background`); of multilabel, where no label is.
    """
    picture = cv2.addWeighted(colored(labels, space), opacity, image, 1 - opacity, 0)
    if space.task is Task.MULTILABEL:
        nothing = ~(labels == 1).any(0)
    elif space.background is not None:
        nothing = labels == space.background
    else:
        return picture
    picture[nothing] = image[nothing]
    return picture


def legend_colors(space: LabelSpace, *, ignored: bool = False, over_image: bool = False) -> dict[str, Color | None]:
    """What a legend lists: the colour of each class, and of ignored pixels where there are some.

    over_image: of an overlay, in which the background is transparent, None.
    """
    colors: dict[str, Color | None] = {c.name: c.color for c in space.classes}
    if over_image and space.background is not None:
        colors[space.names[space.background]] = None
    return colors | ({"(ignored)": ignored_color(space)} if ignored else {})


def ignored_color(space: LabelSpace) -> Color:
    """The colour of ignored pixels among those of the classes: black; white where a class is black."""
    return (255, 255, 255) if any(c.color == (0, 0, 0) for c in space.classes) else (0, 0, 0)


def errors(prediction: np.ndarray, target: np.ndarray, space: LabelSpace) -> np.ndarray:
    """uint8 RGB [H, W, 3] in `error_colors`; white where the target is ignored.

    Missed: an object taken for background; a false alarm: background taken for an object. Of multilabel, some label
    missed or added; of both, and where one class was taken for another, the third colour.
    """
    missed, false_alarm, ignored = missed_and_false(prediction, target, space)
    picture = np.full((*missed.shape, 3), RIGHT, np.uint8)
    for where, color in ((missed, MISSED), (false_alarm, FALSE_ALARM), (missed & false_alarm, CONFUSED)):
        picture[where] = color
    picture[ignored] = IGNORED
    return picture


def error_colors(space: LabelSpace) -> dict[str, Color | None]:
    """What the colours of `errors` mean, as far as they occur."""
    if space.task is Task.MULTILABEL:
        return {"missed": MISSED, "false alarm": FALSE_ALARM, "both": CONFUSED, "right": RIGHT}
    if space.background is None:
        return {"wrong class": CONFUSED, "right": RIGHT}
    several = {"wrong class": CONFUSED} if len(space.classes) > 2 else {}
    return {"missed": MISSED, "false alarm": FALSE_ALARM, **several, "right": RIGHT}


def missed_and_false(
    prediction: np.ndarray, target: np.ndarray, space: LabelSpace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where something is not found, where something is predicted that is not there, where nothing counts; bool [H, W].

    A class taken for another is both.
    """
    ignored = target == space.ignore_index
    if space.task is Task.MULTILABEL:
        missed, false_alarm = (target == 1) & (prediction != 1), (target == 0) & (prediction == 1)
        return missed.any(0), false_alarm.any(0), ignored.all(0)
    wrong, nothing = (prediction != target) & ~ignored, space.background
    found_something = (prediction != nothing) & (prediction != space.ignore_index)  # a void prediction finds nothing
    return wrong & (target != nothing), wrong & found_something, ignored


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


def legend(entries: Mapping[str, Color | None], width: int | None = None, *, scale: float = 1.0) -> np.ndarray:
    """Texts next to their colours, uint8 RGB [H, W, 3], column by column. None: an empty, crossed box, for transparent.

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
        cv2.rectangle(picture, *corners, [int(value) for value in color or (255, 255, 255)], cv2.FILLED)
        if color is None:
            cv2.line(picture, *corners, (128, 128, 128), max(1, round(scale)))
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
    made_by = PngInfo()
    made_by.add_text("Software", "hrseg")
    Image.fromarray(picture).save(path, pnginfo=made_by)
    return path
