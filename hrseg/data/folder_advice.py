"""What to do about a folder that is not laid out as hrseg reads it: the setting, name or file that mends it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.data.images import MASK_ENDINGS, list_files, read_mask
from hrseg.data.pairs import value_ranges
from hrseg.errors import DataError
from hrseg.task import IGNORE_INDEX, Task

OTHER_NAMES = {
    "images": ("image", "imgs", "img", "jpegimages", "pictures", "photos", "input", "inputs", "data"),
    "masks": (
        "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "segmentation", "gt",
        "groundtruth", "ground_truth", "targets", "target",
    ),
    "val": ("valid", "validation", "dev"),
    "train": ("training",),
    "test": ("testing",),
}  # fmt: skip
OPENED = 40  # masks whose values are looked at where there is no classes.yaml
MOST_CLASSES = 64  # values that may be ids; more are shades


def for_missing_folder(root: Path, name: str) -> str | None:
    """What to do where ROOT/images or ROOT/masks is missing."""
    known = {path.name: path.name.lower() for path in _folders(root)}
    other = next((found for found, lower in known.items() if lower == name or lower in OTHER_NAMES[name]), None)
    if other is not None:
        return f"{root / other} is there: rename it to {name}."
    inside = next((found for found in known if (root / found / name).is_dir()), None)
    if inside is not None:
        return f"{root / inside / name} is there: move it to {root / name / inside}, so that {name}/ holds the splits."
    return None


def for_missing_split(root: Path, split: str) -> str | None:
    """What to do where a split has neither folder nor list."""
    other = _other_split(root, split)
    part = "train" if split == "train" else "val"
    return f"'{other}' is there: set data.{part}_split={other}" if other else None


def validation_split(root: Path) -> str | None:
    """The folder of images/ for validation, whatever it is called."""
    return "val" if (root / "images" / "val").is_dir() else _other_split(root, "val", lists=False)


def _other_split(root: Path, split: str, *, lists: bool = True) -> str | None:
    names = [path.name for path in _folders(root / "images")]
    if lists:
        names += [path.stem for path in sorted(root.glob("*.txt"))]
    return next((name for name in names if name.lower() in OTHER_NAMES.get(split, ())), None)


def common_suffix(missing: Sequence[str], masks: Mapping[str, str]) -> str | None:
    """What the names of masks add to those of the images that have none, if it is the same for all of them."""
    first = missing[0]
    for suffix in sorted({name[len(first) :] for name in masks if name.startswith(first)}, key=len):
        if "/" not in suffix and all(name + suffix in masks for name in missing):
            return suffix
    return None


def for_missing_classes(path: Path, masks: Path, task: Task) -> tuple[str, str]:
    """What is wrong where there is no classes.yaml, and its text, going by the masks."""
    what, plain = "no such file.", "Write the names of the classes into it: [road, sky]"
    if task is Task.MULTILABEL:
        names = ", ".join(folder.name for folder in _folders(masks))
        return what, f"masks/ has a folder per class, so write into it: [{names}]" if names else plain
    try:
        values, colors = _contents(masks)
    except DataError:
        return what, plain
    if colors:
        lines = [f"- {{name: class_{i}, color: [{', '.join(map(str, c))}]}}" for i, c in enumerate(sorted(colors))]
        if len(lines) > MOST_CLASSES:
            return f"{what[:-1]}; the masks hold {len(lines)} colors and more.", "Are they photographs, or JPEG?"
        return f"{what[:-1]}; the masks hold {len(lines)} colors.", _to_paste(lines)
    if not values:
        return what, plain
    held = f"{what[:-1]}; the masks hold {value_ranges(values)}."
    if len(values) > MOST_CLASSES:
        return (
            held,
            "So many values are shades of grey or objects, not classes. Masks with grey edges: data.masks=threshold.",
        )
    classes = sorted(values - {IGNORE_INDEX}) if len(values) > 2 else sorted(values)
    if len(classes) == 2 and classes[0] == 0:
        lines = [f"- {{name: foreground, id: {classes[1]}}}"]
        return held, f"{_to_paste(lines)}\nand set data.task=binary."
    if classes == list(range(len(classes))):
        return held, _to_paste([f"- class_{value}" for value in classes])
    return held, _to_paste([f"- {{name: class_{value}, id: {value}}}" for value in classes])


def _to_paste(lines: Iterable[str]) -> str:
    return "Write into it, with names that say more:\n" + "\n".join(lines)


def _contents(masks: Path) -> tuple[set[int], set[tuple[int, ...]]]:
    """The values of some masks, evenly spread, and the colours of those that are RGB."""
    paths = list(list_files(masks, MASK_ENDINGS).values()) if masks.is_dir() else []
    values: set[int] = set()
    colors: set[tuple[int, ...]] = set()
    for path in paths[:: max(1, len(paths) // OPENED)]:
        try:
            mask = read_mask(path)
        except DataError:
            continue
        if mask.ndim == 2:
            values |= {*np.unique(mask).tolist()}
        elif len(colors) <= MOST_CLASSES:
            colors |= {tuple(color) for color in np.unique(mask.reshape(-1, 3), axis=0).tolist()}
    if colors and all(len({*color}) == 1 for color in colors):  # grey, saved as RGB
        return values | {color[0] for color in colors}, set()
    return values, colors


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            found: list[Any] = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(Path(entry.path) for entry in found)
