"""COCO's panoptic labels: a PNG whose colours are ids of segments, and a JSON with the category of each segment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from hrseg.data.images import read_mask
from hrseg.data.pairs import size_mismatch
from hrseg.importing.coco import CocoCategory, CocoFile, CocoImage, Id, json_files, split_in_name
from hrseg.importing.image_index import ImageIndex
from hrseg.importing.mask_files import named, translated
from hrseg.importing.records import (
    IGNORED,
    BrokenError,
    Categories,
    Drawn,
    Options,
    Picture,
    Problem,
    Size,
    Source,
    Tree,
)
from hrseg.importing.text_files import each, read_json, required


class PanopticCategory(CocoCategory):
    isthing: int = 0


class Segment(BaseModel):
    id: int
    category_id: Id
    iscrowd: int = 0


class PanopticAnnotation(BaseModel):
    image_id: Id
    file_name: str
    segments_info: list[Segment]


class PanopticFile(CocoFile):
    categories: list[PanopticCategory]  # type: ignore[assignment]  # one with more fields


def recognises(trees: Sequence[Tree]) -> bool:
    return any(_is_panoptic(read_json(tree.root / path)) for tree, path in json_files(trees)[:8])


def _is_panoptic(plain: Any) -> bool:
    lists = isinstance(plain, dict) and isinstance(plain.get("annotations"), list)
    return lists and any(isinstance(a, dict) and "segments_info" in a for a in plain["annotations"][:1])


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Every pixel has a segment or is void (0), which is ignored; so are crowds. Things keep their objects."""
    files = []
    for tree, path in json_files(trees):
        plain = read_json(tree.root / path)
        if _is_panoptic(plain) or not tree.is_folder:
            files.append((tree, path, required(PanopticFile, plain, tree.root / path)))
    # The PNG files of x.json lie in a folder x.
    folders = tuple(f"{path.removesuffix('.json')}/" for _, path, _ in files)
    images = ImageIndex([options.images] if options.images else [tree.root for tree in trees], but=folders)
    masks = ImageIndex([tree.root for tree in trees])
    categories = Categories()
    entries = [entry for _, _, file in files for entry in file.categories]
    for entry in sorted(entries, key=lambda e: (isinstance(e.id, str), str(e.id).zfill(20))):
        color = entry.color if entry.color and all(0 <= v <= 255 for v in entry.color) else None
        categories.index(entry.name, color)
    problems: list[Problem] = []
    pictures = []
    for tree, path, file in files:
        where = tree.root / path
        pictures += _pictures(where, path, file, (images, masks), categories, problems, bool(options.images))
    return Source("coco_panoptic", categories.all, pictures, problems, complete=True)


def _pictures(
    where: Path,
    path: str,
    file: PanopticFile,
    indices: tuple[ImageIndex, ImageIndex],
    categories: Categories,
    problems: list[Problem],
    elsewhere: bool,
) -> list[Picture]:
    images, masks = indices
    by_id = {image.id: image for _, image in each(CocoImage, file.images, where, "image", problems)}
    table = {entry.id: (categories.index(entry.name), bool(entry.isthing)) for entry in file.categories}
    stem, folder = path.removesuffix(".json"), path.rpartition("/")[0]
    pictures = []
    for place, entry in each(PanopticAnnotation, file.annotations, where, "annotation", problems):
        image = by_id.get(entry.image_id)
        place = f"{where}, image {entry.image_id}"
        if image is None:
            problems.append(Problem(place, f"there is no image with the id {entry.image_id}."))
            continue
        unknown = [segment for segment in entry.segments_info if segment.category_id not in table]
        if unknown:
            what = f"its segment {unknown[0].id} has the category {unknown[0].category_id}, which there is not."
            problems.append(Problem(place, what, "image"))
            continue
        try:
            key = images.find(image.file_name, "" if elsewhere else folder)
            mask = masks.by_path[masks.find(entry.file_name, stem)]
        except BrokenError as error:
            problems.append(Problem(place, error.what, "image"))
            continue
        segments = {s.id: (IGNORED, False) if s.iscrowd else table[s.category_id] for s in entry.segments_info}
        raster = partial(_drawn, mask, segments)
        size = image.height, image.width
        pictures.append(Picture(place, images.by_path[key], key, split_in_name(path), size, raster=raster))
    return pictures


def _drawn(path: Path, segments: dict[int, tuple[int, bool]], size: Size) -> Drawn:
    """Segment ids are red + green * 256 + blue * 65536. Source: panopticapi.utils.rgb2id."""
    mask = read_mask(path, colors=True)
    if mask.shape[:2] != tuple(size):
        raise BrokenError(f"{size_mismatch(size, mask.shape[:2])[:-1]} ({path.name}).")
    wide = mask.astype(np.int32)
    ids = wide[:, :, 0] | wide[:, :, 1] << 8 | wide[:, :, 2] << 16
    meaning = {0: IGNORED, **{i: category for i, (category, _) in segments.items()}}
    labels = translated(ids, meaning, path, lambda i: f"the segment {i} (colour {named(i)[1:-1]})")
    things = [i for i, (_, thing) in segments.items() if thing]
    return Drawn(labels, np.where(np.isin(ids, things), ids, 0))
