"""Multiclass, binary, multilabel; classes with name and colour; a sample; how its values become numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

IGNORE_INDEX = 255
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Task(StrEnum):
    """What a pixel's answer is.

    MULTICLASS: one of K classes; K logits. BINARY: background (0) or foreground (1); one logit.
    MULTILABEL: for each of L labels yes or no, labels may overlap; L logits.
    """

    MULTICLASS = "multiclass"
    BINARY = "binary"
    MULTILABEL = "multilabel"


class SegmentationClass(NamedTuple):
    """One class: its name, its colour in pictures (red, green, blue), its category where the benchmark has them.

    id: the value that masks of the data set have for it; None: not known.
    """

    name: str
    color: tuple[int, int, int]
    category: str | None = None
    id: int | None = None


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set, in the order of their indices, and how a pixel is answered.

    A binary space has two classes, background and foreground.
    """

    classes: tuple[SegmentationClass, ...]
    task: Task = Task.MULTICLASS
    ignore_index: int = IGNORE_INDEX

    def __post_init__(self) -> None:
        if self.task is Task.BINARY and len(self.classes) != 2:
            raise ValueError(f"a binary task has two classes, background and foreground, not {len(self.classes)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def outputs(self) -> int:
        """Channels of the logits: 1 for a binary task, else one per class."""
        return 1 if self.task is Task.BINARY else len(self.classes)

    @property
    def background(self) -> int | None:
        """The class that stands for nothing, 0: class 0 of a binary task, or if it is black or called background."""
        first = self.classes[0]
        named = first.name.strip("_ ").lower() == "background" or first.color == (0, 0, 0)
        return 0 if self.task is Task.BINARY or (self.task is Task.MULTICLASS and named) else None

    @property
    def nodata_index(self) -> int:
        """What predicted class indices are where the image has no data: 255; 65535 for more than 255 classes."""
        return 255 if self.task is Task.MULTILABEL or len(self.classes) <= 255 else 65535

    @property
    def palette(self) -> np.ndarray:
        """uint8 [256, 3]: the colour of each index; black where there is no class."""
        palette = np.zeros((256, 3), np.uint8)
        for index, c in enumerate(self.classes[:256]):
            palette[index] = c.color
        return palette

    def to_plain(self) -> dict[str, Any]:
        """Plain types only, for a checkpoint."""
        return {
            "classes": [[c.name, list(c.color), c.category, *([] if c.id is None else [c.id])] for c in self.classes],
            "task": self.task.value,
            "ignore_index": self.ignore_index,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> LabelSpace:
        # Files of earlier versions have no ids.
        classes = tuple(
            SegmentationClass(n, (c[0], c[1], c[2]), k, *map(int, ids)) for n, c, k, *ids in plain["classes"]
        )
        return cls(classes, Task(plain["task"]), plain["ignore_index"])


def full_range(dtype: np.dtype) -> tuple[float, float]:
    """The values that images of a number type have if nothing else is known: 0 to 255, 0 to 65535, float 0 to 1."""
    return (0.0, float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0)


@dataclass(frozen=True)
class Normalisation:
    """Value v of channel c becomes ((v - low) / (high - low) - mean[c]) / std[c], with (low, high) = input_range[c].

    image_type: the number type of the images that it was made for, uint8, uint16 or float32; None: not known.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input_range: tuple[tuple[float, float], ...] = ((0.0, 255.0),) * 3
    image_type: str | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == len(self.input_range):
            raise ValueError("mean, std and input_range need one entry per channel")

    @property
    def channels(self) -> int:
        return len(self.mean)

    @classmethod
    def none(cls, channels: int) -> Normalisation:
        """Leaves every value as it is."""
        return cls((0.0,) * channels, (1.0,) * channels, ((0.0, 1.0),) * channels)

    def to_plain(self) -> dict[str, Any]:
        ranges = [list(pair) for pair in self.input_range]
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "input_range": ranges}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Normalisation:
        ranges = tuple((float(low), float(high)) for low, high in plain["input_range"])
        image_type = plain.get("image_type")
        if image_type not in (None, "uint8", "uint16", "float32"):
            raise ValueError(f"images of {image_type}")
        return cls(tuple(plain["mean"]), tuple(plain["std"]), ranges, image_type)


class Sample(NamedTuple):
    """One image with its target, as a data set reads it.

    image: uint8, uint16 or float32 [H, W, C]. target: class indices, integer [H, W] with the ignore index, or
    {0, 1, ignore} uint8 [L, H, W] for multilabel; None where a split has no labels. name: unique within the split, with
    '/' between folders and no file ending.
    """

    image: np.ndarray
    target: np.ndarray | None
    name: str
