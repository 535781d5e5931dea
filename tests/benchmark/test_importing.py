"""The benchmark of imports draws what it promises, in small."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hrseg.benchmark.importing import masks_of_polygons
from hrseg.data.images import read_mask


def test_both_sides_write_the_same_masks(tmp_path):
    case = masks_of_polygons(tmp_path, images=2, per_image=5, size=(64, 96))
    for side in case.sides.values():
        side()
    for name in ("0000.png", "0001.png"):
        mask = read_mask(tmp_path / "out" / "masks" / name)
        assert mask.any() and np.array_equal(np.asarray(Image.open(tmp_path / f"1_{name}")), mask)
