"""Windows of GeoTIFF files: images, what is nodata in them, and labels on another grid. The door of rasterio."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hrseg.data.images.decoding import as_image_type
from hrseg.errors import DataError, first_line
from hrseg.importing.records import Size
from hrseg.importing.text_files import missing_extra

OUTSIDE = -1  # in labels: nodata, or beyond their extent


class Grid(NamedTuple):
    """Where the pixels of a raster lie. crs: of rasterio; None where the file has none. transform: an Affine."""

    size: Size
    crs: Any
    transform: Any


class Tile(NamedTuple):
    """A window of a raster: its first row and column, and its size."""

    row: int
    column: int
    size: Size


def _library() -> Any:
    try:
        import rasterio
        import rasterio.features
        import rasterio.io
        import rasterio.warp
        import rasterio.windows
    except ImportError:
        raise missing_extra("rasterio", "geo") from None
    return rasterio


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rasters without georeference
            yield
    except DataError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # GDAL fails in many ways, always because of the file
        raise DataError(path, f"cannot be read as GeoTIFF: {first_line(error)}.") from None


@functools.lru_cache(maxsize=8)
def _opened(path: Path) -> Any:
    return _library().open(path, driver="GTiff")  # no other driver: some of them name further files


def grid_of(path: Path) -> Grid:
    """Where the pixels of a raster lie. Raises DataError where it is none."""
    with _reading(path):
        raster = _opened(path)
        return Grid((raster.height, raster.width), raster.crs, raster.transform)


def bounds_of(grid: Grid, tile: Tile) -> tuple[float, float, float, float]:
    """left, bottom, right, top of a tile in the coordinates of the raster."""
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    columns, rows = (tile.column, tile.column + tile.size[1]), (tile.row, tile.row + tile.size[0])
    corners = [(a * x + b * y + c, d * x + e * y + f) for x in columns for y in rows]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _window(tile: Tile) -> Any:
    return _library().windows.Window(tile.column, tile.row, tile.size[1], tile.size[0])


def _transform(grid: Grid, tile: Tile) -> Any:
    return _library().windows.transform(_window(tile), grid.transform)


def has_data(path: Path, tile: Tile) -> np.ndarray:
    """bool [H, W]: whether a pixel is data, by the nodata value, the alpha band or the mask; NaN never is."""
    with _reading(path):
        raster = _opened(path)
        valid = raster.dataset_mask(window=_window(tile)) > 0
        if any(np.dtype(dtype).kind == "f" for dtype in raster.dtypes):
            valid &= np.isfinite(raster.read(window=_window(tile))).all(axis=0)
        return valid


def tile_as_tiff(path: Path, tile: Tile) -> bytes:
    """A tile as a GeoTIFF of its own, without alpha, in a type that hrseg reads; nodata pixels are 0."""
    rasterio = _library()
    with _reading(path):
        raster = _opened(path)
        alpha = rasterio.enums.ColorInterp.alpha
        bands = [i for i, meaning in zip(raster.indexes, raster.colorinterp, strict=True) if meaning != alpha]
        values = raster.read(bands, window=_window(tile))
        valid = has_data(path, tile)
        values = np.where(valid, values, 0).astype(values.dtype)
        image = as_image_type(path, np.ascontiguousarray(np.moveaxis(values, 0, 2)))
        height, width, channels = image.shape
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": channels, "dtype": image.dtype.name,
            "crs": raster.crs, "transform": _transform(grid_of(path), tile), "compress": "deflate",
            "interleave": "pixel", "photometric": "RGB" if channels == 3 and image.dtype == np.uint8 else "MINISBLACK",
        }  # fmt: skip
        with rasterio.io.MemoryFile() as file:
            with file.open(**profile) as written:
                written.write(np.moveaxis(image, 2, 0))
            return file.read()


def burned(shapes: Sequence[tuple[Any, int]], grid: Grid, tile: Tile, fill: int) -> np.ndarray:
    """int32 [H, W]: the value of the last polygon that holds the centre of a pixel, by rasterio.features.rasterize."""
    if not shapes:
        return np.full(tile.size, fill, np.int32)
    features = _library().features
    return features.rasterize(shapes, out_shape=tile.size, transform=_transform(grid, tile), fill=fill, dtype=np.int32)


def label_values(path: Path) -> list[int]:
    """The values of a label raster, without nodata."""
    with _reading(path):
        raster = _opened(path)
        if raster.count != 1 or np.dtype(raster.dtypes[0]).kind not in "iu":
            what = f"has {raster.count} bands of {raster.dtypes[0]}; labels are one band of integers."
            raise DataError(path, what)
        seen: set[int] = set()
        for _, window in raster.block_windows(1):
            values = raster.read(1, window=window, masked=True)
            seen |= {int(v) for v in np.unique(values.compressed())}
            if len(seen) > 10_000:
                raise DataError(path, "has more than 10,000 values.", "Are these labels?")
        return sorted(seen)


def labels_on(path: Path, grid: Grid, tile: Tile) -> np.ndarray:
    """int32 [H, W]: the values of a label raster on the pixels of a tile, by the nearest; OUTSIDE where it has none."""
    rasterio = _library()
    with _reading(path):
        labels = _opened(path)
        found = np.full(tile.size, OUTSIDE, np.int32)
        crs = grid.crs or labels.crs
        rasterio.warp.reproject(
            rasterio.band(labels, 1), found, src_crs=labels.crs or crs, dst_crs=crs,
            dst_transform=_transform(grid, tile), dst_nodata=OUTSIDE, src_nodata=labels.nodata,
            resampling=rasterio.enums.Resampling.nearest, tolerance=0,  # no approximation
        )  # fmt: skip
        return found


def move_to(source: str | None, target: Any, points: np.ndarray) -> np.ndarray:
    """Coordinates [n, 2] of one reference system in another."""
    rasterio = _library()
    xs, ys = rasterio.warp.transform(source, target, points[:, 0], points[:, 1])
    return np.stack([xs, ys], axis=1)


def same_crs(one: str | None, other: Any) -> bool:
    """Whether two reference systems are the same, or one of them is not known."""
    if one is None or other is None:
        return True
    return bool(_library().crs.CRS.from_user_input(one) == other)
