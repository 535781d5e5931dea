"""TIFF, by tifffile: Pillow would silently open 4 x 16 bits as 8-bit RGBA."""

from __future__ import annotations

import io
import logging
import math
import mmap
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hrseg.data.images.decoding import (
    ORIENTATION_TAG,
    TRANSPOSED,
    ImageInfo,
    require_pillow_limit,
    require_size,
    upright,
)
from hrseg.errors import DataError

NODATA_TAG = 42113  # GDAL_NODATA
MOST_TAGS, MOST_PAGES = 1000, 10_000  # what has more than one page is refused with another message

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the DataError says what is wrong with a broken file
_ONE_PAGE = (
    "A file is one image: save a page of its own for each, or several channels in one page, as "
    "tifffile.imwrite(path, array, photometric='minisblack', planarconfig='contig') does for [H, W, C]."
)


class StoredTiff(NamedTuple):
    """A TIFF's array [H, W] or [H, W, C], upright, in its own type. alpha: the last channel is marked as transparency.

    nodata: the value of pixels without data.
    """

    array: np.ndarray
    alpha: bool
    nodata: float | None


def read_tiff(path: Path, palette_to_rgb: bool) -> StoredTiff:
    """An image or mask."""
    import tifffile

    content = path.read_bytes()
    _require_sound_head(path, content)
    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        series, axes = _single_series(path, tif)
        require_pillow_limit(path, series.shape[axes.index("Y")], series.shape[axes.index("X")])
        _require_all_parts(path, tif)
        array = series.asarray(maxworkers=1)
        page = tif.pages.first
        if axes in ("SYX", "CYX"):
            array = np.moveaxis(array, 0, 2)
        if palette_to_rgb and page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            palette = np.asarray(page.colormap) >> 8  # [3, n], 8-bit colours held in 16
            return StoredTiff(upright(palette.astype(np.uint8).T[array], _tiff_orientation(page)), False, None)
        return StoredTiff(upright(array, _tiff_orientation(page)), _has_alpha(page), _nodata(page))


def inspect_tiff(path: Path) -> ImageInfo:
    """As `inspect_image`: all parts of the image must lie within the file."""
    import tifffile

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _require_sound_head(path, content)
    with tifffile.TiffFile(path) as tif:
        series, axes = _single_series(path, tif)
        require_pillow_limit(path, series.shape[axes.index("Y")], series.shape[axes.index("X")])
        _require_all_parts(path, tif)
        sizes = dict(zip(axes, series.shape, strict=True))
        palette = tif.pages.first.photometric == tifffile.PHOTOMETRIC.PALETTE
        height, width = sizes.pop("Y"), sizes.pop("X")
        if _tiff_orientation(tif.pages.first) in TRANSPOSED:
            height, width = width, height
        dtype = np.dtype(np.uint8 if palette or series.dtype == bool else series.dtype)
        dtype = dtype if dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
        page = tif.pages.first
        lacks = not palette and (dtype.kind == "f" or _has_alpha(page) or _nodata(page) is not None)
        return ImageInfo(height, width, 3 if palette else next(iter(sizes.values()), 1), dtype, _has_alpha(page), lacks)


class TiffLayout(NamedTuple):
    """How a TIFF stores its image. planar: channels first. palette: uint8 [n, 3]. transparency: the last channel.

    nodata: the value of pixels without data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    height: int
    width: int
    planar: bool
    palette: np.ndarray | None
    transparency: bool
    orientation: int
    nodata: float | None


def tiff_layout(path: Path, max_pixels: int) -> TiffLayout:
    """The layout of a TIFF, whose pixels are not decoded. Raises DataError where it is broken or too large."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series, axes = _single_series(path, tif)
        page: Any = tif.pages.first
        height, width = (series.shape[axes.index(axis)] for axis in "YX")
        require_size(path, (height, width), max_pixels)
        _require_all_parts(path, tif)
        palette = None
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            palette = (np.asarray(page.colormap) >> 8).astype(np.uint8).T  # 8-bit colours held in 16
        planar, alpha = axes in ("SYX", "CYX"), palette is None and _has_alpha(page)
        nodata = None if palette is not None else _nodata(page)
        shape, dtype, orientation = series.shape, series.dtype, _tiff_orientation(page)
        return TiffLayout(shape, dtype, height, width, planar, palette, alpha, orientation, nodata)


def map_tiff(path: Path) -> np.ndarray:
    """The stored image as an array on disk: the file itself, or decoded into a temporary file."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        return tif.series[0].asarray(out="memmap", maxworkers=1)


def _require_sound_head(path: Path, content: bytes | mmap.mmap) -> None:
    """Refuse a TIFF whose head goes in a circle or lists countless tags: tifffile would follow it for minutes.

    Source: TIFF 6.0, section 2, and the BigTIFF proposal.
    """
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    big = content[2:4] in (b"+\0", b"\0+")
    word, counter, entry = (8, 8, 20) if big else (4, 2, 12)  # bytes of an offset, of a count, of a tag

    def number(at: int, width: int) -> int:
        if at + width > len(content):
            raise DataError(path, "is truncated, or its head is broken.")
        return int.from_bytes(content[at : at + width], order)

    offset, pages = number(8 if big else 4, word), 0
    while offset:
        tags, pages = number(offset, counter), pages + 1
        if tags > MOST_TAGS or pages > MOST_PAGES:
            raise DataError(path, "its head promises more tags or pages than an image has: it is broken.")
        offset = number(offset + counter + tags * entry, word)


def _single_series(path: Path, tif: Any) -> tuple[Any, str]:
    """The one series of a TIFF and its axes. Raises DataError where it is not one image."""
    from tifffile import COMPRESSION, PHOTOMETRIC

    series, page = tif.series[0], tif.pages.first
    axes = series.axes
    if axes in ("YXQ", "QYX") and series.shape[axes.index("Q")] == 1:  # how tifffile writes one channel
        axes = axes.replace("Q", "C")
    if len(tif.series) > 1 or axes not in ("YX", "YXS", "SYX", "CYX", "YXC"):
        raise DataError(path, f"holds {len(tif.pages)} pages, its axes are {axes}.", _ONE_PAGE)
    readable = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)
    jpeg = page.photometric == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG  # decoded to RGB
    if page.photometric not in readable and not jpeg:
        raise DataError(path, f"has {PHOTOMETRIC(page.photometric).name} colours.", "Save it as grey or RGB.")
    return series, axes


def _tiff_orientation(page: Any) -> int:
    tag = page.tags.get(ORIENTATION_TAG)
    return 1 if tag is None else int(tag.value)


def _has_alpha(page: Any) -> bool:
    """Whether the last channel is transparency, premultiplied or not (TIFF 6.0, section 18, ExtraSamples)."""
    return len(page.extrasamples) > 0 and int(page.extrasamples[-1]) in (1, 2)


def _nodata(page: Any) -> float | None:
    """The value of pixels without data, as GDAL writes it: a text in a tag of its own (GDAL, GTiff driver)."""
    tag = page.tags.get(NODATA_TAG)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def _require_all_parts(path: Path, tif: Any) -> None:
    """Raise DataError where parts are missing: tifffile would fill them with zeros."""
    size = tif.filehandle.size
    for page in tif.series[0].pages:
        if page is None:
            continue
        listed, parts = len(page.dataoffsets), math.prod(page.chunked)
        if listed < parts and not page.is_contiguous:
            raise DataError(path, f"its head lists {listed} of the image's {parts} parts: it is broken.")
        if any(o + n > size for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise DataError(path, "is truncated: parts of the image lie behind its end.")
