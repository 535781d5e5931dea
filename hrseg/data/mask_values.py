"""What the values and colours of masks mean, going by classes.yaml."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hrseg.data.classes_file import ClassesFile, Color
from hrseg.data.images import channels_are_equal, read_mask, read_palette
from hrseg.data.pairs import GreyEdges, UnknownValues, ValueTable
from hrseg.errors import DataError
from hrseg.task import LabelSpace, Task

MaskKind = Literal["auto", "ids", "colors", "threshold"]
COLORED = "Give every class its color, or save masks with one channel of ids."


class MaskValues:
    """The values and colours of the classes, and of pixels that are ignored.

    values: of each class; the first is the one that is written. table: the class index of each value; None for
    multilabel. kind: what the pixels of a mask are; auto: colours in RGB files, values in all others; threshold: shades
    between two values, each of which stands for the nearer one.
    Raises DataError where two classes, or a class and what is ignored, have one value or colour.
    """

    def __init__(self, file: ClassesFile, path: Path, space: LabelSpace, kind: MaskKind):
        self.path, self.space, self.kind = path, space, kind
        self.index_type = np.uint8 if space.ignore_index <= 255 else np.uint16
        self.colors = [entry.color for entry in file.classes]
        self.values = [entry.values or (place,) for place, entry in enumerate(file.classes)]
        self.ignored_values, self.ignored_colors = file.ignored_values, file.ignored_colors
        self._named_as_ignored = file.ignored_values
        self.table: ValueTable | None = None
        _refuse_duplicates(path, "name", [entry.name for entry in file.classes])
        _refuse_duplicates(path, "color", [color for color in self.colors if color is not None])
        if space.task is Task.MULTILABEL:
            return
        ids = [value for values in self.values for value in values]
        _refuse_duplicates(path, "id", ids)
        either = (
            len(file.ignored_colors) == 1 and file.ignored_values == file.ignored_colors[0] and None not in self.colors
        )
        if either and {*self.ignored_values} & {*ids}:
            self.ignored_values = ()  # the three numbers are a colour
        twice = [*({*self.ignored_values} & {*ids}), *({*self.ignored_colors} & {*self.colors})]
        if twice:
            raise DataError(path, f"ignores {twice[0]}, which is a class too.", "Give the two different values.")
        if (either or not self.ignored_values) and space.ignore_index not in ids:
            self.ignored_values = (*self.ignored_values, space.ignore_index)
        table = {value: index for index, values in enumerate(self.values) for value in values}
        table |= dict.fromkeys(self.ignored_values, space.ignore_index)
        self.table = ValueTable(table, space.ignore_index, listed_in=path.name)
        if kind == "threshold" and len(ids) != 2:
            what = f"threshold is for masks of two values, {path} has {len(ids)}."
            raise DataError("data.masks", what, "Set data.masks=auto, or data.task=binary with one class.")

    def plain(self) -> dict[str, Any]:
        """What changes the meaning of a mask, as plain data."""
        value: Any = self.ignored_values[0] if len(self.ignored_values) == 1 else list(self.ignored_values) or None
        color: Any = self.ignored_colors[0] if len(self.ignored_colors) == 1 else list(self.ignored_colors) or None
        return {"masks": self.kind, "colors": self.colors, "ignored": {"value": value, "color": color}}

    def read(self, path: Path) -> np.ndarray:
        """The class indices [H, W] of a mask file."""
        return self.to_indices(read_mask(path, colors=self.kind == "colors", lossy=self.kind == "threshold"), path)

    def read_label(self, path: Path) -> np.ndarray:
        """Of multilabel, the mask of one label: 1 for all values but 0 and the ignored ones, [H, W]."""
        mask = read_mask(path, lossy=self.kind == "threshold")
        mask = mask[:, :, 0] if mask.ndim == 3 and channels_are_equal(mask) else mask
        if mask.ndim == 3:
            raise DataError(path, "is an RGB picture.", "The mask of a label has one channel: 0 is no, else yes.")
        label = (mask > 127 if self.kind == "threshold" else mask != 0).astype(self.index_type)
        label[np.isin(mask, self.ignored_values)] = self.space.ignore_index
        return label

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """Class indices [H, W] of the values [H, W] or colours [H, W, 3] of a mask, read from `path`.

        Raises DataError for a value or colour without a class.
        """
        assert self.table is not None  # multilabel masks do not come here
        if self.kind == "threshold":
            return self._nearer(mask)
        if mask.ndim == 3:
            grey = self.kind != "colors" and channels_are_equal(mask)
            if grey and (self.kind == "ids" or None in self.colors):
                mask = mask[:, :, 0]
            elif self.kind != "ids":
                try:
                    return self._colors_to_indices(mask, path)
                except DataError:
                    if not grey or {*np.unique(mask).tolist()} - {*self.table.values}:
                        raise
                    mask = mask[:, :, 0]
        elif self.kind == "auto" and None not in self.colors:
            self._check_palette(mask, path)
        try:
            return self.table(mask, path)
        except UnknownValues as error:
            values = sorted(value for values in self.values for value in values)
            if len(values) == 2 and all(values[0] < value < values[1] for value in error.unknown):
                shade = error.what.partition(" is not")[0]
                what = f"has grey edges (anti-aliased): {shade} lies between {values[0]} and {values[1]}."
                way_out = "Set data.masks=threshold: each pixel then counts as the nearer of the two."
                raise GreyEdges(path, what, way_out, error.unknown) from None
            raise

    def _nearer(self, mask: np.ndarray) -> np.ndarray:
        low, high = sorted(range(2), key=lambda index: self.values[index][0])
        middle = (self.values[low][0] + self.values[high][0]) / 2
        shade = mask if mask.ndim == 2 else mask.mean(axis=2)
        indices = np.where(shade >= middle, high, low).astype(self.index_type)
        indices[np.isin(shade, self._named_as_ignored)] = self.space.ignore_index
        return indices

    def _colors_to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        colors: dict[Color, int] = {c: i for i, c in enumerate(self.colors) if c is not None}
        if len(colors) < len(self.colors):
            nameless = self.space.names[self.colors.index(None)]
            what = f"is an RGB picture, but class '{nameless}' has no color in {self.path}."
            raise DataError(path, what, COLORED)
        colors |= dict.fromkeys(self.ignored_colors, self.space.ignore_index)
        red, green, blue = (mask[:, :, c].astype(np.int32) for c in range(3))
        codes = red << 16 | green << 8 | blue
        plus_one = np.take(_color_table(tuple(colors.items())), codes)
        if plus_one.size and not plus_one.all():
            row, column = (int(place) for place in np.argwhere(plus_one == 0)[0])
            unknown = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in np.unique(codes[plus_one == 0])]
            first = tuple(int(v) for v in mask[row, column])
            what = f"the color {list(first)} (row {row}, column {column}) is not in {self.path}."
            way_out = "Smoothed edges? Save masks without anti-aliasing, and not as JPEG."
            raise UnknownValues(path, what, way_out, unknown)
        return (plus_one - 1).astype(self.index_type)

    def _check_palette(self, mask: np.ndarray, path: Path) -> None:
        """Refuse a palette that has the colours of the classes in another order: its indices are not the ids."""
        palette = read_palette(path)
        if palette is None:
            return
        own: dict[Any, int] = {color: index for index, color in enumerate(self.colors)}
        used = [int(v) for v in np.unique(mask) if v not in self.ignored_values and v < len(palette)]
        by_color = {value: own.get(tuple(int(c) for c in palette[value])) for value in used}
        differs = any(index is not None and value not in self.values[index] for value, index in by_color.items())
        if None not in by_color.values() and differs:
            what = "its palette has the colors of the classes, but its indices are not their ids."
            raise DataError(path, what, "Set data.masks: colors to go by color, or ids to go by index.")


def _refuse_duplicates(path: Path, what: str, values: list) -> None:
    for value in values:
        if values.count(value) > 1:
            raise DataError(path, f"two classes have the {what} {value}.", "Ids default to the position in the list.")


@lru_cache(maxsize=4)
def _color_table(colors: tuple[tuple[Color, int], ...]) -> np.ndarray:
    """The index, plus one, of each of the 2^24 colours; unknown ones are 0, and their memory is never touched."""
    table = np.zeros(1 << 24, np.int32)
    for (red, green, blue), index in colors:
        table[red << 16 | green << 8 | blue] = index + 1
    return table
