"""What is said about the values of a data set's images."""

import numpy as np
import pytest

from hrseg.data.dataset import Dataset
from hrseg.data.image_checks import IMAGES, measure_values, nice_range, value_warnings
from hrseg.errors import DataError
from hrseg.task import LabelSpace, Normalisation, Sample, SegmentationClass

SPACE = LabelSpace((SegmentationClass("a", (0, 0, 0)),))
RANGES = {np.uint8: (0.0, 255.0), np.uint16: (0.0, 65535.0), np.float32: (0.0, 1.0)}


class Made(Dataset):
    """Images whose channels have values evenly from a low to a high one, both included."""

    def __init__(self, dtype, *bounds, count=3, lacking=None, mark=None):
        self.space, self.names, self.in_channels = SPACE, [f"n{i}" for i in range(count)], len(bounds)
        even = np.linspace(0, 1, 32 * 40).reshape(32, 40)
        self.image = np.dstack([low + even * (high - low) for low, high in bounds]).astype(dtype)
        self.valid = None if lacking is None else ~lacking
        if mark is not None:
            self.image[3:6] = mark
        self.read = []

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return Sample(self.image, np.zeros((32, 40), np.uint8), self.names[i])

    def read_valid_image(self, i):
        self.read.append(i)
        return self.image, self.valid


def told(dataset, ranges=None):
    ranges = ranges or (RANGES[dataset.image.dtype.type],) * dataset.in_channels
    return value_warnings({"train": dataset}, Normalisation((0.5,) * len(ranges), (0.2,) * len(ranges), tuple(ranges)))


OUTSIDE = "outside of data.input_range, 0 to 1: set data.input_range"
MARK = "is far from all other values; if it stands for no data, say so in the files (GDAL_NODATA) or write NaN."
CASES = [
    (Made(np.uint8, (0, 255)), None, ""),
    (Made(np.uint8, (40, 90)), None, ""),  # a dull picture
    (Made(np.uint8, (0, 1)), None, "values from 0 to 1 of 0 to 255: set data.input_range=[0, 1]"),
    (Made(np.uint16, (120, 4095)), None, "values from 120 to 4095 of 0 to 65535: set data.input_range=[0, 4095]"),
    (Made(np.uint16, (0, 16383)), None, "values from 0 to 16383 of 0 to 65535: set data.input_range=[0, 16383]"),
    (Made(np.uint16, (120, 4095)), [(0, 4095)], ""),
    (Made(np.float32, (100, 9900)), None, f"values from 100 to 9900, {OUTSIDE}=[0, 10000]"),
    (Made(np.float32, (-0.01, 1.02)), None, ""),
    (Made(np.float32, (250, 320)), None, f"values from 250 to 320, {OUTSIDE}=[250, 320]"),
    (Made(np.float32, (-2, 2)), None, f"values from -2 to 2, {OUTSIDE}=[-2, 2]"),
    (
        Made(np.float32, (0, 1), (0, 1), (0, 2900)),
        None,
        f"channel 2: values from 0 to 2900, {OUTSIDE}=[[0, 1], [0, 1], [0, 4095]]",
    ),
    (
        Made(np.uint16, (0, 4000), (0, 3000), (0, 200)),
        None,
        "values from 0 to 4000 of 0 to 65535: set data.input_range=[[0, 4095], [0, 4095], [0, 200]]",
    ),
    (
        Made(np.uint8, (0, 255), (255, 255)),
        None,
        "channel 1: is the same everywhere (255), which tells the network nothing.",
    ),
    (Made(np.float32, (0, 1), mark=-9999), None, f"-9999 {MARK}"),
    (Made(np.uint16, (10, 4095), mark=65535), [(0, 4095)], f"65535 {MARK}"),
    (
        Made(np.float32, (-1000, 1000), mark=2000),
        [(-1000, 1000)],
        "values from -1000 to 2000, outside of",
    ),  # not so far
]


@pytest.mark.parametrize(("dataset", "ranges", "sentence"), CASES)
def test_values_that_do_not_fit_their_range_are_told_with_the_range_that_fits(dataset, ranges, sentence):
    found = told(dataset, ranges)
    assert len(found) == bool(sentence) and all(text.startswith(f"split train: {sentence}") for text in found)


def test_a_mark_for_no_data_does_not_hide_what_the_other_values_need():
    dataset = Made(np.float32, (0, 2900), (0, 2900))
    dataset.image[3:6, :, 1] = -32768
    mark, outside = told(dataset)
    assert mark == f"split train: channel 1: -32768 {MARK}"
    assert outside == f"split train: values from 0 to 2900, {OUTSIDE}=[0, 4095]"


def test_a_few_saturated_pixels_do_not_hide_that_the_rest_is_dark():
    dataset = Made(np.uint16, (120, 4095))
    dataset.image[0, 0] = 65535
    (sentence,) = told(dataset)
    assert sentence.startswith("split train: nearly all values from 12") and "data.input_range=[0, 4095]" in sentence


def test_pixels_without_data_are_left_out():
    lacking = np.zeros((32, 40), bool)
    lacking[3:6] = True
    assert told(Made(np.float32, (250, 320), lacking=lacking, mark=0), [(250.0, 320.0)]) == []


def test_splits_of_one_type_on_two_scales_are_told():
    sets = {"train": Made(np.uint16, (0, 255)), "val": Made(np.uint16, (0, 65535))}
    warnings = value_warnings(sets, Normalisation.none(1))
    assert any("split train has values to 254, split val to 65" in warning for warning in warnings)
    assert not any(
        "same scale" in w for w in value_warnings({"a": sets["val"], "b": sets["val"]}, Normalisation.none(1))
    )


def test_few_images_of_many_are_read_and_unreadable_ones_left_out(monkeypatch):
    dataset = Made(np.uint8, (0, 255), count=1000)
    told(dataset)
    assert len(dataset.read) == IMAGES and max(dataset.read) > 900
    monkeypatch.setattr("hrseg.data.image_checks.MOST_VALUES", 10)
    dataset.read.clear()
    told(dataset)
    assert len(dataset.read) == 1

    def refuse(i):
        raise DataError("a.png", "is broken.")

    dataset.read_valid_image = refuse
    assert measure_values(dataset) is None and told(dataset) == []


def test_a_range_of_round_numbers_holds_both_ends():
    rng = np.random.default_rng(0)
    for low, high in np.sort(rng.normal(0, 1, (200, 2)) * 10.0 ** rng.integers(-3, 6, (200, 1)), axis=1):
        start, stop = nice_range(low, high)
        assert start <= low and stop >= high and start < stop
