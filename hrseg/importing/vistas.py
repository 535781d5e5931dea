"""Mapillary Vistas: config_*.json with the labels, and PNG files of label ids and of instances."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from hrseg.errors import DataError
from hrseg.importing.image_index import ImageIndex, split_in_folders
from hrseg.importing.mask_files import read_values, translated
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
from hrseg.importing.text_files import read_json, required

PER_LABEL = 256  # an instance file holds label * 256 + number


class VistasLabel(BaseModel):
    name: str = Field(min_length=1)
    readable: str = ""
    color: tuple[int, int, int]
    instances: bool = False
    evaluate: bool = True


class VistasConfig(BaseModel):
    labels: list[VistasLabel] = Field(min_length=1)


def _configs(trees: Sequence[Tree]) -> list[tuple[Tree, str]]:
    """The newest version first."""
    found = [(tree, path) for tree in trees for path in tree.ending(".json")]
    named = [(tree, path) for tree, path in found if PurePosixPath(path).name.startswith("config")]
    return [(tree, path) for tree, path in reversed(named) if _is_config(read_json(tree.root / path))]


def _is_config(plain: Any) -> bool:
    labels = plain.get("labels") if isinstance(plain, dict) else None
    return isinstance(labels, list) and bool(labels) and isinstance(labels[0], dict) and "readable" in labels[0]


def recognises(trees: Sequence[Tree]) -> bool:
    return bool(_configs(trees))


def read(trees: Sequence[Tree], options: Options) -> Source:
    """The labels of one version; those that are not evaluated are ignored."""
    configs = _configs(trees)
    if not configs:
        raise DataError(trees[0].root, "has no config_*.json with labels.")
    tree, path = configs[0]
    labels = required(VistasConfig, read_json(tree.root / path), tree.root / path).labels
    version = PurePosixPath(path).stem.removeprefix("config").lstrip("_")  # v1.2, v2.0 or nothing
    categories = Categories()
    meaning = {i: categories.index(v.name, v.color) if v.evaluate else IGNORED for i, v in enumerate(labels)}
    objects = {i for i, v in enumerate(labels) if v.instances and v.evaluate}
    part = f"/{version}/labels/" if version else "/labels/"
    masks = [p for p in tree.ending(".png") if part in f"/{p}"]
    index = ImageIndex([tree.root])
    problems: list[Problem] = []
    pictures = []
    for mask in masks:
        where = str(tree.root / mask)
        folder, _, name = f"/{mask}".rpartition(part)
        beside = [f"{folder}/images/{name[:-4]}{ending}".lstrip("/") for ending in (".jpg", ".png")]
        image = next((key for key in beside if key in index.by_path), None)
        if image is None:
            problems.append(Problem(where, "there is no image for it.", "image"))
            continue
        instances = tree.root / f"{folder}{part.replace('labels', 'instances')}{name}".lstrip("/")
        raster = partial(_drawn, tree.root / mask, instances, meaning, objects)
        pictures.append(Picture(where, index.by_path[image], image, split_in_folders(mask), raster=raster))
    return Source("vistas", categories.all, pictures, problems, complete=True)


def _drawn(path: Path, instances: Path, meaning: dict[int, int], objects: set[int], size: Size) -> Drawn:
    labels = translated(read_values(path, size), meaning, path, str)
    if not instances.is_file():
        return Drawn(labels)
    numbers = read_values(instances, size).astype(np.int64)
    kept = np.isin(numbers // PER_LABEL, list(objects)) & (labels != IGNORED)
    if (translated(numbers[kept] // PER_LABEL, meaning, instances, str) != labels[kept]).any():
        raise BrokenError(f"the instances of {instances.name} have other labels than {path.name}.")
    return Drawn(labels, np.where(kept, numbers + 1, 0))
