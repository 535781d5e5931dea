"""Folds: what belongs together stays together, and every image is in one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from hrseg import build, config
from hrseg.build.changes import data_identity, other_validation_images, require_same_data
from hrseg.commands import folds
from hrseg.commands import train as train_command
from hrseg.data.folds import divide_groups
from hrseg.errors import ConfigError
from hrseg.metrics import PerImage


def test_a_group_is_never_divided_and_classes_are_spread():
    random = np.random.default_rng(0)
    groups = [f"place{number}" for number in random.integers(0, 40, 200)]
    pixels = random.integers(0, 1000, (200, 4))
    rare = [name in {"place3", "place7", "place11"} for name in groups]  # a class that three places have
    pixels[:, 3] = np.where(rare, 500, 0)
    fold = divide_groups(groups, pixels, 3)
    assert all(len(set(fold[np.array(groups) == name])) == 1 for name in groups)
    shares = np.stack([pixels[fold == f].sum(0) for f in range(3)]) / pixels.sum(0)
    assert (shares[:, :3] > 0.28).all() and (shares[:, 3] > 0).all()
    assert np.array_equal(fold, divide_groups(groups, pixels, 3))
    with pytest.raises(ValueError, match="2 groups cannot be divided into 3"):
        divide_groups(["a", "a", "b"], pixels[:3], 3)


def test_a_fold_of_a_folder_is_read_like_the_whole(config_file):
    whole = build.dataset(config.load(config_file), "train")
    parts = [build.dataset(config.load(config_file, ["data.folds=3", f"data.fold={f}"]), "val") for f in range(3)]
    rests = [build.dataset(config.load(config_file, ["data.folds=3", f"data.fold={f}"]), "train") for f in range(3)]
    assert sorted(name for part in parts for name in part.names) == sorted(whole.names)
    for part, rest in zip(parts, rests, strict=True):
        assert len(part) == 2 and not set(part.names) & set(rest.names) and len(rest) == 4
        for i, name in enumerate(part.names):
            there = whole.names.index(name)
            assert part.files(i) == whole.files(there)
            assert np.array_equal(part[i].image, whole[there].image) and part[i].name == name


def test_the_folds_add_up_to_the_whole(config_file, tmp_path, capsys):
    runs = [tmp_path / f"fold{f}" for f in range(2)]
    for f, run in enumerate(runs):
        changes = ["data.folds=2", f"data.fold={f}", f"run.dir={run}", "train.iterations=1"]
        assert train_command.main([str(config_file), *changes]) == 0
    words = [str(run) for run in runs]
    assert folds.main([*words, "--out", str(tmp_path / "all")]) == 0
    merged = PerImage.load(tmp_path / "all" / "per_image.npz")
    parts = [PerImage.load(run / "per_image.npz") for run in runs]
    assert np.array_equal(merged.total(), sum(part.total() for part in parts))
    assert merged.total().sum() == 6 * 47 * 64  # every labelled pixel of every image, once
    assert json.loads((tmp_path / "all" / "metrics.json").read_text())["images"] == 6
    capsys.readouterr()
    assert folds.main(words[:1]) == 2 and "[1] of 2 are missing" in capsys.readouterr().err
    assert folds.main([*words, words[0]]) == 2 and "is fold 0, as" in capsys.readouterr().err


@pytest.fixture
def pile(shapes, tmp_path):
    """The images of `shapes` without splits: 00 to 07."""
    root = tmp_path / "pile"
    for kind in ("images", "masks"):
        for path in sorted((shapes / kind).rglob("*.png")):
            (root / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / kind / path.name)
    shutil.copy(shapes / "classes.yaml", root)
    return root


@pytest.mark.parametrize("words", [[], ["data.train_split=all"], ["data.train_split=all", "data.val_share=null"]])
def test_folds_divide_all_images_also_beside_a_share(config_file, pile, words, caplog):
    caplog.set_level("INFO")
    seen = []
    for fold in range(2):
        changes = [f"data.root={pile}", "data.val_share=0.25", "data.folds=2", f"data.fold={fold}", *words]
        sets = build.data_sets(config.load(config_file, changes))
        assert sum(map(len, sets.values())) == 8
        seen += sets["val"].names
    assert sorted(seen) == [f"{i:02}" for i in range(8)]
    told = "data.folds divides all 8 images; data.val_share is not used." in caplog.text
    assert told == ("data.val_share=null" not in words)


def test_all_is_a_split_without_a_list(config_file, pile):
    changes = [f"data.root={pile}", "data.val_share=0.25", "data.val_split=all"]
    assert len(build.dataset(config.load(config_file, changes), "all")) == 8
    (pile / "all.txt").write_text("00\n01\n")
    assert list(build.dataset(config.load(config_file, changes), "all").names) == ["00", "01"]


def test_other_images_of_a_share_than_those_of_the_checkpoint_are_told(config_file, pile):
    settings = config.load(config_file, [f"data.root={pile}", "data.val_share=0.25"])
    sets = build.data_sets(settings)
    known = data_identity(sets["train"], sets["val"])
    assert other_validation_images(known, settings, sets["val"]) is None
    assert "these 6 images are not the 2" in str(other_validation_images(known, settings, sets["train"]))
    saved = {"config": settings.to_plain(), "data": known, **sets["train"].space.to_plain()}
    with pytest.raises(ConfigError, match=r"hrseg up to 0\.1 divided by val_share only roughly"):
        require_same_data(saved, sets["val"], sets["train"])
