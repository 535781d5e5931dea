"""The command `tools/check_data.py`: everything that is wrong with a data set, and what it holds, before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from hrseg import build
from hrseg import config as settings
from hrseg import installed_packages as installed
from hrseg.config import Config
from hrseg.console import command, counted, parser
from hrseg.data.checks import Examination, duplicates, examine, refuse
from hrseg.data.dataset import Dataset
from hrseg.errors import HrsegError
from hrseg.report import pictures
from hrseg.task import LabelSpace, Task

SHEET_IMAGES = 12
CELL = (240, 360)  # height, width of one picture of the sheet, at most


def class_weights(pixels: np.ndarray) -> list[float]:
    """A weight a class for the cross entropy: 1 / ln(1.02 + share), scaled so that the classes that occur have mean 1.

    pixels: int64 [K]. Rounded to four digits. A class that does not occur weighs as much as the rarest may.
    Source: ENet, Paszke et al. 2016, arXiv 1606.02147, section 5.2: bounded, where the inverse of a share is not.
    """
    weights = 1 / np.log(1.02 + pixels / max(pixels.sum(), 1))
    scaled = weights / (weights[pixels > 0].mean() if pixels.any() else 1)
    return [round(float(w), 4) for w in scaled]


def positive_weights(found: Examination) -> list[float]:
    """A weight a label for the ones of the binary cross entropy, no / yes in pixels; 1 where there is no yes.

    Source: documentation of torch.nn.BCEWithLogitsLoss, pos_weight.
    """
    ones = np.maximum(found.pixels, 1)
    weights = np.where(found.pixels > 0, (found.valid - found.pixels) / ones, 1)
    return [round(float(w), 4) for w in weights]


@command
def main(argv: Sequence[str]) -> int:
    """tools/check_data.py: look at all pairs of files of both splits; exit code 2 if training would fail or mislead."""
    arguments = parser(
        "Check a data set. All that is wrong is told together: pairs, unreadable files, sizes, ids outside the "
        "classes, images that are in both splits. What is sound is counted: pixels and weights of the classes, a sheet "
        "of pictures.",
        "examples:\n"
        "  tools/check_data.py configs/folder.yaml data.root=data/mine\n"
        "  tools/check_data.py configs/cityscapes.yaml data.workers=8 --sheet cityscapes.png",
    )
    arguments.add_argument("config", metavar="CONFIG", help="a YAML file; configs/ has some")
    arguments.add_argument("settings", nargs="*", metavar="key=value", help="e.g. data.root=data/mine")
    arguments.add_argument(
        "--sheet",
        type=Path,
        metavar="PATH",
        help="picture of images and their labels; default: data.png in the run folder",
    )
    args = arguments.parse_intermixed_args(argv)
    config = settings.load(args.config, args.settings)
    misfits = installed.misfits()
    if misfits:
        raise HrsegError("installed packages", " ".join(misfits), "Install them anew: pip install --editable .")
    names = dict.fromkeys((config.data.train_split, config.data.val_split))
    sets = {split: build.dataset(config, split) for split in names}
    found = {s: examine(d, workers=config.data.workers, digests=len(sets) > 1) for s, d in sets.items()}
    problems = [problem for examination in found.values() for problem in examination.problems]
    problems += _in_both(sets, found)
    problems += _sizes(config, found[config.data.train_split])
    refuse(problems, sets)

    space = sets[config.data.train_split].space
    for split, examination in found.items():
        print(f"{split}: {counted(examination.opened, 'image')}, {_size_range(examination)}, nothing wrong")
    print(_table(space, found))
    print(_weights(space, found[config.data.train_split]))
    sheet = args.sheet or (config.run.dir or Path("runs") / Path(args.config).stem) / "data.png"
    print(f"images and their labels: {_draw(config, sets, sheet)}")
    for warning in _warnings(space, found, config.data.train_split):
        print(f"warning: {warning}")
    return 0


def _in_both(sets: Mapping[str, Dataset], found: Mapping[str, Examination]) -> list[str]:
    problems = []
    for (one, first), (other, second) in pairwise(sets.items()):
        if first.files(0) is not None and second.files(0) is not None:
            twins = duplicates(first, second, (found[one].digests, found[other].digests))
            why = "scores would be of images that were learned from. Keep one."
            problems += [f"{b}: the same file, byte by byte, is in split {one}, as {a}: {why}" for a, b in twins]
    return problems


def _sizes(config: Config, train: Examination) -> list[str]:
    """A batch needs one size."""
    augment, batch = config.augment, config.train.batch_size
    if augment.crop or batch == 1:
        return []
    random = augment.scale is not None and augment.scale[0] != augment.scale[1]
    if not random and len(train.sizes) < 2:
        return []
    why = "augment.scale is random" if random else f"the training images are {_size_range(train)}"
    return [f"augment.crop: is not set, but {why}, and the {batch} images of a batch need one size."]


def _size_range(found: Examination) -> str:
    """The sizes in short."""
    (low, *_), (*_, high) = (sorted(found.sizes, key=lambda size: size[0] * size[1]) for _ in range(2))
    if low == high:
        return f"{low[0]}x{low[1]} (height x width)"
    return f"of {len(found.sizes)} sizes from {low[0]}x{low[1]} to {high[0]}x{high[1]} (height x width)"


def _table(space: LabelSpace, found: Mapping[str, Examination]) -> str:
    """The share of each class in the labelled pixels of each split, and in how many masks it occurs."""
    width = max(len(name) for name in (*space.names, "(ignored)"))
    lines = [f"{'class':{width}}" + "".join(f"  {split + ' pixels':>14}  {'masks':>7}" for split in found)]
    for k, name in enumerate(space.names):
        cells = (f"  {f.pixels[k] / max(f.valid[k], 1):14.3%}  {f.shown_in[k]:7}" for f in found.values())
        lines.append(f"{name:{width}}" + "".join(cells))
    if space.task is not Task.MULTILABEL:
        cells = (f"  {1 - f.valid[0] / max(f.total, 1):14.3%}  {'':7}" for f in found.values())
        lines.append(f"{'(ignored)':{width}}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _weights(space: LabelSpace, train: Examination) -> str:
    """The loss that follows, as YAML takes it."""
    if space.task is Task.MULTICLASS:
        text = ", ".join(f"{w:g}" for w in class_weights(train.pixels))
        origin = "1 / ln(1.02 + share), scaled to a mean of 1 (ENet, Paszke et al. 2016)"
        return (
            f"class weights by {origin}, if you want some:\n  loss: [{{name: cross_entropy, class_weights: [{text}]}}]"
        )
    weights = positive_weights(train)
    text = ", ".join(f"{w:g}" for w in (weights[1:] if space.task is Task.BINARY else weights))
    return f"weights by no / yes in pixels, if you want some:\n  loss: [{{name: bce, pos_weight: [{text}]}}]"


def _warnings(space: LabelSpace, found: Mapping[str, Examination], train: str) -> Iterator[str]:
    for split, examination in found.items():
        absent = [name for name, pixels in zip(space.names, examination.pixels, strict=True) if not pixels]
        if absent and examination.valid.any():
            then = "cannot be learned" if split == train else "cannot be scored"
            yield f"split {split} has no pixel of {', '.join(absent)}: {then}."
        known = [digest for digest in examination.digests if digest]
        again = len(known) - len(set(known))
        if again:
            yield f"split {split} holds {counted(again, 'image')} more than once, byte by byte."


def _draw(config: Config, sets: Mapping[str, Dataset], path: Path) -> Path:
    """A few images of each split, evenly spread, each beside its labels over it; above them what the colours mean."""
    shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, dataset in sets.items():
        count = min(len(dataset), SHEET_IMAGES // len(sets))
        for i in range(count):
            image, target, name = dataset[i * len(dataset) // count]
            picture = pictures.displayable(image, build.normalisation(config, dataset[0]))
            blank = np.full_like(picture, 255)
            labelled = blank if target is None else pictures.overlay(picture, target, dataset.space)
            shown[f"{split}: {name}"] = _fitted(picture), _fitted(labelled)
    height = max(picture.shape[0] for picture, _ in shown.values())
    pairs = {title: pictures.beside([_padded(picture, height) for picture in pair]) for title, pair in shown.items()}
    sheet = pictures.sheet([pictures.titled(pair, title) for title, pair in pairs.items()], columns=2, gap=12)
    space = next(iter(sets.values())).space
    colors = {c.name: c.color for c in space.classes}
    if space.task is not Task.MULTILABEL:
        colors["(ignored)"] = (0, 0, 0)
    try:
        return pictures.save(pictures.stacked([pictures.legend(colors, sheet.shape[1]), sheet]), path)
    except OSError as error:
        raise HrsegError(path, f"cannot be written: {error.strerror}.", "Choose another --sheet.") from error


def _fitted(picture: np.ndarray) -> np.ndarray:
    """As large as fits in a cell of the sheet."""
    factor = min(cell / side for cell, side in zip(CELL, picture.shape, strict=False))
    height, width = (max(1, int(side * factor)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _padded(picture: np.ndarray, height: int) -> np.ndarray:
    """With white below and to the right."""
    cell = np.full((height, CELL[1], 3), 255, np.uint8)
    cell[: picture.shape[0], : picture.shape[1]] = picture
    return cell
