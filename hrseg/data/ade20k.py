"""ADE20K (Zhou et al. 2017), the scene parsing benchmark of 2016: indoor and outdoor scenes, 150 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hrseg.data.compact_strings import compact_names, compact_paths
from hrseg.data.images import list_files
from hrseg.data.pairs import Pairs, ValueTable, distinct_colors, masks_without_image
from hrseg.errors import DataError, nearest
from hrseg.task import IGNORE_INDEX, LabelSpace, SegmentationClass

# The first name of each row of the benchmark's objectInfo150.txt, in its order.
NAMES = """\
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat,
fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter,
sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel, pole, land, bannister, escalator,
ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool,
stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave,
pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan,
fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"""

# The colours are hrseg's own, not those of the benchmark's pictures.
_NAMES = NAMES.replace("\n", " ").split(", ")
CLASSES = tuple(
    SegmentationClass(n, c, id=i)
    for i, (n, c) in enumerate(zip(_NAMES, distinct_colors(len(_NAMES)), strict=True), start=1)
)

SPLITS = {"train": "training", "val": "validation"}
LAYOUT = (
    "images/training/*.jpg, images/validation/*.jpg, annotations/training/*.png and annotations/validation/*.png "
    "(ADEChallengeData2016.zip, unpacked)."
)


class ADE20K(Pairs):
    """The layout of ADEChallengeData2016. In a mask 0 is ignored, 1..150 are the classes. split: train, val."""

    definition = "ade20k"  # an absent class counts as 0
    fully_ignored_is_a_problem = False  # the masks are the benchmark's own

    table: ValueTable

    def __init__(self, root: str | Path, split: str):
        self.root = Path(root)
        if split not in SPLITS:
            raise DataError(self.root, f"ADE20K has no split '{split}'.", nearest(split, SPLITS))
        self.space = LabelSpace(CLASSES)
        self.table = ValueTable({0: IGNORE_INDEX, **{i + 1: i for i in range(len(CLASSES))}})
        folder = self.root / "images" / SPLITS[split]
        found = list_files(folder, (".jpg",))
        self.masks = self.root / "annotations" / SPLITS[split]
        if not found:
            raise DataError(folder, "holds no JPEG.", f"data.root is the folder with {LAYOUT}")
        if not self.masks.is_dir():
            raise DataError(self.masks, "no such folder.", f"data.root is the folder with {LAYOUT}")
        self.names, self.images = compact_names(found), compact_paths(found.values())
        self.targets = compact_paths(f"{self.masks}/{name}.png" for name in found)

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        return self.table(mask, path, "Is it the annotation of ADEChallengeData2016, rather than of the full ADE20K?")

    def strays(self) -> list[str]:
        names = set(self.names)
        return masks_without_image(p for name, p in list_files(self.masks, (".png",)).items() if name not in names)
