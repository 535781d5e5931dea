"""CVAT for images 1.1: an XML file with polygons, boxes and masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.errors import DataError
from hrseg.importing.class_tables import hexadecimal
from hrseg.importing.image_index import ImageIndex, split_in_folders, split_of
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
from hrseg.importing.rle import Polygons, Runs
from hrseg.importing.text_files import read_text, read_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NO_AREAS = ("polyline", "points", "skeleton", "cuboid", "ellipse")
START = re.compile(r"\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)*<annotations\b", re.DOTALL)


def _files(trees: Sequence[Tree]) -> list[tuple[Tree, str]]:
    return [(tree, path) for tree in trees for path in tree.ending(".xml") if _is_cvat(tree.root / path)]


def _is_cvat(path: Path) -> bool:
    try:
        return START.match(read_text(path)[:10_000]) is not None
    except DataError:
        return False


def recognises(trees: Sequence[Tree]) -> bool:
    return bool(_files(trees))


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Labels in the order of the task, with their colours."""
    index = ImageIndex([options.images] if options.images else [tree.root for tree in trees])
    categories, pictures = Categories(), []
    problems: list[Problem] = []
    files = _files(trees) or [(tree, path) for tree in trees for path in tree.ending(".xml")]
    for tree, path in files:
        where = tree.root / path
        root = read_xml(where)
        if root.find("track") is not None:
            raise DataError(where, "is CVAT for video.", "Export it as 'CVAT for images 1.1'.")
        for label in root.iterfind("meta//labels/label"):
            if name := (label.findtext("name") or "").strip():
                categories.index(name, hexadecimal((label.findtext("color") or "").strip()))
        folder = "" if options.images else path.rpartition("/")[0]
        for number, image in enumerate(root.iterfind("image")):
            place = f"{where}, image {image.get('name') or f'number {number}'}"
            try:
                picture = _picture(place, image, index, folder)
            except BrokenError as error:
                problems.append(Problem(place, error.what, "image"))
                continue
            picture.annotations += _annotations(place, image, categories, problems)
            pictures.append(picture)
    return Source("cvat", categories.all, pictures, problems)


def _picture(where: str, image: Element, index: ImageIndex, folder: str) -> Picture:
    name = image.get("name") or ""
    size = _number(image, "height"), _number(image, "width")
    key = index.find(name, f"{folder}/images" if folder else "images")
    split = split_of(image.get("subset") or "") or split_in_folders(key)
    return Picture(where, index.by_path[key], key, split, (int(size[0]), int(size[1])))


def _annotations(where: str, image: Element, categories: Categories, problems: list[Problem]) -> Iterator[Annotation]:
    for number, shape in enumerate(child for child in image if child.tag not in ("tag",)):
        place = f"{where}, {shape.tag} {number}"
        try:
            label = shape.get("label") or ""
            if label not in categories:
                raise BrokenError(f"there is no label '{label}'.")
            order = _number(shape, "z_order", "0")
            area = _area(shape)
        except BrokenError as error:
            problems.append(Problem(place, error.what))
            continue
        group = shape.get("group_id") or "0"
        instance = ("group", group) if group != "0" else ("shape", number)
        yield Annotation(place, categories.index(label), area, order, instance)


def _area(shape: Element) -> Area:
    if shape.tag == "polygon":
        return Polygons([_numbers(shape.get("points") or "", "[,;]")])
    if shape.tag == "box":
        if _number(shape, "rotation", "0"):
            raise BrokenError("it is a turned box, which is not read; draw it as a polygon.")
        left, top, right, bottom = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
        return Polygons([[left, top, right, top, right, bottom, left, bottom]])
    if shape.tag == "mask":
        box = [int(_number(shape, name)) for name in ("top", "left", "height", "width")]
        counts = _numbers(shape.get("rle") or "", ",")
        if not all(v.is_integer() for v in counts):
            raise BrokenError("its run lengths are not counts of pixels.")
        return _MaskArea([int(v) for v in counts], *box)
    if shape.tag in NO_AREAS:
        raise BrokenError(f"a {shape.tag} is no area that is read; draw polygons or masks.")
    raise BrokenError(f"it is a '{shape.tag[:40]}', which is not known.")


def _number(element: Element, name: str, default: str = "") -> float:
    text = element.get(name) or default
    try:
        value = float(text)
    except ValueError:
        raise BrokenError(f"its {name} is '{text[:40]}', which is no number.") from None
    if not abs(value) < 2**31:  # nor infinite, nor NaN
        raise BrokenError(f"its {name} is {value:g}.")
    return value


def _numbers(text: str, separators: str) -> list[float]:
    try:
        values = [float(part) for part in re.split(separators, text)]
    except ValueError:
        raise BrokenError("its points or run lengths are not numbers.") from None
    if not all(abs(value) < 2**31 for value in values):
        raise BrokenError("its points or run lengths are too large.")
    return values


@dataclass(frozen=True)
class _MaskArea:
    """Run lengths along the rows of a box, of what is not covered first."""

    counts: list[int]
    top: int
    left: int
    height: int
    width: int

    def draw(self, size: Size) -> Window:
        inside = self.top >= 0 and self.left >= 0 and self.height > 0 and self.width > 0
        if not inside or self.top + self.height > size[0] or self.left + self.width > size[1]:
            raise BrokenError("its mask lies outside the image.")
        own = self.height, self.width
        top, left, mask = Runs(self.counts, own, by_rows=True).draw(own)
        return Window(self.top + top, self.left + left, mask)
