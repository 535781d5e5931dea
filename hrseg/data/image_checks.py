"""What the check of a data set says about its images: each one's channels and type, and the values of some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hrseg.data.dataset import Dataset
from hrseg.data.images import ImageInfo, decode_image
from hrseg.data.images.kinds import may_have_channels, spread, with_channels
from hrseg.errors import DataError, HrsegError
from hrseg.task import Normalisation

IMAGES = 16  # of a split, evenly spread, whose values are looked at
MOST_VALUES = 200_000_000  # that are read for it, beyond the first image
KEPT_PIXELS = 2**16  # of an image, evenly spread, from which the usual range follows
USUAL = (0.001, 0.999)  # quantiles
SMALL_PART, SMALL_PART_8_BIT = 1 / 4, 1 / 8  # of the input range: less loses contrast, and is hardly meant
TOLERANCE = 0.05  # of the input range, by which values may leave it: reflectance does
OTHER_SCALE = 8  # times the other split's highest usual value


def image_problems(path: Path, info: ImageInfo, dataset: Dataset) -> list[str]:
    """A sentence for each way in which an image is not like most images of its data set."""
    problems = []
    wanted, dtype = dataset.in_channels, dataset.image_type()
    if wanted and not may_have_channels(info.channels, info.alpha, wanted):
        problems.append(f"{path}: has {info.channels} channels, the data set {wanted}.")
    elif wanted == 1 < info.channels - info.alpha:  # which it may have if all are equal
        try:
            with_channels(path, decode_image(path).pixels, info.alpha, wanted, "the data set")
        except DataError as error:
            problems.append(str(error))
    if dtype and info.dtype != dtype:
        problems.append(f"{path}: has {info.dtype} values, most images of the split {dtype}.")
    return problems


class ValueStatistics(NamedTuple):
    """What the values of some images are, float64 [C] each: lowest, highest, and the range of nearly all of them.

    second_lowest, second_highest: without the lowest and the highest value itself, which may be a mark for no data.
    """

    lowest: np.ndarray
    highest: np.ndarray
    usual_low: np.ndarray
    usual_high: np.ndarray
    second_lowest: np.ndarray
    second_highest: np.ndarray
    bits: int | None  # of integers


def some_images(dataset: Dataset, at_most: int = IMAGES) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """A few images of a data set, with where they have data: readable ones, and few if they are large."""
    read = 0
    for i in spread(range(len(dataset)), at_most):
        try:
            image, valid = dataset.read_valid_image(i)
        except HrsegError:
            continue
        read += image.size
        yield image, valid
        if read > MOST_VALUES:
            return


def value_bounds(dataset: Dataset) -> tuple[float, float]:
    """The lowest and highest value of some images; 0 and 0 where none can be read."""
    found = measure_values(dataset)
    return (0.0, 0.0) if found is None else (float(found.lowest.min()), float(found.highest.max()))


def measure_values(dataset: Dataset) -> ValueStatistics | None:
    """The values of some images, pixels without data left out; None where none can be read."""
    kept: list[np.ndarray] = []
    lowest, highest, bits = [], [], None
    for image, valid in some_images(dataset):
        pixels = image.reshape(-1, image.shape[2]) if valid is None else image[valid]
        if not len(pixels) or (kept and kept[0].shape[1] != pixels.shape[1]):
            continue
        lowest.append(pixels.min(0))
        highest.append(pixels.max(0))
        kept.append(pixels[:: max(1, len(pixels) // KEPT_PIXELS)])
        bits = 8 * image.dtype.itemsize if image.dtype.kind == "u" else None
    if not kept:
        return None
    values = np.concatenate(kept).astype(np.float64)
    low, high = np.min(lowest, 0).astype(np.float64), np.max(highest, 0).astype(np.float64)
    usual_low, usual_high = np.quantile(values, USUAL, axis=0)
    second_lowest = np.where(values > low, values, np.inf).min(0)
    second_highest = np.where(values < high, values, -np.inf).max(0)
    return ValueStatistics(low, high, usual_low, usual_high, second_lowest, second_highest, bits)


def value_warnings(datasets: Mapping[str, Dataset], normalisation: Normalisation) -> list[str]:
    """A sentence where values leave the input range or use a small part of it, or splits have other scales.

    datasets: by the names of their splits, as the model takes them.
    """
    found = {split: measure_values(dataset) for split, dataset in datasets.items()}
    known = {split: values for split, values in found.items() if values is not None}
    warnings = []
    for split, values in known.items():
        if len(values.lowest) == normalisation.channels:
            sentences = range_warnings(values, normalisation.input_range)
            warnings += [f"split {split}: {sentence}" for sentence in sentences]
    highest = {split: float(values.usual_high.max()) for split, values in known.items()}
    if len(highest) > 1 and min(highest.values()) > 0:
        small, large = min(highest, key=highest.__getitem__), max(highest, key=highest.__getitem__)
        if highest[large] >= OTHER_SCALE * highest[small]:
            reach = f"split {small} has values to {_short(highest[small])}, split {large} to {_short(highest[large])}"
            warnings.append(f"{reach}: are they on the same scale?")
    return list(dict.fromkeys(warnings))


def range_warnings(values: ValueStatistics, input_range: tuple[tuple[float, float], ...]) -> list[str]:
    """A sentence for each kind of channel whose values do not fit their input range, with the setting that would."""
    marks = {c: mark for c, span in enumerate(input_range) if (mark := _mark(values, c, *span)) is not None}
    sentences = []
    for mark in dict.fromkeys(marks.values()):
        where = _where([c for c in marks if marks[c] == mark], input_range)
        sentence = f"{mark:g} is far from all other values; if it stands for no data, say so in the files (GDAL_NODATA)"
        sentences.append(f"{where}{sentence} or write NaN.")
    values = _without_marks(values, marks)
    groups: dict[tuple[str, float, float], list[int]] = {}
    for c, (low, high) in enumerate(input_range):
        if misfit := _misfit(values, c, low, high):
            groups.setdefault((misfit, low, high), []).append(c)
    changed = sorted(c for (misfit, *_), group in groups.items() if misfit != "constant" for c in group)
    setting = _better_setting(values, changed, input_range)
    for (misfit, low, high), group in groups.items():
        lowest, highest = values.lowest[group].min(), values.highest[group].max()
        reach = f"values from {lowest:g} to {highest:g}"
        if misfit == "small" and highest - lowest > SMALL_PART * (high - low):
            reach = f"nearly all {_usual(values, group)}"
        sentence = {
            "constant": f"is the same everywhere ({lowest:g}), which tells the network nothing.",
            "outside": f"{reach}, outside of data.input_range, {low:g} to {high:g}: set {setting}",
            "small": f"{reach} of {low:g} to {high:g}: set {setting}",
        }[misfit]
        sentences.append(_where(group, input_range) + sentence)
    return sentences


def _where(channels: list[int], of_all: Sequence[Any]) -> str:
    if len(channels) == len(of_all):
        return ""
    return f"channel{'s' * (len(channels) > 1)} {', '.join(map(str, channels))}: "


def _usual(values: ValueStatistics, channels: list[int]) -> str:
    return f"values from {_short(values.usual_low[channels].min())} to {_short(values.usual_high[channels].max())}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _misfit(values: ValueStatistics, c: int, low: float, high: float) -> str | None:
    """In which way the values of a channel do not fit their range, if they do not."""
    span, lowest, highest = high - low, values.lowest[c], values.highest[c]
    if lowest == highest:
        return "constant"
    if lowest < low - TOLERANCE * span or highest > high + TOLERANCE * span:
        return "outside"
    small = SMALL_PART_8_BIT if values.bits == 8 else SMALL_PART
    return "small" if values.usual_high[c] - values.usual_low[c] <= small * span else None


def _mark(values: ValueStatistics, c: int, low: float, high: float) -> float | None:
    """A value outside of the input range, as far from all others as these reach: a mark for no data is like that."""
    span, lowest, highest = high - low, values.lowest[c], values.highest[c]
    above, below = values.second_lowest[c], values.second_highest[c]
    if lowest < low - TOLERANCE * span and above - lowest >= highest - above:
        return float(lowest)
    if highest > high + TOLERANCE * span and highest - below >= below - lowest:
        return float(highest)
    return None


def _without_marks(values: ValueStatistics, marks: Mapping[int, float]) -> ValueStatistics:
    low, high, usual_low, usual_high = (array.copy() for array in values[:4])
    for c, mark in marks.items():
        if mark == low[c]:
            low[c] = values.second_lowest[c]
            usual_low[c] = max(usual_low[c], low[c])
        else:
            high[c] = values.second_highest[c]
            usual_high[c] = min(usual_high[c], high[c])
    return values._replace(lowest=low, highest=high, usual_low=usual_low, usual_high=usual_high)


def _better_setting(values: ValueStatistics, changed: list[int], input_range: tuple[tuple[float, float], ...]) -> str:
    """The `data.input_range` that fits: one range for all channels where they have much the same values."""
    wanted = list(input_range)
    for c in changed:
        rare = values.highest[c] > 2 * values.usual_high[c] > 0
        wanted[c] = nice_range(values.lowest[c], values.usual_high[c] if rare else values.highest[c])
    if len(changed) == len(wanted) and changed:
        widest = min(low for low, _ in wanted), max(high for _, high in wanted)
        if all(high - low >= (widest[1] - widest[0]) / 4 for low, high in wanted):
            wanted = [widest]
    text = ", ".join(f"[{low:g}, {high:g}]" for low, high in wanted)
    return f"data.input_range={text}" if len(wanted) == 1 else f"data.input_range=[{text}]"


def nice_range(low: float, high: float) -> tuple[float, float]:
    """A range of round numbers around two values: from 0 where that loses little, to 2^n - 1 or 1, 2, 5 times 10^n."""
    start = 0.0 if 0 <= low <= high / 2 else _round_down(low)
    if high <= 0:
        return start, 0.0
    if start > 0:
        return start, -_round_down(-high)
    steps = [2.0**n - 1 for n in range(8, 17)]
    steps += [m * 10.0**n for n in range(-6, 9) for m in (1, 2, 5)]
    return start, min((step for step in steps if step >= high), default=high)


def _round_down(value: float) -> float:
    """Two digits, towards minus infinity."""
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - 1)
    return float(np.floor(value / unit) * unit)
