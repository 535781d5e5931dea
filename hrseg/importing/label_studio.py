"""Label Studio's JSON: polygons, rectangles and brush strokes. The door of label_studio_converter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from pydantic import BaseModel, Field

from hrseg.importing.coco import json_files
from hrseg.importing.image_index import ImageIndex, split_in_folders
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
from hrseg.importing.rle import Polygons
from hrseg.importing.text_files import each, missing_extra, read_json

KINDS = ("polygonlabels", "brushlabels", "rectanglelabels")


class Result(BaseModel):
    id: str | int | None = None
    type: str
    value: dict[str, Any]
    original_width: int = Field(gt=0)
    original_height: int = Field(gt=0)
    image_rotation: float = 0


class TaskAnnotation(BaseModel):
    result: list[Any]
    was_cancelled: bool = False


class Task(BaseModel):
    id: str | int | None = None
    data: dict[str, Any]
    annotations: list[TaskAnnotation]


def recognises(trees: Sequence[Tree]) -> bool:
    return any(_is_label_studio(read_json(tree.root / path)) for tree, path in json_files(trees)[:8])


def _is_label_studio(plain: Any) -> bool:
    first = plain[0] if isinstance(plain, list) and plain else None
    return isinstance(first, dict) and "data" in first and isinstance(first.get("annotations"), list)


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Of each task the first annotation that was not cancelled; classes in the order of their names."""
    index = ImageIndex([options.images] if options.images else [tree.root for tree in trees])
    problems: list[Problem] = []
    found: list[tuple[Picture, list[tuple[str, Result]]]] = []
    others = 0
    for tree, path in json_files(trees):
        where, plain = tree.root / path, read_json(tree.root / path)
        if not _is_label_studio(plain):
            continue
        for place, task in each(Task, plain, where, "image", problems):
            kept = [annotation for annotation in task.annotations if not annotation.was_cancelled]
            others += max(0, len(kept) - 1)
            if not kept:
                continue
            try:
                key = _image(task, index)
            except BrokenError as error:
                problems.append(Problem(place, error.what, "image"))
                continue
            results = [r for r in kept[0].result if isinstance(r, dict) and r.get("type") not in ("choices", "rating")]
            sound = list(each(Result, results, where, f"task {task.id}, result", problems))
            size = (sound[0][1].original_height, sound[0][1].original_width) if sound else None
            picture = Picture(place, index.by_path[key], key, split_in_folders(key), size)
            found.append((picture, sound))
    categories = Categories()
    for name in sorted({name for _, results in found for _, result in results for name in _labels(result)}):
        categories.index(name)
    for picture, kept_results in found:
        for number, (place, result) in enumerate(kept_results):
            try:
                names = _labels(result)
                if len(names) != 1:
                    raise BrokenError(f"it has {len(names)} labels.")
                area, category = _area(result), categories.index(names[0])
                picture.annotations.append(Annotation(place, category, area, instance=number))
            except BrokenError as error:
                problems.append(Problem(place, error.what))
    notes = [f"{others} further annotations of the same tasks were not read"] if others else []
    return Source("label_studio", categories.all, [p for p, _ in found], problems, notes=notes)


def _labels(result: Result) -> list[str]:
    names = result.value.get(result.type) if result.type in KINDS else None
    return [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []


def _image(task: Task, index: ImageIndex) -> str:
    """Uploads carry eight characters before their name; local files stand after ?d=."""
    texts = [value for value in task.data.values() if isinstance(value, str)]
    for text in texts:
        name = PurePosixPath(unquote(text.partition("?d=")[2] or text.partition("?")[0]).replace("\\", "/")).name
        for candidate in (name, re.sub(r"^[0-9a-f]{8}-", "", name)):
            try:
                return index.find(candidate)
            except BrokenError:
                continue
    raise BrokenError(f"there is no image '{texts[0][:100] if texts else ''}'.")


def _area(result: Result) -> Area:
    if result.image_rotation:
        raise BrokenError("the image was turned in Label Studio, which is not read.")
    value, width, height = result.value, result.original_width, result.original_height
    if result.type == "polygonlabels":
        points = value.get("points")
        if not isinstance(points, list) or not all(_finite(p) and len(p) == 2 for p in points):
            raise BrokenError("its points are not pairs of finite numbers.")
        return Polygons([[v for x, y in points for v in (x / 100 * width, y / 100 * height)]])
    if result.type == "rectanglelabels":
        numbers: list[Any] = [value.get(key) for key in ("x", "y", "width", "height")]
        if not _finite(numbers) or value.get("rotation"):
            raise BrokenError("it is a turned rectangle, or its numbers are missing.")
        x, y, w, h = (v / 100 * side for v, side in zip(numbers, (width, height, width, height), strict=True))
        return Polygons([[x, y, x + w, y, x + w, y + h, x, y + h]])
    if result.type == "brushlabels":
        return _Brush(value.get("rle"), (height, width))
    raise BrokenError(f"it is of the type '{result.type[:40]}', which is no area that is read.")


def _finite(values: Any) -> bool:
    """Whether this is a list of finite numbers."""
    return isinstance(values, list) and all(type(v) in (int, float) and math.isfinite(v) for v in values)


@dataclass(frozen=True)
class _Brush:
    """Label Studio's packed pixels, a list of bytes: four channels, of which the last is drawn."""

    packed: Any
    own: Size

    def draw(self, size: Size) -> Window:
        try:
            from label_studio_converter.brush import decode_rle
        except ImportError:
            raise missing_extra("label-studio-converter", "labelstudio") from None
        packed = self.packed
        if not isinstance(packed, list) or not all(type(v) is int and 0 <= v < 256 for v in packed):
            raise BrokenError("its brush is not a list of bytes.")
        numbers = 4 * size[0] * size[1]
        if self.own != size or int.from_bytes(bytes(packed[:4]), "big") != numbers:
            raise BrokenError(f"its brush is not for an image of {size[0]}x{size[1]} (height x width).")
        try:
            pixels = decode_rle(packed).reshape(*size, 4)[:, :, 3] > 0
        except (ValueError, IndexError):
            raise BrokenError("its brush is damaged.") from None
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if not rows.size:
            raise BrokenError("it covers no pixel of the image.")
        top, left = int(rows[0]), int(columns[0])
        return Window(top, left, pixels[top : rows[-1] + 1, left : columns[-1] + 1])
