"""What all decoders of images share: formats, orientation, number types, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hrseg.errors import DataError

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_START = b"\x89PNG\r\n\x1a\n"
HEAD_BYTES = 26  # at the start of a file: enough to see what the values of a PNG are
ORIENTATION_TAG = 274  # in EXIF and TIFF
TRANSPOSED = (5, 6, 7, 8)  # its values for images whose rows are stored as columns


class ImageInfo(NamedTuple):
    """The size and type of an image, known before it is read.

    alpha: the last channel is marked as transparency. may_lack_data: some pixels may be without data.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    alpha: bool = False
    may_lack_data: bool = False


class DecodedImage(NamedTuple):
    """An image as it is stored.

    pixels: uint8, uint16 or float32 [H, W, C], 0 where there is no data. alpha: the last channel is marked as
    transparency. valid: bool [H, W], where there is data; None: everywhere, so far as alpha is not concerned.
    """

    pixels: np.ndarray
    alpha: bool
    valid: np.ndarray | None


Nodata = float | tuple[int, ...]  # the value of pixels without data, or one value per channel


@contextmanager
def decoding_errors(path: Path) -> Iterator[None]:
    """Turn what a decoder raises into a DataError: decoders fail in many ways, always because of the file."""
    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise too_large(path) from None
    except Image.UnidentifiedImageError:
        raise DataError(path, "is not an image in PNG, JPEG, TIFF or BMP, or its head is broken.") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        way_out = "Install it with: pip install imagecodecs." if "imagecodecs" in str(error) else ""
        raise DataError(path, f"cannot be decoded: {error or type(error).__name__}.", way_out) from error


def file_head(path: Path) -> bytes:
    """The first bytes of a file. They give its format; the ending of its name does not count."""
    with decoding_errors(path):
        try:
            with path.open("rb", buffering=0) as file:
                start = file.read(HEAD_BYTES)
        except FileNotFoundError:
            raise DataError(path, "no such file.") from None
    if not start:
        raise DataError(path, "is empty (0 bytes).")
    return start


def too_large(path: Path) -> DataError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    return DataError(path, f"has more than {limit} million pixels.", "Cut it into tiles.")


def require_pillow_limit(path: Path, height: int, width: int) -> None:
    """Raise DataError where an image is larger than Pillow would decode."""
    if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise too_large(path)


def require_size(where: object, size: tuple[int, int], max_pixels: int) -> None:
    """Raise DataError where an image of this size has no pixels or more than max_pixels."""
    if size[0] * size[1] > max_pixels:
        what = f"has {size[0]} x {size[1]} pixels, more than {max_pixels:,}."
        raise DataError(where, what, "If it is what you expect, raise max_pixels (--max-pixels).")
    if 0 in size:
        raise DataError(where, "has no pixels.")


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] turned and mirrored as the tag says: TIFF 6.0, section 8, Orientation."""
    if orientation in TRANSPOSED:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def without_nodata(
    array: np.ndarray, nodata: Nodata | None, *, alpha: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """An array [H, W, C] with 0 in pixels without data, and bool [H, W], where there is data; None: everywhere.

    A pixel is without data where a channel is NaN, or where all channels have the value `nodata`. One channel is enough
    in types other than uint8 and uint16, unless the value is 0, which a single channel may well have. A value that the
    type does not have stands for nothing. alpha: the last channel is transparency, which `nodata` says nothing about.
    """
    if nodata is None and array.dtype.kind != "f":
        return array, None
    lacking = np.zeros(array.shape[:2], bool)
    if array.dtype.kind == "f":
        lacking |= np.isnan(array).any(2)
    value = np.atleast_1d(np.asarray(np.nan if nodata is None else nodata))
    with np.errstate(over="ignore", invalid="ignore"):
        own = value.astype(array.dtype)
        known = array.dtype.kind == "f" or bool((own == value).all())
    if known and not np.isnan(value).any():
        equal = (array[..., :-1] if alpha else array) == own
        all_channels = array.dtype in (np.uint8, np.uint16) or not value.any()
        lacking |= equal.all(2) if all_channels else equal.any(2)
    if not lacking.any():
        return array, None
    return np.where(lacking[..., None], array.dtype.type(0), array), ~lacking


def both_valid(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    """Where both have data; None: everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def as_image_type(where: object, array: np.ndarray) -> np.ndarray:
    """An array [H, W, C] as uint8, uint16 or float32.

    Raises DataError for other types, for values that float32 would round, and for those that are not finite.
    """
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind not in "iuf":
        raise DataError(where, f"holds {array.dtype} values.", "Images are 8 or 16 bit integers or floats.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, column, channel = np.argwhere(~np.isfinite(array))[0]
        what = f"channel {channel} is {array[row, column, channel]} at row {row}, column {column}."
        raise DataError(where, what, "Write a number in its place.")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if single.dtype != array.dtype and not np.array_equal(single.astype(array.dtype), array):
        raise DataError(where, f"holds {array.dtype} values that float32 would round.", "Save it as float32.")
    return single
