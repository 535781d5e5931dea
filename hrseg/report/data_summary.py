"""What a sound data set holds, for a person: classes in pixels and masks, weights, warnings, a sheet of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from hrseg.console import counted
from hrseg.data.checks import Examination
from hrseg.data.class_weights import class_weights, positive_weights
from hrseg.data.dataset import Dataset
from hrseg.errors import HrsegError
from hrseg.report import pictures
from hrseg.task import LabelSpace, Normalisation, Task

SHEET_IMAGES = 12
CELL = (360, 480)  # the largest height and width of one picture of the sheet


def class_table(space: LabelSpace, examinations: Mapping[str, Examination]) -> str:
    """The share of each class in the labelled pixels of each split, and the number of masks in which it occurs."""
    width = max(len(name) for name in (*space.names, "(ignored)"))
    lines = [f"{'class':{width}}" + "".join(f"  {split + ' pixels':>14}  {'masks':>7}" for split in examinations)]
    splits = examinations.values()
    for k, name in enumerate(space.names):
        cells = (f"  {e.pixels[k] / max(e.valid[k], 1):14.3%}  {e.shown_in[k]:7}" for e in splits)
        lines.append(f"{name:{width}}" + "".join(cells))
    if space.task is not Task.MULTILABEL and any(e.valid[0] < e.total for e in splits):
        cells = (f"  {1 - e.valid[0] / max(e.total, 1):14.3%}  {'':7}" for e in splits)
        lines.append(f"{'(ignored)':{width}}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def weighted_loss(space: LabelSpace, train: Examination) -> str:
    """A loss with the weights that follow from the training split, as YAML takes it."""
    if space.task is Task.MULTICLASS:
        text = ", ".join(f"{w:g}" for w in class_weights(train.pixels))
        origin = "1 / ln(1.02 + share), scaled to a mean of 1 (ENet, Paszke et al. 2016)"
        return (
            f"Suggested class weights (optional), {origin}:\n  loss: [{{name: cross_entropy, class_weights: [{text}]}}]"
        )
    weights = positive_weights(train.pixels, train.valid)
    text = ", ".join(f"{w:g}" for w in (weights[1:] if space.task is Task.BINARY else weights))
    loss = f"loss: [{{name: bce, pos_weight: [{text}]}}]"
    return f"Suggested weights of the foreground (optional), no / yes in pixels:\n  {loss}"


def data_warnings(space: LabelSpace, examinations: Mapping[str, Examination], train: str) -> Iterator[str]:
    """A sentence for each thing that may be meant so: classes without a pixel, images twice in one split.

    train: the name of the training split.
    """
    for split, examination in examinations.items():
        absent = [name for name, pixels in zip(space.names, examination.pixels, strict=True) if not pixels]
        if absent and examination.valid.any():
            then = "cannot be learned" if split == train else "cannot be scored"
            yield f"split {split} has no pixel of {', '.join(absent)}: {then}."
        known = [digest for digest in examination.digests if digest]
        again = len(known) - len(set(known))
        if again:
            yield f"split {split} holds {counted(again, 'image')} more than once, byte by byte."


def save_data_sheet(datasets: Mapping[str, Dataset], normalisation: Normalisation, path: Path) -> Path:
    """Save a picture of a few images of each split, evenly spread, each beside its target over it, below a legend.

    normalisation: of the images. Raises HrsegError where the file cannot be written.
    """
    shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    ignored = False
    for split, dataset in datasets.items():
        count = min(len(dataset), SHEET_IMAGES // len(datasets))
        for i in range(count):
            image, target, name = dataset[i * len(dataset) // count]
            picture = pictures.displayable(image, normalisation)
            blank = np.full_like(picture, 255)
            ignored |= target is not None and bool((target == dataset.space.ignore_index).any())
            labelled = blank if target is None else pictures.overlay(picture, target, dataset.space)
            shown[f"{split}: {name}"] = _fitted(picture), _fitted(labelled)
    height, width = (max(picture.shape[axis] for picture, _ in shown.values()) for axis in (0, 1))
    pairs = []
    for title, pair in shown.items():
        cells = zip(pair, ("image", "label"), strict=True)
        both = pictures.beside([pictures.titled(_padded(picture, height, width), what) for picture, what in cells])
        pairs.append(pictures.titled(both, title))
    sheet = pictures.sheet(pairs, columns=2, gap=12)
    space = next(iter(datasets.values())).space
    colors = pictures.legend_colors(space, ignored=ignored, over_image=True)
    try:
        return pictures.save(pictures.stacked([pictures.legend(colors, sheet.shape[1]), sheet]), path)
    except OSError as error:
        raise HrsegError(path, f"cannot be written: {error.strerror}.", "Choose another --sheet.") from error


def _fitted(picture: np.ndarray) -> np.ndarray:
    """The picture as large as fits into a cell of the sheet."""
    factor = min(cell / side for cell, side in zip(CELL, picture.shape, strict=False))
    height, width = (max(1, int(side * factor)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _padded(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture with white below and to the right."""
    cell = np.full((height, width, 3), 255, np.uint8)
    cell[: picture.shape[0], : picture.shape[1]] = picture
    return cell
