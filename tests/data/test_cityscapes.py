"""Cityscapes: the official layout and its two kinds of label files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrseg.data.checks import check
from hrseg.data.cityscapes import CLASS_WEIGHTS, Cityscapes
from hrseg.errors import DataError

CATEGORIES = {"flat", "construction", "object", "nature", "sky", "human", "vehicle"}


@pytest.fixture
def judged(golden) -> Path:
    """Six images with labels drawn by cityscapesScripts."""
    return golden / "cityscapes_judge" / "cityscapes"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make(root: Path, split: str, name: str, *, truth: str = "gtFine", labels: str = "labelIds", value: int = 7) -> None:
    """One image whose mask holds one value."""
    save(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", np.zeros((4, 8, 3), np.uint8))
    save(root / truth / split / f"{name}_{truth}_{labels}.png", np.full((4, 8), value, np.uint8))


def test_label_ids_become_the_train_ids_that_the_official_tools_write(judged):
    by_id, by_train_id = Cityscapes(judged, "val"), Cityscapes(judged, "val", labels="labelTrainIds")
    assert by_id.names == by_train_id.names and len(by_id) == 6
    assert by_id.names[0] == "frankfurt/frankfurt_000000_000019"
    for a, b in zip(by_id, by_train_id, strict=True):
        assert a.image.shape == (256, 512, 3) and a.target.dtype == np.uint8
        assert np.array_equal(a.target, b.target)
    assert check(by_id, progress=False) == check(by_train_id, progress=False) == []


def test_classes_have_categories_and_weights(judged):
    classes = Cityscapes(judged, "val").classes
    assert len(classes) == len(CLASS_WEIGHTS) == 19
    assert {c.category for c in classes} == CATEGORIES
    assert (classes[0].name, classes[18].name, classes[11].category) == ("road", "bicycle", "human")


def test_a_city_is_a_cluster_and_has_instances(judged):
    val = Cityscapes(judged, "val")
    assert [val.cluster(i) for i in range(6)] == ["frankfurt"] * 2 + ["lindau"] * 2 + ["munster"] * 2
    assert all(val.instance_path(i).is_file() for i in range(6))


def test_train_ids_where_label_ids_are_expected_are_noticed(judged, tmp_path):
    shutil.copytree(judged, tmp_path / "set")
    for path in tmp_path.rglob("*_gtFine_labelIds.png"):
        shutil.copy(path.with_name(path.name.replace("labelIds", "labelTrainIds")), path)
    problems = [str(problem) for problem in check(Cityscapes(tmp_path / "set", "val"), progress=False)]
    assert len(problems) >= 6 and all("labelTrainIds" in p for p in problems)


def test_train_ids_without_ignored_pixels_are_noticed_too(tmp_path):
    make(tmp_path, "val", "a/a_0", value=13)  # trainId of car; as an id it is a fence
    (problem,) = map(str, check(Cityscapes(tmp_path, "val"), progress=False))
    assert "above 18" in problem and "labelTrainIds" in problem


def test_label_ids_where_train_ids_are_expected_are_named(tmp_path):
    make(tmp_path, "val", "a/a_0", labels="labelTrainIds", value=26)
    with pytest.raises(DataError, match=r"labelTrainIds\.png: value 26 .* Does it hold labelIds\?"):
        Cityscapes(tmp_path, "val", labels="labelTrainIds")[0]


def test_splits(tmp_path):
    make(tmp_path, "train", "aachen/a_0")
    make(tmp_path, "val", "lindau/l_0")
    make(tmp_path, "test", "berlin/b_0")
    make(tmp_path, "train_extra", "erlangen/e_0", truth="gtCoarse", value=11)
    shutil.rmtree(tmp_path / "gtFine" / "test")
    assert Cityscapes(tmp_path, "train").names == ["aachen/a_0"]
    assert Cityscapes(tmp_path, "trainval").names == ["aachen/a_0", "lindau/l_0"]
    test = Cityscapes(tmp_path, "test")
    assert test.files(0)[1] is None and test[0].target is None and test.instance_path(0) is None

    coarse = Cityscapes(tmp_path, "train", coarse=True)
    assert coarse.names == ["aachen/a_0", "erlangen/e_0"]
    assert coarse[0].target.max() == 0 and coarse[1].target.max() == 2  # road (7), building (11)
    assert Cityscapes(tmp_path, "val", coarse=True).names == ["lindau/l_0"]  # is judged on fine labels alone
    assert Cityscapes(tmp_path, "train_extra").names == ["erlangen/e_0"]


def test_what_is_missing_is_said_with_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"leftImg8bit/train: holds no .*leftImg8bit_trainvaltest\.zip"):
        Cityscapes(tmp_path, "train")
    with pytest.raises(DataError, match=r"no split 'vall'\. Did you mean 'val'"):
        Cityscapes(tmp_path, "vall")
    make(tmp_path, "train", "aachen/a_0")
    with pytest.raises(DataError, match="csCreateTrainIdLabelImgs"):
        Cityscapes(tmp_path, "train", labels="labelTrainIds")
