"""COCO's object instances: polygons and run lengths in JSON, one file or several; Roboflow's folders of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from hrseg.importing.image_index import ImageIndex, split_of
from hrseg.importing.records import (
    IGNORED,
    Annotation,
    Area,
    BrokenError,
    Categories,
    Options,
    Picture,
    Problem,
    Source,
    Tree,
)
from hrseg.importing.rle import Polygons, Runs
from hrseg.importing.text_files import each, read_json, required

Id = int | str
KEYS = ("images", "annotations", "categories")


class CocoCategory(BaseModel):
    id: Id
    name: str = Field(min_length=1)
    supercategory: str | None = None
    color: tuple[int, int, int] | None = None


class CocoImage(BaseModel):
    id: Id
    file_name: str = Field(min_length=1)
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class CocoAnnotation(BaseModel):
    id: Id | None = None
    image_id: Id
    category_id: Id
    segmentation: Any = None
    iscrowd: int = 0


class CocoFile(BaseModel):
    images: list[Any]
    annotations: list[Any]
    categories: list[CocoCategory]


def json_files(trees: Iterable[Tree]) -> list[tuple[Tree, str]]:
    return [(tree, path) for tree in trees for path in tree.ending(".json")]


def recognises(trees: Sequence[Tree]) -> bool:
    """Whether a JSON file has COCO's three lists. Of a folder, the first files are looked at."""
    return any(_is_coco(tree.root / path) for tree, path in json_files(trees)[:8])


def _is_coco(path: Path) -> bool:
    plain = read_json(path)
    if not (isinstance(plain, dict) and all(isinstance(plain.get(key), list) for key in KEYS)):
        return False
    return not any(isinstance(a, dict) and "segments_info" in a for a in plain["annotations"][:1])


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Every image of every file; categories with one name are one class, in the order of their ids."""
    index = ImageIndex([options.images] if options.images else [tree.root for tree in trees])
    found = json_files(trees)
    if any(Path(path).name.startswith("instances_") for _, path in found):  # beside captions and key points
        found = [(tree, path) for tree, path in found if Path(path).name.startswith("instances_")]
    files = []
    for tree, path in found:
        plain = read_json(tree.root / path)
        if not (tree.is_folder and _is_other(plain)):
            files.append((tree, path, required(CocoFile, plain, tree.root / path)))
    categories = Categories()
    for entry in sorted((c for _, _, file in files for c in _used(file)), key=_by_id):
        categories.index(entry.name, _color(entry))
    pictures: dict[str, Picture] = {}
    problems: list[Problem] = []
    for tree, path, file in files:
        folder = "" if options.images else path.rpartition("/")[0]
        by_id = _pictures(tree.root / path, file, index, folder, pictures, problems)
        _annotations(tree.root / path, file, by_id, categories, problems)
    return Source("coco", categories.all, list(pictures.values()), problems)


def _is_other(plain: Any) -> bool:
    return not (isinstance(plain, dict) and all(key in plain for key in KEYS))


def _by_id(entry: CocoCategory) -> tuple[bool, int, str]:
    return isinstance(entry.id, str), entry.id if isinstance(entry.id, int) else 0, str(entry.id)


def _color(entry: CocoCategory) -> tuple[int, int, int] | None:
    return entry.color if entry.color and all(0 <= v <= 255 for v in entry.color) else None


def _used(file: CocoFile) -> list[CocoCategory]:
    """Without the entry in which Roboflow names the data set: the parent of others, and of no annotation."""
    parents = {entry.supercategory for entry in file.categories if entry.supercategory != entry.name}
    used = {a.get("category_id") for a in file.annotations if isinstance(a, dict) and _plain(a.get("category_id"))}
    return [entry for entry in file.categories if entry.name not in parents or entry.id in used]


def _plain(value: Any) -> bool:
    return isinstance(value, int | str)


def split_in_name(path: str) -> str | None:
    """train of instances_train2017.json, of train/_annotations.coco.json and of train.json."""
    folder, _, name = path.rpartition("/")
    words = re.split(r"[^A-Za-z]+", name.rpartition(".")[0])
    return next((split for word in (*words, folder.rpartition("/")[2]) if (split := split_of(word))), None)


def _pictures(
    path: Path, file: CocoFile, index: ImageIndex, folder: str, pictures: dict[str, Picture], problems: list[Problem]
) -> dict[Id, Picture | None]:
    """The pictures of a file by id, added to those of all files; None where an image is missing."""
    by_id: dict[Id, Picture | None] = {}
    split = split_in_name(f"{folder}/{path.name}")
    for where, image in each(CocoImage, file.images, path, "image", problems):
        if image.id in by_id:
            problems.append(Problem(where, "two images have this id.", "image"))
            continue
        by_id[image.id] = None
        try:
            key = index.find(image.file_name, folder)
        except BrokenError as error:
            problems.append(Problem(where, error.what, "image"))
            continue
        size = image.height, image.width
        by_id[image.id] = pictures.setdefault(key, Picture(where, index.by_path[key], key, split, size))
    return by_id


def _annotations(
    path: Path, file: CocoFile, by_id: dict[Id, Picture | None], categories: Categories, problems: list[Problem]
) -> None:
    names = {entry.id: entry.name for entry in file.categories}
    for where, entry in each(CocoAnnotation, file.annotations, path, "annotation", problems):
        if entry.image_id not in by_id:
            problems.append(Problem(where, f"there is no image with the id {entry.image_id}."))
            continue
        picture = by_id[entry.image_id]
        if entry.category_id not in names:
            problems.append(Problem(where, f"there is no category with the id {entry.category_id}."))
        elif picture is not None:
            try:
                area = area_of(entry.segmentation)
            except BrokenError as error:
                problems.append(Problem(where, error.what))
                continue
            crowd = entry.iscrowd != 0
            category = IGNORED if crowd else categories.index(names[entry.category_id])
            instance = None if crowd else len(picture.annotations)
            picture.annotations.append(Annotation(where, category, area, instance=instance))


def area_of(segmentation: Any) -> Area:
    """The area of an annotation: a list of polygons, or run lengths. Raises BrokenError."""
    if isinstance(segmentation, dict):
        return Runs(segmentation.get("counts"), segmentation.get("size"))
    if not segmentation:
        raise BrokenError("it has a box only, no mask.")
    if not isinstance(segmentation, list):
        raise BrokenError("its segmentation is neither polygons nor run lengths.")
    rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
    if not all(isinstance(ring, list) for ring in rings):
        raise BrokenError("its segmentation is neither polygons nor run lengths.")
    return Polygons(rings)
