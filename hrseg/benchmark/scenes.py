"""Street scenes with Cityscapes' size and layout, for measurements on files: the toy city, enlarged twofold."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hrseg.data.cityscapes_labels import BY_NAME, LABELS
from hrseg.toycity.annotation import draw_ids
from hrseg.toycity.cities import CITIES
from hrseg.toycity.scene import Scene, draw_scene

SIZE = (1024, 2048)
SMOOTH = 0.8  # pixels: with it Pillow's PNGs are 1.9 to 2.3 MB, as those of Cityscapes
# In each image; Cityscapes has 7.0 and 11.8 on average. Source: Cordts et al., CVPR 2016, table of instances per image.
OBJECTS = {"human": 7, "vehicle": 11}
COUNTED = {label.name for label in LABELS if label.has_instances}


def write(root: Path, count: int) -> None:
    """`count` validation images with label and instance ids, and the prediction of each in pred/.

    The ids show as many objects as Cityscapes has on average: those in the picture, and others at twice the distance.
    """
    for number in range(count):
        picture, annotation = draw_scene(0, "val", number, (SIZE[0] // 2, SIZE[1] // 2))
        picture = cv2.GaussianBlur(cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_CUBIC), (0, 0), SMOOTH)
        ids, instances = _ids(annotation["objects"], number)
        name = f"city_{number:06d}_000019"
        for path, array in (
            (root / "leftImg8bit" / "val" / "city" / f"{name}_leftImg8bit.png", picture),
            (root / "gtFine" / "val" / "city" / f"{name}_gtFine_labelIds.png", ids),
            (root / "gtFine" / "val" / "city" / f"{name}_gtFine_instanceIds.png", instances),
            (root / "pred" / f"{name}_pred.png", _predicted(ids, number)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def _ids(objects: list[dict], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Label and instance ids [1024, 2048] of a scene's objects, and of other scenes' until there are OBJECTS."""
    drawn = [_enlarged(each, 2, (0, 0)) for each in objects]
    shown = _shown(drawn)
    for each in _others(seed):
        if all(shown[category] >= wanted for category, wanted in OBJECTS.items()):
            break
        category = BY_NAME[each["label"]].category
        if shown[category] < OBJECTS[category]:
            drawn.append(_enlarged(each, 1, (SIZE[1] // 4, SIZE[0] // 4)))
            shown = _shown(drawn)
    return draw_ids(drawn, SIZE)


def _others(seed: int) -> Iterator[dict]:
    """Objects of one scene after another, without end."""
    for number in itertools.count():
        scene = Scene(np.random.default_rng([seed, number]), CITIES["val"][0], (SIZE[0] // 2, SIZE[1] // 2))
        yield from (each for each in scene.objects if each["label"] in COUNTED)


def _enlarged(item: dict, factor: int, shift: tuple[int, int]) -> dict:
    return item | {"polygon": [[factor * x + shift[0], factor * y + shift[1]] for x, y in item["polygon"]]}


def _shown(objects: list[dict]) -> Counter[str]:
    """How many objects of each category are not hidden."""
    found = np.flatnonzero(np.bincount(draw_ids(objects, SIZE)[1].ravel()))
    category = {label.id: label.category for label in LABELS}
    return Counter(category[value // 1000] for value in found.tolist() if value >= 1000)


def _predicted(ids: np.ndarray, seed: int) -> np.ndarray:
    """The true ids shifted a little, and road in a tenth of all patches."""
    patches = (np.random.default_rng(seed).random((SIZE[0] // 16, SIZE[1] // 16)) < 0.1).astype(np.uint8)
    wrong = cv2.resize(patches, SIZE[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(wrong, 7, np.roll(ids, 3, axis=1)).astype(np.uint8)
