"""An image to predict: any common file or array, of any size, read a band of rows at a time, as a model takes it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.data.images.decoding import (
    TIFF_STARTS,
    TRANSPOSED,
    as_image_type,
    decoding_errors,
    file_head,
    require_size,
    upright,
)
from hrseg.data.images.listing import IMAGE_ENDINGS
from hrseg.data.images.png_and_jpeg import GREY_ALPHA, RGB, RGBA, pillow_array, pillow_orientation, png_depth
from hrseg.data.images.reading import read_image
from hrseg.data.images.tiff import map_tiff, tiff_layout
from hrseg.errors import DataError
from hrseg.task import Normalisation

MAX_PIXELS = 500_000_000
TILE = 1024  # pixels of the sides of what is predicted at once in a large image
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")  # by Pillow; TIFF by tifffile
ENDINGS = (*IMAGE_ENDINGS, ".webp", ".bmp", ".ppm", ".pgm")

_PILLOW_BAND = 2**25  # pixels that are cut out of a Pillow image at once: below its own limit for one image
_READS_AS = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}
_LIMIT = threading.Lock()

ImageSource = str | Path | np.ndarray | Image.Image


@dataclass(frozen=True)
class ImageReader:
    """An image as viewers show it: turned and mirrored as its orientation tag says. A size is (height, width).

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
        box = (0, width, top, bottom) if self._orientation in TRANSPOSED else (top, bottom, 0, width)
        with decoding_errors(Path(self.where)):
            band = upright(self._cut(*box), self._orientation)
            band = band if band.ndim == 3 else band[:, :, None]
            return np.ascontiguousarray(as_image_type(Path(self.where), band))

    def for_model(self, normalisation: Normalisation) -> ModelInput:
        """The image as a model with this normalisation takes it. Raises DataError where it cannot take it."""
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
        return ModelInput(self, tuple(steps), tuple(notes))


@dataclass(frozen=True)
class ModelInput:
    """An image in the channels and the range of values that a model takes, and a note for each conversion."""

    reader: ImageReader
    steps: tuple[Callable[[np.ndarray], np.ndarray], ...]
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.reader.size

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom), uint8, uint16 or float32 [bottom - top, W, C]."""
        band = self.reader.rows(top, bottom)
        for step in self.steps:
            band = step(band)
        return band


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
                array = read_image(path)
            return _array_reader(str(path), array, max_pixels, transparency=array.shape[2] == 4)
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
    channels = array.shape[2] if array.ndim == 3 else 1
    alpha = channels in (2, 4) if transparency is None else transparency
    cut = lambda top, bottom, left, right: array[top:bottom, left:right]  # noqa: E731
    return ImageReader(where, (array.shape[0], array.shape[1]), channels, dtype, alpha, (), cut)


def _pillow_reader(where: str, image: Image.Image, max_pixels: int) -> ImageReader:
    require_size(where, (image.height, image.width), max_pixels)
    mode = _READS_AS.get(image.mode, image.mode)
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
    return ImageReader(where, size, Image.getmodebands(mode), dtype, mode.endswith("A"), notes, cut, orientation)


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
    return ImageReader(str(path), size, channels, dtype, layout.transparency, (), cut, layout.orientation)
