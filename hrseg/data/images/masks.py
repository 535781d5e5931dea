"""Masks from files: their own values, or an error that gives the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.data.images.decoding import ORIENTATION_TAG, TIFF_STARTS, decoding_errors, file_head
from hrseg.data.images.png_and_jpeg import png_depth, read_png_mask
from hrseg.data.images.tiff import read_tiff
from hrseg.errors import DataError

NPY_START = b"\x93NUMPY"
INTEGERS = (np.int32, np.int64)


def read_mask(path: str | Path, *, colors: bool = False, lossy: bool = False) -> np.ndarray:
    """A mask's own values, uint8, uint16 or another integer [H, W], or uint8 [H, W, 3] where it is an RGB image.

    A palette gives its indices; with colors, palettes and grey values become RGB. An alpha channel that is the same
    everywhere is left out; three equal channels of 16 bits are one. Floats that are whole numbers become integers.
    lossy: take JPEG too.
    Raises DataError with the path and the reason, also for JPEG, which changes values, and for transparency.
    """
    path = Path(path)
    head = file_head(path)
    with decoding_errors(path):
        if head.startswith(NPY_START):
            array = _read_npy(path)
        elif head.startswith(TIFF_STARTS):
            array = read_tiff(path, palette_to_rgb=colors).array
        else:
            array = read_png_mask(path, png_depth(head), colors, lossy=lossy)
    array = _integers(path, _without_alpha(path, array))
    if array.ndim == 3 and array.dtype != np.uint8 and array.shape[2] == 3 and channels_are_equal(array):
        array = array[:, :, 0]
    if array.ndim == 3 and (array.shape[2] != 3 or array.dtype != np.uint8):
        what = f"is a mask with {array.shape[2]} channels of {array.dtype}."
        raise DataError(path, what, "A mask has one channel of ids, or three of 8 bits for a colour.")
    if colors and array.ndim == 2:
        if array.dtype != np.uint8:
            raise DataError(path, f"holds {array.dtype} values where a colour is expected.")
        array = np.repeat(array[:, :, None], 3, axis=2)
    return np.require(array, requirements=["C", "W"])


def channels_are_equal(array: np.ndarray) -> bool:
    """Whether the three channels of [H, W, 3] hold the same values: grey, saved as RGB."""
    return bool((array[:, :, 0] == array[:, :, 1]).all() and (array[:, :, 0] == array[:, :, 2]).all())


def stored_orientation(path: Path) -> int:
    """The orientation tag of a JPEG or TIFF, by which it is turned when it is read; 1 where there is none."""
    with decoding_errors(path), Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP")) as image:
        return 1 if image.format == "PNG" else int(image.getexif().get(ORIENTATION_TAG, 1))


def _read_npy(path: Path) -> np.ndarray:
    """An array [H, W], or [H, W, C] with the channels last."""
    array = np.load(path, allow_pickle=False)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3):
        raise DataError(path, f"holds an array of {array.ndim} dimensions.", "A mask is [height, width].")
    return array


def _without_alpha(path: Path, array: np.ndarray) -> np.ndarray:
    """The array without a last channel that says nothing: alpha that is the same everywhere, or the only channel."""
    if array.ndim == 3 and array.shape[2] in (2, 4):
        alpha = array[:, :, -1]
        if alpha.size and (alpha != alpha[0, 0]).any():
            raise DataError(path, "is a mask with transparent pixels.", "Save it without an alpha channel.")
        array = array[:, :, :-1]
    return array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _integers(path: Path, array: np.ndarray) -> np.ndarray:
    """Booleans and floats as integers. Raises DataError for a value that is no whole number."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        return array
    if array.dtype.kind != "f":
        raise DataError(path, f"is a mask of {array.dtype} values.", "Ids are integers: save it as 8 or 16 bit.")
    with np.errstate(invalid="ignore"):
        odd = ~(np.abs(array) < 2**31) | (array != np.floor(array))
    if odd.any():
        where = np.argwhere(odd)[0]
        what = f"is a mask of {array.dtype} values, {array[tuple(where)]:g} at row {where[0]}, column {where[1]}."
        raise DataError(path, what, "Ids are whole numbers: save it as 8 or 16 bit.")
    return array.astype(np.int32)
