"""What data sets of image and mask files have in common."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hrseg.data.compact_strings import plain_strings
from hrseg.data.dataset import Dataset
from hrseg.data.images import ImageKind, channels_are_equal, common_kind, decode_image, inspect_image, read_mask
from hrseg.data.images.decoding import both_valid
from hrseg.data.images.kinds import with_channels
from hrseg.errors import DataError
from hrseg.task import IGNORE_INDEX, Sample, SegmentationClass


class Pairs(Dataset):
    """Images and masks matched by name. A subclass sets these attributes and says how a mask's values become classes.

    space, names: as in `Dataset`. images: the file of each sample. targets: the mask of each, or None where the split
    has none. Lists do; for very many images the sequences of `compact_strings` take less memory.
    """

    in_channels: int = 3
    images: Sequence[Path]
    targets: Sequence[Path] | None
    checked_by_file = True
    _kind: ImageKind | None = None

    @property
    def classes(self) -> tuple[SegmentationClass, ...]:
        return self.space.classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Sample:
        """The decoded image and target. Raises DataError with the path of the file that cannot be used."""
        image, valid = self.read_valid_image(i)
        target = self.read_target(i)
        if target is not None and target.shape[-2:] != image.shape[:2]:
            raise DataError(self.images[i], size_mismatch(image.shape[:2], target.shape[-2:]))
        return Sample(image, self._without_nodata(target, valid), self.names[i])

    def files(self, i: int) -> tuple[Path, Path | list[Path] | None]:
        return self.images[i], None if self.targets is None else self.targets[i]

    def all_masks(self) -> Sequence[Path]:
        return [] if self.targets is None else self.targets

    def cluster(self, i: int) -> str:
        """The folder in the name, or the name itself where there is none."""
        return self.names[i].rpartition("/")[0] or self.names[i]

    def read_image(self, i: int) -> np.ndarray:
        """uint8, uint16 or float32 [H, W, C], of `in_channels`: see `hrseg.data.images.kinds.with_channels`."""
        return self.read_valid_image(i)[0]

    def read_valid_image(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The image; and bool [H, W], where it has data, or None: everywhere."""
        image, alpha, valid = decode_image(self.images[i])
        if image.dtype != self.image_type():
            what = f"has {image.dtype} values, most images of the split {self.image_type()}."
            raise DataError(self.images[i], what, "All images of a data set have the same type.")
        image, opaque = with_channels(self.images[i], image, alpha, self.in_channels, "the data set")
        return image, both_valid(valid, opaque)

    def common_kind(self) -> ImageKind:
        """What most of the images are: their channels, and their type, which all others must have."""
        if self._kind is None:
            self._kind = common_kind(self.images)
        return self._kind

    def image_type(self) -> np.dtype:
        """The number type of most images, which all others must have."""
        return self.common_kind().dtype

    def image_size(self, i: int) -> tuple[int, int]:
        info = inspect_image(self.images[i])
        return info.height, info.width

    def has_targets(self) -> bool:
        return self.targets is not None

    def read_target(self, i: int) -> np.ndarray | None:
        if self.targets is None:
            return None
        path = self.targets[i]
        return self.to_indices(read_mask(path), path)

    def sample_target(self, i: int) -> np.ndarray | None:
        """As `Dataset.sample_target`. The image is read only if its head says that pixels may be without data."""
        target = self.read_target(i)
        if target is None or not inspect_image(self.images[i], whole=False).may_lack_data:
            return target
        return self._without_nodata(target, self.read_valid_image(i)[1])

    def _without_nodata(self, target: np.ndarray | None, valid: np.ndarray | None) -> np.ndarray | None:
        if target is None or valid is None or valid.shape != target.shape[-2:]:
            return target
        target[..., ~valid] = self.space.ignore_index
        return target

    def meaning(self) -> dict[str, Any]:
        """What the values of the files become: a cache made with another meaning is not used."""
        table = self.table
        indices = {} if table is None else {str(value): table.indices[value] for value in table.values}
        space = {"task": self.space.task.value, "ignore_index": self.space.ignore_index}
        tiff = any(str(path).lower().endswith((".tif", ".tiff")) for path in plain_strings(self.images))
        nodata = {"nodata": "ignored"} if tiff else {}  # other formats were cached in the same way before
        return {**space, "indices": indices, "channels": self.in_channels, **nodata}


class UnknownValues(DataError):
    """A mask has values, or colours, that are no class. unknown: all of them."""

    def __init__(self, where: object, what: str, way_out: str, unknown: Sequence[Any]):
        super().__init__(where, what, way_out)
        self.unknown = tuple(unknown)

    def __reduce__(self) -> tuple[Any, ...]:  # how a reading process hands it to the one that asked
        return type(self), (self.where, self.what, self.way_out, self.unknown)


class GreyEdges(UnknownValues):
    """A mask of two values has shades between them: its edges are anti-aliased, or it was a JPEG."""


class ValueTable:
    """The class index of each value that a mask may have; any other value is an error.

    indices: by value; any integers. listed_in: the file that lists them, for messages.
    """

    def __init__(self, indices: Mapping[int, int], ignore_index: int = IGNORE_INDEX, *, listed_in: str = ""):
        classes = [index for index in indices.values() if index != ignore_index]
        small = ignore_index <= 255 and max(classes) < 254
        self.dtype = np.uint8 if small else np.uint16
        self.unknown = 254 if small else 65534  # not a class; the table stays as narrow as its result
        self.indices, self.ignore_index, self.listed_in = dict(indices), ignore_index, listed_in
        self.values = sorted(indices)
        self._sorted = np.array(self.values, np.int64)
        self._index_of_sorted = np.array([indices[value] for value in self.values], self.dtype)
        highest = max(255, min(self.values[-1], 65535))
        self._index_of: np.ndarray = np.full(highest + 1, self.unknown, self.dtype)  # of values from 0 to 65535
        for value, index in indices.items():
            if 0 <= value <= highest:
                self._index_of[value] = index

    def __call__(self, mask: np.ndarray, path: Path, way_out: str = "") -> np.ndarray:
        """The indices [H, W] of a mask's values. Raises UnknownValues where some have no class."""
        if mask.ndim == 3 and channels_are_equal(mask):
            mask = mask[:, :, 0]
        if mask.ndim == 3:
            raise DataError(path, "is an RGB picture where a mask of ids is expected.", way_out)
        if mask.dtype == np.uint8:
            indices: np.ndarray = cv2.LUT(mask, self._index_of[:256])
            if self.unknown not in self._index_of[: int(mask.max(initial=0)) + 1]:
                return indices
        elif mask.dtype == np.uint16:
            inside = mask < len(self._index_of)
            indices = np.where(inside, np.take(self._index_of, np.where(inside, mask, 0)), self.dtype(self.unknown))
        else:
            place = np.minimum(np.searchsorted(self._sorted, mask), len(self._sorted) - 1)
            known = self._sorted[place] == mask
            indices = np.where(known, self._index_of_sorted[place], self.dtype(self.unknown))
        unknown = indices == self.unknown
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            where = f"value {mask[row, column]} (row {row}, column {column})"
            what = f"{where} is not in {self.listed_in}, which lists {self.listed()}."
            if not self.listed_in:
                what = f"{where} is not a class; those are {self.listed()}."
            raise UnknownValues(path, what, way_out, np.unique(mask[unknown]).tolist())
        return indices

    def listed(self) -> str:
        """The values in words: '0 to 18 (ignored: 255)'."""
        ignored = [value for value in self.values if self.indices[value] == self.ignore_index]
        classes = value_ranges(value for value in self.values if value not in ignored)
        return f"{classes} (ignored: {value_ranges(ignored)})" if ignored else classes


def masks_without_image(masks: Iterable[str]) -> list[str]:
    return [f"{path}: a mask without an image." for path in sorted(masks)]


def size_mismatch(image: tuple[int, ...], mask: tuple[int, ...]) -> str:
    return f"the image is {image[0]}x{image[1]} (height x width), its mask {mask[0]}x{mask[1]}."


def value_ranges(values: Iterable[int]) -> str:
    """Integers in words: '0 to 18, 255', '0 and 255'."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    texts = [str(low) if low == high else f"{low} {'and' if high == low + 1 else 'to'} {high}" for low, high in parts]
    single = all(low == high for low, high in parts)
    return " and ".join(texts) if len(texts) == 2 and single else ", ".join(texts)


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Colours that differ as much as possible, always the same ones, none of them near black.

    Source: the R3 sequence (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences") over hue,
    saturation and value.
    """
    colors = []
    for i in range(count):
        hue, saturation, value = (0.5 + 0.8191725134 * i) % 1, (0.6710436067 * i) % 1, (0.5497004779 * i) % 1
        red, green, blue = colorsys.hsv_to_rgb(hue, 1 - 0.75 * saturation, 1 - 0.65 * value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors
