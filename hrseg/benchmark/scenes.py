"""Street scenes of Cityscapes' size in its layout, for what is measured from files: toy city, twice enlarged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hrseg.data.toycity import draw_ids, draw_scene

SIZE = (1024, 2048)
SMOOTH = 0.8  # pixels: with it Pillow's PNGs are 1.9 to 2.3 MB, as those of Cityscapes


def write(root: Path, count: int) -> None:
    """`count` validation images with label and instance ids, and the prediction of each in pred/."""
    for number in range(count):
        picture, annotation = draw_scene(0, "val", number, (SIZE[0] // 2, SIZE[1] // 2))
        ids, instances = draw_ids(annotation["objects"], (SIZE[0] // 2, SIZE[1] // 2))
        picture = cv2.GaussianBlur(cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_CUBIC), (0, 0), SMOOTH)
        ids, instances = (cv2.resize(a, SIZE[::-1], interpolation=cv2.INTER_NEAREST) for a in (ids, instances))
        name = f"city_{number:06d}_000019"
        for path, array in (
            (root / "leftImg8bit" / "val" / "city" / f"{name}_leftImg8bit.png", picture),
            (root / "gtFine" / "val" / "city" / f"{name}_gtFine_labelIds.png", ids),
            (root / "gtFine" / "val" / "city" / f"{name}_gtFine_instanceIds.png", instances),
            (root / "pred" / f"{name}_pred.png", _predicted(ids, number)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def _predicted(ids: np.ndarray, seed: int) -> np.ndarray:
    """Ids a little beside the true ones, and road in a tenth of all patches."""
    patches = (np.random.default_rng(seed).random((SIZE[0] // 16, SIZE[1] // 16)) < 0.1).astype(np.uint8)
    wrong = cv2.resize(patches, SIZE[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(wrong, 7, np.roll(ids, 3, axis=1)).astype(np.uint8)
