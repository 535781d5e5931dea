"""A picture to predict: any common file or array, of any size, read a band of rows at a time, as a model takes it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hrseg.data import image_files as images
from hrseg.errors import DataError
from hrseg.task import Normalisation

MAX_PIXELS = 500_000_000
TILE = 1024  # pixels of the sides of what is predicted at once in a large picture
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")  # by Pillow; TIFF by tifffile
ENDINGS = (*images.IMAGE_ENDINGS, ".webp", ".bmp", ".ppm", ".pgm")

_PILLOW_BAND = 2**25  # pixels that are cut out of a Pillow image at once: below its own limit for one image
_READS_AS = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}
_LIMIT = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A picture as viewers show it: turned and mirrored as its orientation tag says. A size is (height, width).

    dtype: uint8, uint16 or float32. transparency: its last channel is alpha. notes: what was converted in reading it.
    """

    where: str
    size: tuple[int, int]
    channels: int
    dtype: np.dtype
    transparency: bool
    notes: tuple[str, ...]
    _cut: Callable[[int, int, int, int], np.ndarray]  # top, bottom, left, right, of what is stored
    _orientation: int = 1

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom), [bottom - top, W, C] in its own type. Raises DataError where a float is not finite."""
        height, width = self.size
        if self._orientation in (3, 4, 7, 8):
            top, bottom = height - bottom, height - top
        box = (0, width, top, bottom) if self._orientation in images._TRANSPOSED else (top, bottom, 0, width)
        with images._decoding(Path(self.where)):
            band = images._upright(self._cut(*box), self._orientation)
            band = band if band.ndim == 3 else band[:, :, None]
            return np.ascontiguousarray(images._as_image_type(Path(self.where), band))

    def for_model(self, normalisation: Normalisation) -> ForModel:
        """How a model with this normalisation takes it. Raises DataError where it cannot."""
        wanted, steps, notes = normalisation.channels, [], list(self.notes)
        channels = self.channels
        if self.transparency and channels == wanted + 1:
            steps.append(lambda band: band[:, :, :-1])
            notes.append("transparency was left out")
            channels -= 1
        elif self.transparency and (channels, wanted) == (2, 3):
            steps.append(lambda band: band[:, :, :1])
            notes.append("transparency was left out")
            channels = 1
        if (channels, wanted) == (1, 3):
            steps.append(lambda band: np.repeat(band, 3, axis=2))
            notes.append("grey became three equal channels")
            channels = 3
        if channels != wanted:
            raise DataError(self.where, f"has {self.channels} channels, the model takes {wanted}.")
        highest = {high for _, high in normalisation.input_range}
        if self.dtype == np.uint16 and highest == {255.0}:
            steps.append(lambda band: band.astype(np.float32) / 257)
            notes.append("16 bits were scaled to the 0 to 255 of the model")
        elif self.dtype == np.uint8 and highest == {65535.0}:
            steps.append(lambda band: band.astype(np.uint16) * 257)
            notes.append("8 bits were scaled to the 0 to 65535 of the model")
        return ForModel(self, tuple(steps), tuple(notes))


@dataclass(frozen=True)
class ForModel:
    """A picture in the channels and the range of values that a model takes, and a note for each conversion."""

    picture: Picture
    steps: tuple[Callable[[np.ndarray], np.ndarray], ...]
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.size

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom), uint8, uint16 or float32 [bottom - top, W, C]."""
        band = self.picture.rows(top, bottom)
        for step in self.steps:
            band = step(band)
        return band


def open_picture(source: str | Path | np.ndarray | Image.Image, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """A picture from a file (PNG, JPEG, TIFF, WebP, BMP, PPM), an array [H, W] or [H, W, C], or a Pillow image.

    Pixels are decoded when the first rows are asked for. Pillow holds them in memory, 4 bytes a pixel for RGB; a TIFF
    stays on disk. max_pixels: larger ones are refused, since a small file can claim a huge picture.
    Raises DataError with the path and the reason.
    """
    if isinstance(source, np.ndarray):
        return _of_array("array", source, max_pixels)
    if isinstance(source, Image.Image):
        return _of_pillow("image", source, max_pixels)
    path = Path(source)
    start = images._start(path)
    with images._decoding(path):
        if start.startswith(images._TIFF_STARTS):
            return _of_tiff(path, max_pixels)
        with _own_limit():
            image = Image.open(path, formats=FORMATS)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise DataError(path, f"is an animation of {image.n_frames} pictures.", "Save them one by one.")  # type: ignore[attr-defined]
        _check_size(path, (image.height, image.width), max_pixels)
        depth = images._png_depth(start) if image.format == "PNG" else None
        if depth in ((16, images._RGB), (16, images._RGBA), (16, images._GREY_ALPHA)):
            with _own_limit():
                array = images.read_image(path)
            return _of_array(str(path), array, max_pixels, transparency=array.shape[2] == 4)
        return _of_pillow(str(path), image, max_pixels)


@contextmanager
def _own_limit() -> Iterator[None]:
    """Pillow's limit, one for the whole process, gives way to max_pixels, checked before decoding."""
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(where: object, size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        what = f"has {size[0]} x {size[1]} pixels, more than {max_pixels:,}."
        raise DataError(where, what, "If it is what you expect, raise max_pixels (--max-pixels).")
    if 0 in size:
        raise DataError(where, "has no pixels.")


def _of_array(where: str, array: np.ndarray, max_pixels: int, *, transparency: bool | None = None) -> Picture:
    if array.ndim not in (2, 3) or array.dtype == bool:
        what = f"is {array.dtype} {list(array.shape)}."
        raise DataError(where, what, "An image is [height, width] or [height, width, channels] of numbers.")
    _check_size(where, array.shape[:2], max_pixels)
    dtype = array.dtype if array.dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
    channels = array.shape[2] if array.ndim == 3 else 1
    alpha = channels in (2, 4) if transparency is None else transparency
    cut = lambda top, bottom, left, right: array[top:bottom, left:right]  # noqa: E731
    return Picture(where, (array.shape[0], array.shape[1]), channels, dtype, alpha, (), cut)


def _of_pillow(where: str, image: Image.Image, max_pixels: int) -> Picture:
    _check_size(where, (image.height, image.width), max_pixels)
    mode = _READS_AS.get(image.mode, image.mode)
    deep = mode.startswith("I")
    if mode not in ("L", "LA", "RGB", "RGBA", "RGBX", "F") and not deep:
        raise DataError(where, f"has {image.mode} colours.", "Save it as RGB.")
    notes = ("CMYK became RGB without a colour profile",) if image.mode == "CMYK" else ()

    def cut(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        step = max(1, _PILLOW_BAND // (right - left))
        parts = [image.crop((left, y, right, min(y + step, bottom))) for y in range(top, bottom, step)]
        arrays = [images._pillow_array(part if part.mode == mode else part.convert(mode)) for part in parts]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    orientation = images._orientation(image)
    stored = (image.height, image.width)
    size = stored[::-1] if orientation in images._TRANSPOSED else stored
    dtype = np.dtype(np.uint16 if deep else np.float32 if mode == "F" else np.uint8)
    return Picture(where, size, Image.getmodebands(mode), dtype, mode.endswith("A"), notes, cut, orientation)


def _of_tiff(path: Path, max_pixels: int) -> Picture:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        with _own_limit():
            series, axes = images._open_tiff(path, tif)
        page: Any = tif.pages.first
        height, width = (series.shape[axes.index(axis)] for axis in "YX")
        _check_size(path, (height, width), max_pixels)
        images._check_segments(path, tif)
        shape, stored_dtype = series.shape, series.dtype
        palette = None
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            palette = (np.asarray(page.colormap) >> 8).astype(np.uint8).T  # 8-bit colours held in 16
        alpha = page.photometric == tifffile.PHOTOMETRIC.RGB and len(page.extrasamples) == 1
        orientation = images._tiff_orientation(page)
    planar = axes in ("SYX", "CYX")

    @functools.cache
    def stored() -> np.ndarray:
        with tifffile.TiffFile(path) as tif:  # the file itself, or decoded into a temporary one
            array = tif.series[0].asarray(out="memmap", maxworkers=1)
        return np.moveaxis(array, 0, 2) if planar else array

    def cut(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        part = stored()[top:bottom, left:right]
        if palette is not None:
            return palette[part]
        return part.astype(np.uint8) * 255 if part.dtype == bool else np.asarray(part)

    small = np.uint8 if palette is not None or stored_dtype.kind == "b" else stored_dtype
    dtype = np.dtype(small) if small in (np.uint8, np.uint16) else np.dtype(np.float32)
    channels = 3 if palette is not None else 1 if len(shape) == 2 else shape[0 if planar else 2]
    size = (width, height) if orientation in images._TRANSPOSED else (height, width)
    return Picture(str(path), size, channels, dtype, alpha, (), cut, orientation)
