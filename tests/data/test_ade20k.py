"""ADE20K: the layout of ADEChallengeData2016."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrseg.data.ade20k import ADE20K, CLASSES
from hrseg.data.checks import check
from hrseg.errors import DataError


def make(root: Path, mask: object) -> Path:
    for folder in ("images", "annotations"):
        (root / folder / "validation").mkdir(parents=True)
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(root / "images/validation/ADE_val_00000001.jpg")
    Image.fromarray(np.array(mask, np.uint8)).save(root / "annotations/validation/ADE_val_00000001.png")
    return root


def test_0_is_ignored_and_1_to_150_are_the_classes(tmp_path):
    val = ADE20K(make(tmp_path, [[0, 1, 2, 150], [150, 0, 0, 13]]), "val")
    assert val[0].target.tolist() == [[255, 0, 1, 149], [149, 255, 255, 12]]
    assert val.names == ["ADE_val_00000001"] and val.definition == "ade20k"
    assert check(val, progress=False) == []


def test_150_classes_with_names_and_colors_of_their_own():
    assert len(CLASSES) == len({c.name for c in CLASSES}) == len({c.color for c in CLASSES}) == 150
    # Spread over the list, so that a name left out or taken twice shows.
    at = {1: "wall", 13: "person", 50: "fireplace", 90: "television", 100: "buffet", 137: "traffic light", 150: "flag"}
    assert {i: CLASSES[i - 1].name for i in at} == at


def test_a_value_above_150_is_named(tmp_path):
    val = ADE20K(make(tmp_path, [[0, 1, 2, 151]] * 2), "val")
    with pytest.raises(
        DataError,
        match=r"ADE_val_00000001\.png: value 151 \(row 0, column 3\) is not a class; those are 1 to 150 \(ignored: 0\)",
    ):
        val[0]


def test_what_is_missing_is_said_with_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"images/training: holds no JPEG.*ADEChallengeData2016"):
        ADE20K(make(tmp_path, [[1] * 4] * 2), "train")
    with pytest.raises(DataError, match="no split 'validation'"):
        ADE20K(tmp_path, "validation")
