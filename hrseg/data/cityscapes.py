"""Cityscapes (Cordts et al. 2016): street scenes of 50 cities, 19 classes in 7 categories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from hrseg.data.cityscapes_labels import CLASSES, LABELS, class_to_id
from hrseg.data.compact_strings import compact_names, compact_paths
from hrseg.data.images import walk
from hrseg.data.pairs import Pairs, ValueTable, masks_without_image
from hrseg.errors import DataError, nearest
from hrseg.task import IGNORE_INDEX, LabelSpace

# One per class, for the cross entropy. Source: the official HRNet segmentation code, which always uses them here.
CLASS_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)

LAYOUT = """\
leftImg8bit/<split>/<city>/<name>_leftImg8bit.png and gtFine/<split>/<city>/<name>_gtFine_labelIds.png \
(leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpacked into one folder)."""

SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
SPLITS["train_extra"] = ("train_extra",)  # the images with coarse labels only


class Cityscapes(Pairs):
    """The official layout.

    split: train, val, trainval, test (no labels), train_extra (coarse labels). labels: which of the benchmark's files
    are read. coarse: train and trainval also have the images of train_extra, with their coarse labels.
    """

    boundary_ratio = 0.005  # Cheng et al., Boundary IoU, CVPR 2021: half a percent of the diagonal
    prediction_ids = "labels"
    label_table = LABELS
    label_ids = class_to_id()

    table: ValueTable

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        labels: Literal["labelIds", "labelTrainIds"] = "labelIds",
        coarse: bool = False,
    ):
        self.root, self.split, self.labels = Path(root), split, labels
        if split not in SPLITS:
            raise DataError(self.root, f"Cityscapes has no split '{split}'.", nearest(split, SPLITS))
        if labels not in ("labelIds", "labelTrainIds"):
            raise DataError("data.labels", f"'{labels}' is not a kind of label file.", "Use labelIds or labelTrainIds.")
        self.space = LabelSpace(CLASSES)
        # labelIds draws no license plate (id -1), so every value of a file is one of the others.
        ids = {label.id: label.train_id for label in LABELS if label.id >= 0}
        train_ids = {i: i for i in (*range(len(CLASSES)), IGNORE_INDEX)}
        self.table = ValueTable(ids if labels == "labelIds" else train_ids)

        self.parts = SPLITS[split]
        if coarse and "train" in self.parts:
            self.parts = (*self.parts, "train_extra")
        self.fully_ignored_is_a_problem = "train_extra" not in self.parts
        listed = [row for part in self.parts for row in self._list(part)]
        names, images, targets = zip(*listed, strict=True)
        self.names, self.images = compact_names(names), compact_paths(images)
        self.targets = None if split == "test" else compact_paths(targets)
        if self.targets and not any(map(os.path.exists, self.targets)):
            what = f"has images of split '{split}', but not one of their masks, such as {self.targets[0].name}."
            way_out = f"Expected: {LAYOUT}"
            if labels == "labelTrainIds":
                way_out = "csCreateTrainIdLabelImgs makes labelTrainIds; without them set data.labels: labelIds."
            raise DataError(self.root, what, way_out)

    def _list(self, part: str) -> list[tuple[str, str, str]]:
        """The name, image and mask of each sample."""
        folder = self.root / "leftImg8bit" / part
        found = [path for path in walk(folder) if path.endswith("_leftImg8bit.png")]
        if not found:
            raise DataError(folder, "holds no *_leftImg8bit.png.", f"data.root is the folder with {LAYOUT}")
        start = len(str(folder)) + 1
        names = [path[start:].removesuffix("_leftImg8bit.png").replace(os.sep, "/") for path in found]
        masks, ending = self._masks(part), self._ending(part)
        return [(name, path, f"{masks}/{name}{ending}") for name, path in zip(names, found, strict=True)]

    def _masks(self, part: str) -> Path:
        return self.root / ("gtCoarse" if part == "train_extra" else "gtFine") / part

    def _ending(self, part: str) -> str:
        return f"_{'gtCoarse' if part == 'train_extra' else 'gtFine'}_{self.labels}.png"

    def instance_path(self, i: int) -> Path | None:
        if self.targets is None:
            return None
        return self.targets[i].with_name(self.targets[i].name.replace(f"_{self.labels}.", "_instanceIds."))

    @staticmethod
    def image_key(stem: str) -> str:
        """City, sequence and frame, by which the benchmark identifies an image, from the name of any of its files."""
        return "_".join(stem.split("_")[:3])

    def cluster(self, i: int) -> str:
        return self.names[i].split("/")[0]

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        other = "labelTrainIds" if self.labels == "labelIds" else "labelIds"
        return self.table(mask, path, f"Does it hold {other}? Set data.labels: {other}, or write {self.labels}.")

    def strays(self) -> list[str]:
        known = set(map(str, self.targets or ()))
        masks = (p for part in self.parts for p in walk(self._masks(part)) if p.endswith(self._ending(part)))
        return [] if self.targets is None else masks_without_image(path for path in masks if path not in known)

    def doubt(self, pixels: np.ndarray) -> str | None:
        # TrainIds 0..18 taken for ids are at most road, sidewalk, building, wall, fence and pole (ids 7 to 17).
        if self.labels == "labelIds" and pixels.sum() and not pixels[6:].any():
            what = f"no mask of split '{self.split}' has an id above 18, as if they held trainIds."
            return f"{self.root}: {what} Write labelIds, or set data.labels: labelTrainIds."
        return None
