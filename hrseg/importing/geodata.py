"""Maps: GeoTIFF with polygons or with a label raster, cut into tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.console import counted
from hrseg.errors import DataError
from hrseg.importing.class_tables import read_table
from hrseg.importing.ground import Footprint, split_blocks
from hrseg.importing.polygons import box, moved, tree_of
from hrseg.importing.rasters import (
    OUTSIDE,
    Grid,
    Tile,
    bounds_of,
    burned,
    grid_of,
    has_data,
    label_values,
    labels_on,
    move_to,
    same_crs,
    tile_as_tiff,
)
from hrseg.importing.records import (
    IGNORED,
    UNLABELLED,
    Categories,
    Drawn,
    Options,
    Picture,
    Problem,
    Size,
    Source,
    Tree,
)
from hrseg.importing.vectors import ENDINGS, read_features

TILE, VAL_SHARE = 512, 0.2
MOST_TILES = 1_000_000
RASTERS = (".tif", ".tiff")

Labels = Callable[[Tile], np.ndarray]  # int32 [H, W]: categories, IGNORED, UNLABELLED


def recognises(trees: Sequence[Tree]) -> bool:
    return any(tree.ending(*ENDINGS) for tree in trees) and any(tree.ending(*RASTERS) for tree in trees)


def read(trees: Sequence[Tree], options: Options) -> Source:
    """Every GeoTIFF of the source in tiles; labels are of --labels, or of the one file of polygons in the source."""
    paths = [tree.root / path for tree in trees for path in tree.ending(*RASTERS, *ENDINGS)]
    labels = options.labels
    if labels is None:
        vectors = [path for path in paths if path.suffix.lower() in ENDINGS]
        if len(vectors) != 1:
            told = ", ".join(path.name for path in vectors[:5]) or "none"
            raise DataError(
                trees[0].root, f"has {counted(len(vectors), 'file')} of polygons ({told}).", "--labels FILE says which."
            )
        labels = vectors[0]
    rasters = [path for path in paths if path.suffix.lower() in RASTERS and path.resolve() != labels.resolve()]
    if not rasters:
        raise DataError(trees[0].root, "has no GeoTIFF besides the labels.")
    problems: list[Problem] = []
    categories = Categories()
    is_vector = labels.suffix.lower() in ENDINGS
    make = _of_polygons(labels, options, categories, problems) if is_vector else _of_raster(labels, options, categories)
    side = options.tile or TILE
    tiles: list[tuple[Path, Grid, Tile]] = []
    for path in rasters:
        grid = grid_of(path)
        tiles += [(path, grid, tile) for tile in _tiles(path, grid.size, side)]
    share = VAL_SHARE if options.val_share is None else options.val_share
    splits = split_blocks([_footprint(path, grid, tile) for path, grid, tile in tiles], share)
    named = {
        path: path.stem if len({p.stem for p in rasters}) == len(rasters) else f"{i}_{path.stem}"
        for i, path in enumerate(rasters)
    }
    readers = {path: make(path, grid_of(path)) for path in rasters}
    pictures, both = [], 0
    for (path, _, tile), (split, block) in zip(tiles, splits, strict=True):
        if split is None:
            both += 1
            continue
        name = f"{block}/{named[path]}_{tile.row}_{tile.column}"
        picture = Picture(
            f"{path}, tile at row {tile.row}, column {tile.column}", partial(tile_as_tiff, path, tile), f"{name}.tif",
            split, tile.size, raster=partial(_drawn, path, tile, readers[path]), name=name,
        )  # fmt: skip
        pictures.append(picture)
    notes = [f"tiles of {side} pixels; blocks of ground are train or val as a whole"]
    if both:
        notes.append(f"{counted(both, 'tile')} left out, on ground that is train and val in other images")
    if {split for split, _ in splits} == {"train"}:
        notes.append(
            "too little ground to split by blocks: all of it is train. A smaller --tile, or another map for val"
        )
    return Source("geo", categories.all, pictures, problems, complete=not is_vector, notes=notes)


def _tiles(path: Path, size: Size, side: int) -> list[Tile]:
    rows, columns = range(0, size[0], side), range(0, size[1], side)
    if len(rows) * len(columns) > MOST_TILES:
        raise DataError(
            path, f"has {len(rows) * len(columns):,} tiles, more than {MOST_TILES:,}.", "Choose a larger --tile."
        )
    return [Tile(r, c, (min(side, size[0] - r), min(side, size[1] - c))) for r in rows for c in columns]


def _footprint(path: Path, grid: Grid, tile: Tile) -> Footprint:
    """Rasters without a reference system lie anywhere: each is ground of its own."""
    return Footprint(path if grid.crs is None else str(grid.crs), bounds_of(grid, tile))


def _drawn(path: Path, tile: Tile, labels: Labels, size: Size) -> Drawn | None:
    """The labels of a tile; nodata is ignored. None: there is no ground in it, or none with a label."""
    valid = has_data(path, tile)
    if not valid.any():
        return None
    found = labels(tile)
    found[~valid] = IGNORED
    return None if (found == IGNORED).all() else Drawn(found)


def _of_polygons(
    path: Path, options: Options, categories: Categories, problems: list[Problem]
) -> Callable[[Path, Grid], Labels]:
    """Later features lie on top."""
    features = read_features(path, options.class_field, problems)
    for name in sorted(set(features.classes)):
        categories.index(name)
    values = [categories.index(name) for name in features.classes]

    def on(raster: Path, grid: Grid) -> Labels:
        geometries = features.geometries
        if not same_crs(features.crs, grid.crs):
            geometries = moved(geometries, partial(move_to, features.crs, grid.crs))
        tree = tree_of(geometries)
        return partial(_burned, geometries, values, tree, grid)

    return on


def _burned(geometries: np.ndarray, values: list[int], tree: Any, grid: Grid, tile: Tile) -> np.ndarray:
    near = np.sort(tree.query(box(*bounds_of(grid, tile))))
    return burned([(geometries[i], values[i]) for i in near], grid, tile, UNLABELLED)


def _of_raster(path: Path, options: Options, categories: Categories) -> Callable[[Path, Grid], Labels]:
    """Values are classes: those of the table, else each value that occurs. Nodata and what lies outside are ignored."""
    seen = label_values(path)
    meaning = {OUTSIDE: IGNORED}
    if options.classes:
        for entry in read_table(options.classes):
            if entry.value is None:
                raise DataError(options.classes, f"gives {entry.name} a colour; a label raster has values.")
            meaning[entry.value] = IGNORED if entry.ignored else categories.index(entry.name)
        unknown = [value for value in seen if value not in meaning and value != 255]
        if unknown:
            raise DataError(path, f"has the value {unknown[0]}, which {options.classes} does not list.")
        meaning.setdefault(255, IGNORED)
    else:
        meaning |= {value: categories.index(str(value)) for value in seen}
    known = np.array(sorted(meaning), np.int32)
    of_known = np.array([meaning[int(v)] for v in known], np.int32)

    def on(raster: Path, grid: Grid) -> Labels:
        return lambda tile: of_known[np.searchsorted(known, labels_on(path, grid, tile))]

    return on
