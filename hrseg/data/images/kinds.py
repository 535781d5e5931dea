"""Channels and number types: what most images of a data set have, and how an image gets the wanted channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from hrseg.data.images.decoding import DecodedImage, ImageInfo
from hrseg.data.images.reading import decode_image, inspect_image
from hrseg.errors import DataError

Item = TypeVar("Item")

HEADS_READ = 64  # of a data set, evenly spread
IMAGES_READ = 4  # where heads do not tell enough
TYPE_WORDS = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}


def type_word(dtype: np.dtype) -> str:
    """A number type for a person: 8-bit, 16-bit, float."""
    return TYPE_WORDS.get(dtype.name, dtype.name)


class ImageKind(NamedTuple):
    """Channels and number type of the images of a data set.

    alpha: all have one more channel, which is transparency.
    """

    channels: int
    dtype: np.dtype
    alpha: bool = False

    def __str__(self) -> str:
        return f"{type_word(self.dtype)} images of {self.channels} channel{'s' * (self.channels != 1)}"


def common_kind(paths: Sequence[Path]) -> ImageKind:
    """What most of the images are, by the heads of at most 64 of them, evenly spread; broken files do not count.

    Grey images are repeated among RGB ones, so three channels are common to both if any of the RGB images has a colour.
    A channel that is marked as transparency counts as one only if other values than transparent and opaque are in it:
    tools mark the fourth band of a satellite image so. Raises DataError where none of the files can be read.
    """
    infos: list[tuple[Path, ImageInfo]] = []
    errors: list[DataError] = []
    for path in spread(paths, HEADS_READ):
        try:
            infos.append((path, inspect_image(path, whole=False)))
        except DataError as error:
            errors.append(error)
    if not infos:
        raise errors[0]
    channels, alpha = _common_channels(infos)
    return ImageKind(channels, Counter(info.dtype for _, info in infos).most_common(1)[0][0], alpha)


def spread(items: Sequence[Item], at_most: int) -> list[Item]:
    """Some of a sequence, evenly spread, the first among them."""
    count = min(len(items), at_most)
    return [items[i * len(items) // count] for i in range(count)]


def _common_channels(infos: Sequence[tuple[Path, ImageInfo]]) -> tuple[int, bool]:
    """The channels that most images have; and whether all of them have transparency beside these."""
    plain = {info.channels for _, info in infos if not info.alpha}
    votes: Counter[int] = Counter()
    for _, info in infos:
        votes[info.channels - (info.alpha and bool(plain) and info.channels not in plain)] += 1
    channels = votes.most_common(1)[0][0]
    if not plain:
        marked = [path for path, info in infos if info.channels == channels]
        alpha = all(_alpha_is_transparency(image) for image in _some_images(marked))
        return channels - alpha, alpha
    rgb = [path for path, info in infos if info.channels - info.alpha == 3]
    if channels == 1 and votes[3] and not all(is_grey(image.pixels) for image in _some_images(rgb)):
        return 3, False
    return channels, False


def _some_images(paths: Sequence[Path]) -> Iterable[DecodedImage]:
    """A few of the images, without those that cannot be read."""
    for path in spread(paths, IMAGES_READ):
        try:
            yield decode_image(path)
        except DataError:
            continue


def _alpha_is_transparency(image: DecodedImage) -> bool:
    opaque = 1 if image.pixels.dtype.kind == "f" else np.iinfo(image.pixels.dtype).max
    return set(np.unique(image.pixels[..., -1]).tolist()) <= {0, 255, opaque}


def is_grey(pixels: np.ndarray) -> bool:
    """Whether red, green and blue of an image [H, W, 3 or 4] are the same everywhere."""
    return bool((pixels[..., 1] == pixels[..., 0]).all() and (pixels[..., 2] == pixels[..., 0]).all())


def may_have_channels(channels: int, alpha: bool, wanted: int) -> bool:
    """Whether an image may become one of `wanted` channels by `with_channels`; RGB becomes grey only if it is grey."""
    return channels == wanted or {channels - alpha, wanted} == {1, 3} or (alpha and channels - 1 == wanted)


def channel_notes(channels: int, alpha: bool, wanted: int) -> list[str]:
    """What `with_channels` does to such an image, for a person."""
    notes, colors = [], channels
    if alpha and channels != wanted:
        colors -= 1
        notes.append("transparency was left out")
    if (colors, wanted) == (1, 3):
        notes.append("grey became three equal channels")
    if (colors, wanted) == (3, 1):
        notes.append("three equal channels became one")
    return notes


def with_channels(
    where: object, pixels: np.ndarray, alpha: bool, wanted: int, taker: str = "the model takes"
) -> tuple[np.ndarray, np.ndarray | None]:
    """An image [H, W, C] with `wanted` channels; and bool [H, W], where it is not transparent, or None: everywhere.

    Transparency is left out, grey becomes three equal channels, and three equal channels become one.
    Raises DataError for any other difference. where, taker: the image and what has `wanted` channels, for its message.
    """
    found, opaque = pixels.shape[2], None
    if not may_have_channels(found, alpha, wanted):
        raise DataError(where, f"has {found} channels, {taker} {wanted}.")
    if alpha and found != wanted:
        visible = pixels[..., -1] > 0
        pixels, opaque = pixels[..., :-1], None if visible.all() else visible
    if (pixels.shape[2], wanted) == (1, 3):
        pixels = np.repeat(pixels, 3, axis=2)
    elif (pixels.shape[2], wanted) == (3, 1):
        if not is_grey(pixels):
            what = f"has {found} channels with colours, {taker} 1."
            raise DataError(where, what, "Save it as a grey image, if its colours do not matter.")
        pixels = pixels[..., :1]
    if opaque is not None:
        pixels = np.where(opaque[..., None], pixels, pixels.dtype.type(0))
    return pixels, opaque
