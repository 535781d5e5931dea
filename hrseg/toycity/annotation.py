"""The label and instance ids of an annotation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from hrseg.data.cityscapes_labels import BY_NAME


def draw_ids(objects: Sequence[dict], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The label ids, uint8 [H, W], and instance ids, uint16 [H, W], of an annotation's objects in their order.

    An instance is id * 1000 + its number within the image; groups and classes without instances keep the plain id.
    Source: json2labelImg.py and json2instanceImg.py of cityscapesScripts, whose images these equal.
    """
    ids, instances = Image.new("L", size[::-1], 0), Image.new("I", size[::-1], 0)
    count: dict[str, int] = {}
    for item in objects:
        group = item["label"] not in BY_NAME
        label = BY_NAME[item["label"].removesuffix("group") if group else item["label"]]
        if label.id < 0:
            continue
        value = label.id
        if label.has_instances and not group:
            value = label.id * 1000 + count.get(label.name, 0)
            count[label.name] = count.get(label.name, 0) + 1
        polygon = [tuple(p) for p in item["polygon"]]
        ImageDraw.Draw(ids).polygon(polygon, fill=label.id)
        ImageDraw.Draw(instances).polygon(polygon, fill=value)
    return np.asarray(ids), np.asarray(instances).astype(np.uint16)
