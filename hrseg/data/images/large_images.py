"""An image to predict: any common file or array, of any size, read a band of rows at a time, as a model takes it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hrseg.data.images.decoding import (
    TIFF_STARTS,
    TRANSPOSED,
    Nodata,
    as_image_type,
    both_valid,
    decoding_errors,
    file_head,
    require_size,
    upright,
    without_nodata,
)
from hrseg.data.images.kinds import channel_notes, may_have_channels, with_channels
from hrseg.data.images.listing import IMAGE_ENDINGS
from hrseg.data.images.png_and_jpeg import GREY_ALPHA, RGB, RGBA, pillow_array, pillow_orientation, png_depth
from hrseg.data.images.reading import decode_image
from hrseg.data.images.tiff import map_tiff, tiff_layout
from hrseg.data.images.value_scale import ValueScale, value_scale
from hrseg.errors import DataError
from hrseg.task import Normalisation

MAX_PIXELS = 500_000_000
TILE = 1024  # pixels of the sides of what is predicted at once in a large image
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")  # by Pillow; TIFF by tifffile
ENDINGS = (*IMAGE_ENDINGS, ".webp", ".bmp", ".ppm", ".pgm")

SAMPLE_BANDS, SAMPLE_ROWS = 16, 8  # of an image whose values are looked at before all of it is read

_PILLOW_BAND = 2**25  # pixels that are cut out of a Pillow image at once: below its own limit for one image
_READS_AS = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}
_LIMIT = threading.Lock()

ImageSource = str | Path | np.ndarray | Image.Image


class Rows(NamedTuple):
    """Some rows of an image, [h, W, C]; valid: bool [h, W], where there is data, or None: everywhere."""

    image: np.ndarray
    valid: np.ndarray | None

    def part(self, rows: slice, columns: slice = slice(None)) -> Rows:
        """Some of these rows, or of their columns."""
        return Rows(self.image[rows, columns], None if self.valid is None else self.valid[rows, columns])


@dataclass(frozen=True)
class ImageReader:
    """An image as viewers show it: turned and mirrored as its orientation tag says. A size is (height, width).

    dtype: uint8, uint16 or float32. transparency: its last channel is alpha. nodata: the value of pixels without data.
    notes: what was converted in reading it.
    """

    where: str
    size: tuple[int, int]
    channels: int
    dtype: np.dtype
    transparency: bool
    notes: tuple[str, ...]
    _cut: Callable[[int, int, int, int], np.ndarray]  # top, bottom, left, right, of what is stored
    _orientation: int = 1
    nodata: Nodata | None = None

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom), [bottom - top, W, C] in its own type, 0 where there is no data."""
        return self.valid_rows(top, bottom).image

    def valid_rows(self, top: int, bottom: int) -> Rows:
        """Rows [top, bottom). Raises DataError where a float is infinite."""
        height, width = self.size
        if self._orientation in (3, 4, 7, 8):
            top, bottom = height - bottom, height - top
        box = (0, width, top, bottom) if self._orientation in TRANSPOSED else (top, bottom, 0, width)
        with decoding_errors(Path(self.where)):
            band = upright(self._cut(*box), self._orientation)
            band = band if band.ndim == 3 else band[:, :, None]
            band, valid = without_nodata(band, self.nodata, alpha=self.transparency)
            return Rows(np.ascontiguousarray(as_image_type(Path(self.where), band)), valid)

    def for_model(self, normalisation: Normalisation) -> ModelInput:
        """The image as a model with this normalisation takes it. Raises DataError where it cannot take it."""
        wanted = normalisation.channels
        if not may_have_channels(self.channels, self.transparency, wanted):
            raise DataError(self.where, f"has {self.channels} channels, the model takes {wanted}.")
        seen = ModelInput(self, wanted, ValueScale(), ())
        notes = [*self.notes, *channel_notes(self.channels, self.transparency, wanted)]
        if wanted == 1 < self.channels - self.transparency:
            seen.sample()  # refuses colours before anything is written
        scale = value_scale(self.where, self.dtype, seen.value_bounds, normalisation)
        return replace(seen, scale=scale, notes=tuple(filter(None, [*notes, scale.note])))


@dataclass(frozen=True)
class ModelInput:
    """An image in the channels and the range of values that a model takes, and a note for each conversion."""

    reader: ImageReader
    channels: int
    scale: ValueScale
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.reader.size

    @property
    def may_lack_data(self) -> bool:
        """Whether some pixels may be without data."""
        reader = self.reader
        hidden = reader.transparency and reader.channels != self.channels
        return hidden or reader.nodata is not None or reader.dtype.kind == "f"

    def rows(self, top: int, bottom: int) -> Rows:
        """Rows [top, bottom), uint8, uint16 or float32 [bottom - top, W, C]; 0 where there is no data.

        Raises DataError where an image that looked grey has colours.
        """
        image, valid = self.reader.valid_rows(top, bottom)
        image, opaque = with_channels(self.reader.where, image, self.reader.transparency, self.channels)
        return Rows(self.scale(image), both_valid(valid, opaque))

    def sample(self) -> Rows:
        """A few bands of rows from top to bottom, as one; an image that needs no tiles whole."""
        height, width = self.size
        if height * width <= 4 * TILE**2 or height <= SAMPLE_BANDS * SAMPLE_ROWS:
            return self.rows(0, height)
        starts = (i * (height - SAMPLE_ROWS) // (SAMPLE_BANDS - 1) for i in range(SAMPLE_BANDS))
        bands = [self.rows(start, start + SAMPLE_ROWS) for start in starts]
        valid = [np.ones(band.image.shape[:2], bool) if band.valid is None else band.valid for band in bands]
        return Rows(np.concatenate([band.image for band in bands]), np.concatenate(valid))

    def value_bounds(self) -> tuple[float, float]:
        """The lowest and the highest value of the sample; 0 and 0 where it holds no data."""
        image, valid = self.sample()
        values = image if valid is None else image[valid]
        return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def open_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> ImageReader:
    """An image from a file (PNG, JPEG, TIFF, WebP, BMP, PPM), an array [H, W] or [H, W, C], or a Pillow image.

    Pixels are decoded when the first rows are asked for. Pillow holds them in memory, 4 bytes per pixel for RGB; a TIFF
    stays on disk. max_pixels: larger ones are refused, since a small file can claim to hold a huge image.
    Raises DataError with the path and the reason.
    """
    if isinstance(source, np.ndarray):
        return _array_reader("array", source, max_pixels)
    if isinstance(source, Image.Image):
        return _pillow_reader("image", source, max_pixels)
    path = Path(source)
    head = file_head(path)
    with decoding_errors(path):
        if head.startswith(TIFF_STARTS):
            return _tiff_reader(path, max_pixels)
        with _without_pillow_limit():
            image = Image.open(path, formats=FORMATS)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise DataError(path, f"is an animation of {image.n_frames} pictures.", "Save them one by one.")  # type: ignore[attr-defined]
        require_size(path, (image.height, image.width), max_pixels)
        depth = png_depth(head) if image.format == "PNG" else None
        if depth in ((16, RGB), (16, RGBA), (16, GREY_ALPHA)):
            with _without_pillow_limit():
                array, alpha, valid = decode_image(path)
            if valid is not None:  # a colour that stands for "transparent" becomes a channel of it
                array, alpha = np.dstack([array, valid * np.iinfo(array.dtype).max]).astype(array.dtype), True
            return _array_reader(str(path), array, max_pixels, transparency=alpha)
        return _pillow_reader(str(path), image, max_pixels)


@contextmanager
def _without_pillow_limit() -> Iterator[None]:
    """Pillow's limit, one for the whole process, is replaced by max_pixels, which is checked before decoding."""
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _array_reader(where: str, array: np.ndarray, max_pixels: int, *, transparency: bool | None = None) -> ImageReader:
    if array.ndim not in (2, 3) or array.dtype == bool:
        what = f"is {array.dtype} {list(array.shape)}."
        raise DataError(where, what, "An image is [height, width] or [height, width, channels] of numbers.")
    require_size(where, array.shape[:2], max_pixels)
    dtype = array.dtype if array.dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
    if array.dtype == np.float64:  # what numpy makes of a division: its last digits are not meant
        array = array.astype(np.float32)
    channels = array.shape[2] if array.ndim == 3 else 1
    alpha = channels in (2, 4) if transparency is None else transparency
    cut = lambda top, bottom, left, right: array[top:bottom, left:right]  # noqa: E731
    return ImageReader(where, (array.shape[0], array.shape[1]), channels, dtype, alpha, (), cut)


def _pillow_reader(where: str, image: Image.Image, max_pixels: int) -> ImageReader:
    require_size(where, (image.height, image.width), max_pixels)
    mode = _READS_AS.get(image.mode, image.mode)
    key = image.info.get("transparency")
    if image.mode == "P" and key is not None:
        mode, key = "RGBA", None
    deep = mode.startswith("I")
    if mode not in ("L", "LA", "RGB", "RGBA", "RGBX", "F") and not deep:
        raise DataError(where, f"has {image.mode} colours.", "Save it as RGB.")
    notes = ("CMYK became RGB without a colour profile",) if image.mode == "CMYK" else ()

    def cut(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        step = max(1, _PILLOW_BAND // (right - left))
        parts = [image.crop((left, y, right, min(y + step, bottom))) for y in range(top, bottom, step)]
        arrays = [pillow_array(part if part.mode == mode else part.convert(mode)) for part in parts]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    orientation = pillow_orientation(image)
    stored = (image.height, image.width)
    size = stored[::-1] if orientation in TRANSPOSED else stored
    dtype = np.dtype(np.uint16 if deep else np.float32 if mode == "F" else np.uint8)
    nodata = key if isinstance(key, int | tuple) and image.mode in ("L", "RGB", "I", "I;16") else None
    return ImageReader(
        where, size, Image.getmodebands(mode), dtype, mode.endswith("A"), notes, cut, orientation, nodata
    )


def _tiff_reader(path: Path, max_pixels: int) -> ImageReader:
    layout = tiff_layout(path, max_pixels)
    palette = layout.palette

    @functools.cache
    def stored() -> np.ndarray:
        return np.moveaxis(map_tiff(path), 0, 2) if layout.planar else map_tiff(path)

    def cut(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        part = stored()[top:bottom, left:right]
        if palette is not None:
            return palette[part]
        return part.astype(np.uint8) * 255 if part.dtype == bool else np.asarray(part)

    small = np.uint8 if palette is not None or layout.dtype.kind == "b" else layout.dtype
    dtype = np.dtype(small) if small in (np.uint8, np.uint16) else np.dtype(np.float32)
    channels = 3 if palette is not None else 1 if len(layout.shape) == 2 else layout.shape[0 if layout.planar else 2]
    stored_size = (layout.height, layout.width)
    size = stored_size[::-1] if layout.orientation in TRANSPOSED else stored_size
    about = (channels, dtype, layout.transparency, (), cut, layout.orientation, layout.nodata)
    return ImageReader(str(path), size, *about)
