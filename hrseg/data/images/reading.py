"""Images from files: every bit of them, or an error that gives the reason."""

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
from hrseg.data.images.png_and_jpeg import inspect_png_or_jpeg, png_depth, read_png_or_jpeg
from hrseg.data.images.tiff import inspect_tiff, read_tiff


def read_image(path: str | Path) -> np.ndarray:
    """An image, uint8, uint16 or float32 [H, W, C], from PNG, JPEG, TIFF or BMP.

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
