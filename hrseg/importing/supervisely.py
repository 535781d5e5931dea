"""Supervisely: meta.json with the classes, and for each image a JSON with polygons, rectangles and bitmaps.

Polygons are filled by OpenCV at whole pixels, as Supervisely does it (supervisely.Polygon.draw).
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pydantic import BaseModel, Field

from hrseg.importing.class_tables import hexadecimal
from hrseg.importing.image_index import ImageIndex, split_in_folders
from hrseg.importing.polygons import require_sound_rings
from hrseg.importing.records import (
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
from hrseg.importing.text_files import each, read_json, required
from hrseg.importing.yolo import filled

META = "meta.json"
MOST_BYTES = 2**28  # of an unpacked bitmap


class MetaClass(BaseModel):
    title: str = Field(min_length=1)
    color: str = ""


class Meta(BaseModel):
    classes: list[MetaClass]


class ImageSize(BaseModel):
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class File(BaseModel):
    size: ImageSize
    objects: list[Any]


class Figure(BaseModel):
    id: int | str | None = None
    classTitle: str
    geometryType: str
    points: dict[str, Any] | None = None
    bitmap: dict[str, Any] | None = None


def _metas(trees: Sequence[Tree]) -> list[tuple[Tree, str]]:
    found = [(tree, path) for tree in trees for path in tree.named(META)]
    return [(tree, path) for tree, path in found if _has_classes(read_json(tree.root / path))]


def _has_classes(plain: Any) -> bool:
    return isinstance(plain, dict) and isinstance(plain.get("classes"), list)


def recognises(trees: Sequence[Tree]) -> bool:
    return bool(_metas(trees)) and any("/ann/" in f"/{path}" for tree in trees for path in tree.ending(".json"))


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Every ann/NAME.json is the image img/NAME beside it."""
    categories, pictures = Categories(), []
    problems: list[Problem] = []
    for tree, path in _metas(trees):
        for entry in required(Meta, read_json(tree.root / path), tree.root / path).classes:
            categories.index(entry.title, hexadecimal(entry.color))
        index = ImageIndex([options.images] if options.images else [tree.root])
        for name in tree.ending(".json"):
            folder, middle, image = f"/{name}".rpartition("/ann/")
            if not middle:
                continue
            where = tree.root / name
            file = required(File, read_json(where), where)
            try:
                key = index.find(image.removesuffix(".json"), f"{folder}/img".lstrip("/"))
            except BrokenError as error:
                problems.append(Problem(str(where), error.what, "image"))
                continue
            picture = Picture(
                str(where), index.by_path[key], key, split_in_folders(name), (file.size.height, file.size.width)
            )
            for number, (place, figure) in enumerate(each(Figure, file.objects, where, "object", problems)):
                try:
                    if figure.classTitle not in categories:
                        raise BrokenError(f"there is no class '{figure.classTitle}' in {META}.")
                    category = categories.index(figure.classTitle)
                    picture.annotations.append(Annotation(place, category, _area(figure), instance=number))
                except BrokenError as error:
                    problems.append(Problem(place, error.what))
            pictures.append(picture)
    return Source("supervisely", categories.all, pictures, problems)


def _area(figure: Figure) -> Area:
    if figure.geometryType == "polygon":
        points = figure.points or {}
        holes = points.get("interior") or []
        return _Polygon(_flat(points.get("exterior")), tuple(_flat(h) for h in holes if isinstance(holes, list)))
    if figure.geometryType == "rectangle":
        left, top, right, bottom = (_flat((figure.points or {}).get("exterior")) + [0.0] * 4)[:4]
        return _Polygon([left, top, right, top, right, bottom, left, bottom], ())
    if figure.geometryType == "bitmap":
        return _Bitmap(figure.bitmap or {})
    raise BrokenError(f"it is a {figure.geometryType[:40]}, which is no area that is read.")


def _flat(points: Any) -> list[float]:
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise BrokenError("its points are not pairs of numbers.")
    return [v for point in points for v in point]


@dataclass(frozen=True)
class _Polygon:
    exterior: list[float]
    interior: tuple[list[float], ...]

    def draw(self, size: Size) -> Window:
        rings = require_sound_rings([self.exterior, *self.interior], size)
        whole = [np.rint(np.reshape(ring, (-1, 2))).astype(np.int32) for ring in rings]
        return filled(whole[:1], whole[1:], size)


@dataclass(frozen=True)
class _Bitmap:
    """A PNG, packed by zlib and written as base64, and the column and row of its first pixel."""

    plain: dict[str, Any]

    def draw(self, size: Size) -> Window:
        origin, data = self.plain.get("origin"), self.plain.get("data")
        if not (isinstance(origin, list) and len(origin) == 2 and all(type(v) is int for v in origin)):
            raise BrokenError("its bitmap has no origin.")
        try:
            content = zlib.decompressobj().decompress(base64.b64decode(data or "", validate=True), MOST_BYTES)
            header = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
            if not content.startswith(b"\x89PNG") or header[0] > size[1] or header[1] > size[0]:
                raise ValueError
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except (binascii.Error, zlib.error, ValueError, TypeError, cv2.error):
            raise BrokenError("its bitmap is damaged, or larger than the image.") from None
        if pixels is None:
            raise BrokenError("its bitmap is damaged.")
        mask = (pixels[:, :, -1] if pixels.ndim == 3 else pixels) > 0
        left, top = origin
        if left < 0 or top < 0 or top + mask.shape[0] > size[0] or left + mask.shape[1] > size[1]:
            raise BrokenError("its bitmap lies outside the image.")
        if not mask.any():
            raise BrokenError("it covers no pixel of the image.")
        return Window(top, left, mask)
