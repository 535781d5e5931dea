"""Images and masks from files: every bit of them, or an error that gives the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hrseg.data.images.decoding import (
    TIFF_STARTS,
    DecodedImage,
    ImageInfo,
    as_image_type,
    decoding_errors,
    file_head,
    without_nodata,
)
from hrseg.data.images.png_and_jpeg import inspect_png_or_jpeg, png_depth, read_png_mask, read_png_or_jpeg
from hrseg.data.images.tiff import inspect_tiff, read_tiff
from hrseg.errors import DataError


def read_image(path: str | Path) -> np.ndarray:
    """An image, uint8, uint16 or float32 [H, W, C], from PNG, JPEG or TIFF.

    Grey has one channel, palettes become RGB, a JPEG or TIFF is turned as its orientation tag says (that is how people
    saw it when they drew the mask). Other number types become float32 where it holds every value exactly. Pixels
    without data (NaN, GDAL's nodata value, a transparent colour) are 0.
    Raises DataError with the path and the reason for everything else: a broken file, CMYK, several pages, lost bits.
    """
    return decode_image(path).pixels


def decode_image(path: str | Path) -> DecodedImage:
    """As `read_image`, with what the file says about transparency and pixels without data."""
    path = Path(path)
    head = file_head(path)
    with decoding_errors(path):
        if head.startswith(TIFF_STARTS):
            stored = read_tiff(path, palette_to_rgb=True)
            array = stored.array if stored.array.ndim == 3 else stored.array[:, :, None]
            if array.dtype == bool:
                array = array.astype(np.uint8) * 255
            pixels, valid = without_nodata(array, stored.nodata, alpha=stored.alpha)
            decoded = DecodedImage(pixels, stored.alpha, valid)
        else:
            decoded = read_png_or_jpeg(path, png_depth(head))
        return decoded._replace(pixels=_writable(as_image_type(path, decoded.pixels)))


def read_mask(path: str | Path, *, colors: bool = False) -> np.ndarray:
    """A mask's own values, uint8, uint16 or another integer [H, W], or uint8 [H, W, 3] where it is an RGB image.

    A palette gives its indices; with colors, palettes and grey values become RGB.
    Raises DataError with the path and the reason, also for JPEG, which changes values, and for transparency.
    """
    path = Path(path)
    head = file_head(path)
    with decoding_errors(path):
        if head.startswith(TIFF_STARTS):
            array = read_tiff(path, palette_to_rgb=colors).array
        else:
            array = read_png_mask(path, png_depth(head), colors)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] == 4:
        if (array[:, :, 3] != np.iinfo(array.dtype).max).any():
            raise DataError(path, "is a mask with transparent pixels.", "Save it without an alpha channel.")
        array = array[:, :, :3]
    if array.ndim == 3 and (array.shape[2] != 3 or array.dtype != np.uint8):
        what = f"is a mask with {array.shape[2]} channels of {array.dtype}."
        raise DataError(path, what, "A mask has one channel of ids, or three of 8 bits for a colour.")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(path, f"is a mask of {array.dtype} values.", "Ids are integers: save it as 8 or 16 bit.")
    if colors and array.ndim == 2:
        if array.dtype != np.uint8:
            raise DataError(path, f"holds {array.dtype} values where a colour is expected.")
        array = np.repeat(array[:, :, None], 3, axis=2)
    return _writable(array)


def inspect_image(path: str | Path, *, whole: bool = True) -> ImageInfo:
    """The size and channels that `read_image` would give, and whether the file is whole, without decoding all of it.

    PNG: the checksum of each part. JPEG: decoded at an eighth of its size. TIFF: all its parts lie within the file.
    whole: False reads the head alone.
    Raises DataError as `read_image` does.
    """
    path = Path(path)
    head = file_head(path)
    with decoding_errors(path):
        if head.startswith(TIFF_STARTS):
            return inspect_tiff(path)
        return inspect_png_or_jpeg(path, png_depth(head), whole=whole)


def _writable(array: np.ndarray) -> np.ndarray:
    """Contiguous and writable, copied if need be: torch warns of arrays that lie in a decoder's memory."""
    return np.require(array, requirements=["C", "W"])
