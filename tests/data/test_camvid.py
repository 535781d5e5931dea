"""CamVid: the real images, and what is said about a folder that is none."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hrseg.data.camvid import CamVid
from hrseg.data.images import read_mask
from hrseg.errors import DataError


def test_void_is_ignored_and_the_others_stay(camvid):
    val = CamVid(camvid, "val")
    assert len(val) == 101
    sample, stored = val[3], read_mask(val.files(3)[1])
    assert sample.image.shape == (360, 480, 3) and sample.image.dtype == np.uint8
    assert 11 in stored
    assert np.array_equal(sample.target, np.where(stored == 11, 255, stored))


def test_a_sequence_is_a_cluster(camvid):
    train = CamVid(camvid, "train")
    assert len(train) == 367
    assert {train.cluster(i) for i in range(367)} == {"0001TP", "0006R0", "0016E5"}


def test_classes_are_those_of_the_release_in_its_order(camvid):
    cells = re.findall(r"\| (\d+) \| (\w+)", (camvid / "README.md").read_text())
    described = {int(i): name for i, name in cells}
    assert described.pop(11) == "void"
    assert dict(enumerate(CamVid(camvid, "train").space.names)) == described


def test_what_is_missing_is_said_with_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"holds no PNG.*trainannot"):
        CamVid(tmp_path, "train")
    with pytest.raises(DataError, match=r"no split 'valid'\. Did you mean 'val'"):
        CamVid(tmp_path, "valid")


def test_train_and_val_together_are_a_split(camvid):
    both = CamVid(camvid, "trainval")
    assert len(both) == sum(len(CamVid(camvid, split)) for split in ("train", "val"))
    assert both[len(both) - 1].target is not None and both.strays() == []
