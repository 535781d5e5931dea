"""How the values of an image become those that a model takes: one rule for all commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hrseg.data.images.kinds import TYPE_WORDS, type_word
from hrseg.errors import DataError
from hrseg.task import Normalisation, full_range

TYPES = tuple(np.dtype(name) for name in TYPE_WORDS)
# 16-bit values that do not go beyond may be 12 bits, or 8, in 16: nothing says where white is.
TWELVE_BITS = 4095

Bounds = Callable[[], tuple[float, float]]


class ValueScale(NamedTuple):
    """Values are multiplied by a factor; None: they stay as they are. note: what that does, for a person."""

    factor: float | None = None
    note: str = ""

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The image [H, W, C]: as it is, uint16 from uint8, else float32."""
        if self.factor is None:
            return pixels
        if pixels.dtype == np.uint8 and self.factor == 257:
            return pixels.astype(np.uint16) * np.uint16(257)
        if self.factor < 1:  # one rounding: 65535 / 257 is 255
            return pixels.astype(np.float32) / np.float32(1 / self.factor)
        return pixels.astype(np.float32) * np.float32(self.factor)


def model_type(normalisation: Normalisation) -> np.dtype | None:
    """The number type of the images that a model was trained on; None: its checkpoint does not say."""
    if normalisation.image_type is not None:
        return np.dtype(normalisation.image_type)
    ranges = set(normalisation.input_range)
    return next((dtype for dtype in TYPES if ranges == {full_range(dtype)}), None)


def value_scale(
    where: object, dtype: np.dtype, measured: Bounds, normalisation: Normalisation, owner: str = "the model"
) -> ValueScale:
    """What brings images of a number type to the values that a model takes.

    Images of the model's own type stay as they are. Between 8 bits, 16 bits and floats from 0 to 1, values are scaled
    where it is certain what they mean: where 16 bits use more than 12 of them, floats do not leave 0 to 1, and the
    model takes its type's whole range. Floats are also taken as they are if they use the model's range.
    measured: called where values decide; the lowest and highest of the images. where, owner: the images, and what they
    are scaled for, in messages.
    Raises DataError, which names both sides, where it is not certain.
    """
    wanted = model_type(normalisation)
    whole = wanted is not None and set(normalisation.input_range) == {full_range(wanted)}
    if wanted is None:
        if dtype == np.uint8 and max(high for _, high in normalisation.input_range) > 255:
            raise _uncertain(where, dtype, None, normalisation, owner)
        return ValueScale()
    if dtype == wanted:
        return ValueScale()
    top = full_range(wanted)[1]
    if dtype.kind == "f":
        low, high = measured()
        if low >= 0 and high <= 1 and whole:
            return ValueScale(top, f"values from 0 to 1 were scaled to the 0 to {top:g} of {owner}")
        if low >= 0 and (1 if wanted == np.uint8 else 255) < high <= max(end for _, end in normalisation.input_range):
            return ValueScale()
        raise _uncertain(where, dtype, (low, high), normalisation, owner)
    if dtype == np.uint16:
        bounds = measured()
        if 0 < bounds[1] <= TWELVE_BITS:
            raise _uncertain(where, dtype, bounds, normalisation, owner)
    if not whole and wanted != np.uint8:
        raise _uncertain(where, dtype, None, normalisation, owner)
    bits = 8 * dtype.itemsize
    return ValueScale(top / full_range(dtype)[1], f"{bits} bits were scaled to the 0 to {top:g} of {owner}")


def _uncertain(
    where: object, dtype: np.dtype, bounds: tuple[float, float] | None, normalisation: Normalisation, owner: str
) -> DataError:
    wanted = model_type(normalisation)
    ranges = " or ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in normalisation.input_range))
    values = "" if bounds is None else f", from {bounds[0]:g} to {bounds[1]:g}"
    takes = f"{owner} takes {f'{type_word(wanted)} ' if wanted else ''}values of {ranges}"
    what = f"values are {type_word(dtype)}{values}; {takes}: how to scale them is not certain."
    return DataError(where, what, "Bring them to the same scale first.")
