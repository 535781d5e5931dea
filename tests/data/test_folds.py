"""Folds: what belongs together stays together, and every image is in one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hrseg import build, config
from hrseg.commands import folds
from hrseg.commands import train as train_command
from hrseg.data.folds import divide_groups
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
