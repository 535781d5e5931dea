"""A first recipe: the data and the machine are looked at, and training takes the file."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from hrseg import config
from hrseg.build import start as recipes
from hrseg.commands import start


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    monkeypatch.setitem(recipes.ENCODERS, "cpu", ("hrnetv2_w18_small_v1",))
    monkeypatch.setitem(recipes.LARGEST_CROP, "cpu", 64)


@pytest.fixture
def grey(tmp_path):
    """12-bit grey images in 16-bit files with a small defect; one is in both splits but for noise."""
    root, rng = tmp_path / "defects", np.random.default_rng(0)
    for number in range(8):
        split = "train" if number < 6 else "val"
        image = np.kron(rng.integers(500, 4000, (8, 8)), np.ones((8, 8), np.int64)).astype(np.uint16)
        image = first if number == 7 else image  # noqa: F821
        first = image if number == 0 else first if number else image  # noqa: F841, F821
        mask = np.zeros((64, 64), np.uint8)
        mask[10:14, 20 : 20 + 4] = 1
        image = np.where(mask == 1, 4095, image).astype(np.uint16)
        for folder, picture in (("images", image), ("masks", mask)):
            path = root / folder / split / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    (root / "classes.yaml").write_text(yaml.safe_dump(["background", "defect"]))
    return root


def test_the_recipe_fits_the_data_and_training_takes_it(grey, tmp_path, capsys):
    out = tmp_path / "mine.yaml"
    assert start.main([str(grey), "--minutes", "2", "--weights", "none", "--out", str(out)]) == 0
    told, read = capsys.readouterr().out, config.load(str(out), [])
    assert read.data.task == "binary" and read.data.input_range == (0, 4095)
    assert read.data.sampling is not None and [term.name for term in read.loss] == ["bce", "dice"]
    assert read.train.iterations > 10 and read.augment.crop == (64, 64)
    assert "look the same" in told and "defect has 0.39% of the pixels" in told
    assert all("#" in line or ":" in line for line in out.read_text().splitlines())
    assert start.main([str(grey), "--minutes", "2", "--weights", "none", "--out", str(out)]) == 0  # over its own


def test_dry_writes_nothing_and_other_files_are_kept(shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start.main([str(shapes), "--minutes", "2", "--weights", "none", "--dry"]) == 0
    assert "class_weights" not in capsys.readouterr().out and not list(tmp_path.glob("*.yaml"))
    (tmp_path / "own.yaml").write_text("a: 1\n")
    assert start.main([str(shapes), "--minutes", "2", "--out", "own.yaml"]) == 2
    assert start.main([str(tmp_path / "nothing"), "--minutes", "2"]) == 2
    assert start.main([str(shapes), "--minutes", "soon"]) == 2
    assert (tmp_path / "own.yaml").read_text() == "a: 1\n"
