"""Crops around pixels of rare classes: which images hold which class and where, learned once from all targets.

Source: Hoyer et al., DAFormer, CVPR 2022, section 3.2, draws images by class; here the crop is placed as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hrseg.console import progress as progress_bar
from hrseg.data.dataset import Dataset
from hrseg.errors import DataError
from hrseg.files import whole_file
from hrseg.task import Task

PLACES = 16  # of each class in each image that are remembered
RAREST = 1e-3  # a class with a smaller share of the pixels is drawn as if it had this one
FORMAT = 1


class Focus(NamedTuple):
    """Where a crop shall be: row and column of a pixel as shares of the image's height and width."""

    row: float
    column: float


@dataclass(frozen=True)
class ClassPlaces:
    """Pixels of each class in each image of a data set of N images and K classes.

    pixels: int64 [N, K], how many. places: float32 [N, K, PLACES, 2], random ones of them, as (row, column) of their
    centre in shares of height and width; NaN where there are none.
    """

    pixels: np.ndarray
    places: np.ndarray


def find_class_places(dataset: Dataset, folder: Path, *, workers: int = 0, progress: bool = True) -> ClassPlaces:
    """Read all targets of a data set and remember where its classes are.

    folder: of a file that keeps the answer for the next time; it is made anew where masks have changed. A data set
    whose samples are not read from files is read each time. Raises DataError for targets that cannot be read.
    """
    identity = _identity(dataset)
    path = folder / f"class_places_{identity}.npz" if identity else None
    if path and path.exists():
        with np.load(path) as file:
            return ClassPlaces(file["pixels"], file["places"])
    classes = len(dataset.space.classes)
    pixels = np.zeros((len(dataset), classes), np.int64)
    places = np.full((len(dataset), classes, PLACES, 2), np.nan, np.float32)
    with progress_bar(len(dataset), "looking for rare classes", "image", shown=progress) as bar:
        for i, (counts, found) in enumerate(_in_threads(dataset, workers)):
            pixels[i], places[i] = counts, found
            bar.update()
    if path:
        way_out = "Make room there, or set data.cache_dir."
        with whole_file(path, way_out=way_out) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, pixels=pixels, places=places)
    return ClassPlaces(pixels, places)


class RareClasses:
    """Draws, for a share of the samples, a class by inverse frequency, an image that holds it, and a place in it."""

    def __init__(self, known: ClassPlaces, share: float):
        self.known, self.share = known, share
        pixels = known.pixels.sum(0)
        frequency = np.maximum(pixels / max(1, pixels.sum()), RAREST)
        chance = np.where(pixels > 0, 1 / frequency, 0)
        self.chance = chance / chance.sum() if chance.any() else chance
        self.holders = [np.flatnonzero(known.pixels[:, k]) for k in range(len(pixels))]

    def draw(self, index: int, rng: np.random.Generator) -> tuple[int, Focus | None]:
        """The image to take instead of `index`, and where to crop it; (index, None) for the other samples."""
        if rng.random() >= self.share or not self.chance.any():
            return index, None
        drawn = int(rng.choice(len(self.chance), p=self.chance))
        image = int(rng.choice(self.holders[drawn]))
        row, column = self.known.places[image, drawn, rng.integers(PLACES)].tolist()
        return image, Focus(row, column)


def _in_threads(dataset: Dataset, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    def look(i: int) -> tuple[np.ndarray, np.ndarray]:
        return _classes_in(dataset, i)

    if not workers:
        yield from map(look, range(len(dataset)))
        return
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(dataset), 64 * workers):
            yield from pool.map(look, range(first, min(first + 64 * workers, len(dataset))))


def _classes_in(dataset: Dataset, i: int) -> tuple[np.ndarray, np.ndarray]:
    target, space = dataset.sample_target(i), dataset.space
    if target is None:
        raise DataError(dataset.names[i], "has no labels to learn from.", "Train on a split that has them.")
    rng = np.random.default_rng(i)
    size = np.array(target.shape[-2:])
    pixels = np.zeros(len(space.classes), np.int64)
    places = np.full((len(space.classes), PLACES, 2), np.nan, np.float32)
    for k in range(len(space.classes)):
        shown = np.flatnonzero(target[k] == 1 if space.task is Task.MULTILABEL else target == k)
        pixels[k] = len(shown)
        if len(shown):
            chosen = rng.choice(shown, PLACES)
            places[k] = (np.stack(np.divmod(chosen, size[1]), 1) + 0.5) / size
    return pixels, places


def _identity(dataset: Dataset) -> str | None:
    """Changes with the masks, their meaning and their order; None where samples are not read from files."""
    meaning, masks = dataset.meaning(), dataset.all_masks()
    if meaning is None or not len(masks):
        return None
    digest = hashlib.sha256(json.dumps([FORMAT, PLACES, meaning], sort_keys=True, default=str).encode())
    for mask in masks:
        about = Path(mask).stat()
        digest.update(f"{mask}\0{about.st_size}\0{about.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
