"""Labelme: a JSON file for each image, with polygons, boxes, circles, lines and masks.

Shapes are drawn by Pillow's ImageDraw, as Labelme does it (labelme.utils.shape.shape_to_mask).
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from hrseg.importing.coco import json_files
from hrseg.importing.image_index import ImageIndex, split_in_folders
from hrseg.importing.polygons import require_points, require_sound_rings
from hrseg.importing.records import (
    IGNORED,
    Annotation,
    Area,
    BrokenError,
    Categories,
    Options,
    Picture,
    Problem,
    Size,
    Source,
    Tree,
    Window,
)
from hrseg.importing.text_files import each, read_json, read_text, required

LINE_WIDTH = 10  # pixels; Labelme's own
POINT_RADIUS = 5
POINTS = {"circle": 2, "rectangle": 2, "line": 2, "point": 1, "oriented_rectangle": 4}
IGNORED_LABEL = "__ignore__"  # that of Labelme's examples
LABELS = "labels.txt"


class LabelmeShape(BaseModel):
    label: str = Field(min_length=1)
    points: Any
    shape_type: str | None = None
    group_id: int | None = None
    mask: str | None = None


class LabelmeFile(BaseModel):
    shapes: list[Any]
    imagePath: str | None = None
    imageData: str | None = None
    imageHeight: int | None = None
    imageWidth: int | None = None


def recognises(trees: Sequence[Tree]) -> bool:
    return any(_is_labelme(read_json(tree.root / path)) for tree, path in json_files(trees)[:8])


def _is_labelme(plain: Any) -> bool:
    return isinstance(plain, dict) and isinstance(plain.get("shapes"), list) and "imagePath" in plain


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Every JSON file is an image. Classes are in the order of labels.txt where there is one, else of their names."""
    index = ImageIndex([options.images] if options.images else [tree.root for tree in trees])
    files = []
    problems: list[Problem] = []
    for tree, path in json_files(trees):
        plain = read_json(tree.root / path)
        if _is_labelme(plain) or not tree.is_folder:
            where = tree.root / path
            file = required(LabelmeFile, plain, where)
            files.append((where, path, file, list(each(LabelmeShape, file.shapes, where, "shape", problems))))
    listed = [line.strip() for tree in trees for path in tree.named(LABELS) for line in _lines(tree.root / path)]
    used = {shape.label for _, _, _, shapes in files for _, shape in shapes}
    categories = Categories()
    for name in [name for name in listed if name in used] + sorted(used):
        if name != IGNORED_LABEL:
            categories.index(name)
    width = LINE_WIDTH if options.line_width is None else options.line_width
    pictures = []
    for where, path, file, shapes in files:
        try:
            picture = _picture(where, path, file, index, bool(options.images))
        except BrokenError as error:
            problems.append(Problem(str(where), error.what, "image"))
            continue
        for number, (place, shape) in enumerate(shapes):
            category = IGNORED if shape.label == IGNORED_LABEL else categories.index(shape.label)
            instance = (number, None) if shape.group_id is None else (None, shape.group_id)
            area = _area(shape, width)
            instance_of = None if category == IGNORED else instance
            picture.annotations.append(Annotation(f"{place} ({shape.label})", category, area, instance=instance_of))
        pictures.append(picture)
    return Source("labelme", categories.all, pictures, problems)


def _lines(path: Path) -> list[str]:
    return read_text(path).splitlines()


def _picture(where: Path, path: str, file: LabelmeFile, index: ImageIndex, elsewhere: bool) -> Picture:
    """The image beside the file, or the one in it."""
    size = (file.imageHeight, file.imageWidth) if file.imageHeight and file.imageWidth else None
    try:
        key = index.find(file.imagePath or "", "" if elsewhere else path.rpartition("/")[0])
    except BrokenError:
        if not file.imageData:
            raise
        key = path.removesuffix(".json") + ".png"
        return Picture(str(where), partial(_image_inside, where), key, split_in_folders(path), size)
    return Picture(str(where), index.by_path[key], key, split_in_folders(path), size)


def _image_inside(path: Path) -> bytes:
    return _decoded(required(LabelmeFile, read_json(path), path).imageData or "")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BrokenError("what should be base64 in it is damaged.") from None


def _area(shape: LabelmeShape, line_width: int) -> Area:
    if shape.shape_type == "mask":
        return _MaskArea(shape.points, shape.mask or "")
    return _DrawnArea(shape.shape_type or "polygon", shape.points, line_width)


def _flat(points: Any) -> list:
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise BrokenError("its points are not pairs of numbers.")
    return [value for point in points for value in point]


@dataclass(frozen=True)
class _DrawnArea:
    kind: str
    points: Any
    line_width: int

    def draw(self, size: Size) -> Window:
        flat = _flat(self.points)
        points = require_points(flat, size)
        if self.kind == "polygon":
            require_sound_rings([flat], size)
        elif self.kind not in (*POINTS, "linestrip"):
            raise BrokenError(f"its shape_type is '{self.kind}', which is not read.")
        if len(points) != POINTS.get(self.kind, len(points)) or (self.kind == "linestrip" and len(points) < 2):
            raise BrokenError(f"a {self.kind} has {len(points)} points.")
        picture = Image.new("L", (size[1], size[0]))
        _draw(ImageDraw.Draw(picture), self.kind, [(x, y) for x, y in points.tolist()], self.line_width)
        box = picture.getbbox()
        if box is None:
            raise BrokenError("it covers no pixel of the image.")
        left, top, right, bottom = box
        return Window(top, left, np.asarray(picture)[top:bottom, left:right].view(bool))


def _draw(draw: ImageDraw.ImageDraw, kind: str, points: list[tuple[float, float]], line_width: int) -> None:
    if kind in ("circle", "point"):
        x, y = points[0]
        radius = POINT_RADIUS if kind == "point" else math.dist(points[0], points[1])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        draw.line(points, fill=1, width=line_width)
    else:
        draw.polygon(points, outline=1, fill=1)


@dataclass(frozen=True)
class _MaskArea:
    """A PNG, as base64, between two corners."""

    points: Any
    content: str

    def draw(self, size: Size) -> Window:
        corners = require_points(_flat(self.points), size).astype(int)
        if len(corners) != 2:
            raise BrokenError("a mask has its first and its last corner as points.")
        try:
            with Image.open(io.BytesIO(_decoded(self.content)), formats=("PNG",)) as picture:
                (left, top), (right, bottom) = corners.tolist()
                if picture.size != (right - left + 1, bottom - top + 1):
                    raise BrokenError(f"its mask is {picture.height}x{picture.width}, its corners say otherwise.")
                pixels = np.asarray(picture.convert("L")) > 0
        except BrokenError:
            raise
        except Exception:  # Pillow's decoders fail in many ways, always because of the content
            raise BrokenError("its mask is damaged.") from None
        if left < 0 or top < 0 or right >= size[1] or bottom >= size[0]:
            raise BrokenError("its mask lies outside the image.")
        if not pixels.any():
            raise BrokenError("it covers no pixel of the image.")
        return Window(top, left, pixels)
