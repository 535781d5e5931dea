"""CamVid (Brostow et al. 2008) as SegNet (Badrinarayanan et al. 2017) released it: street scenes, 11 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hrseg.data.compact_strings import compact_names, compact_paths
from hrseg.data.images import list_files
from hrseg.data.pairs import Pairs, ValueTable, masks_without_image
from hrseg.errors import DataError, nearest
from hrseg.task import IGNORE_INDEX, LabelSpace, SegmentationClass

VOID = 11
SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
CLASSES = (
    SegmentationClass("sky", (128, 128, 128), id=0),
    SegmentationClass("building", (128, 0, 0), id=1),
    SegmentationClass("pole", (192, 192, 128), id=2),
    SegmentationClass("road", (128, 64, 128), id=3),
    SegmentationClass("pavement", (60, 40, 222), id=4),
    SegmentationClass("tree", (128, 128, 0), id=5),
    SegmentationClass("sign", (192, 128, 128), id=6),
    SegmentationClass("fence", (64, 64, 128), id=7),
    SegmentationClass("car", (64, 0, 128), id=8),
    SegmentationClass("pedestrian", (64, 64, 0), id=9),
    SegmentationClass("bicyclist", (0, 128, 192), id=10),
)
LAYOUT = "train/ and trainannot/, val/ and valannot/, test/ and testannot/, files of the same names, PNG."


class CamVid(Pairs):
    """Index masks 0..10; 11 is void and ignored. split: train, val, test, or trainval for the first two together."""

    table: ValueTable

    def __init__(self, root: str | Path, split: str):
        self.root = Path(root)
        if split not in SPLITS:
            raise DataError(self.root, f"CamVid has no split '{split}'.", nearest(split, SPLITS))
        self.space = LabelSpace(CLASSES)
        self.table = ValueTable({**{i: i for i in range(VOID)}, VOID: IGNORE_INDEX})
        self.parts = SPLITS[split]
        images: dict[str, str] = {}
        targets: dict[str, str] = {}
        for part in self.parts:
            found, masks = list_files(self.root / part, (".png",)), self.root / f"{part}annot"
            if not found:
                raise DataError(self.root / part, "holds no PNG.", f"data.root is the folder with {LAYOUT}")
            if not masks.is_dir():
                raise DataError(masks, "no such folder.", f"data.root is the folder with {LAYOUT}")
            images |= found
            targets |= {name: f"{masks}/{name}.png" for name in found}
        self.names, self.images = compact_names(images), compact_paths(images.values())
        self.targets = compact_paths(targets.values())

    def cluster(self, i: int) -> str:
        """The recorded sequence: 0016E5 of 0016E5_07959."""
        return self.names[i].split("_")[0]

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        return self.table(mask, path, "This is the 11-class release with index masks, void is 11.")

    def strays(self) -> list[str]:
        names = set(self.names)
        annotations = (
            item for part in self.parts for item in list_files(self.root / f"{part}annot", (".png",)).items()
        )
        return masks_without_image(path for name, path in annotations if name not in names)
