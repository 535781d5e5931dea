"""tools/check_data.py: what it refuses, what it warns of, what it counts."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from hrseg import build
from hrseg import installed_packages as installed
from hrseg.commands import check_data
from hrseg.config import parse
from hrseg.data import checks, pairs
from hrseg.data.class_weights import class_weights
from hrseg.errors import DataError
from hrseg.report import pictures


@pytest.fixture
def scenes(tmp_path):
    """Four training and two validation images, 24x32, of sky over road, with a pole in one of each split."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            mask = np.zeros((24, 32), np.uint8)
            mask[:12] = 1
            mask[:, 3] = 2 if i == 0 else mask[:, 3]
            mask[0] = 255
            save(tmp_path / "images" / split / f"{i}.png", rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            save(tmp_path / "masks" / split / f"{i}.png", mask)
    (tmp_path / "classes.yaml").write_text("[road, sky, pole]")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": {"root": str(tmp_path), "workers": 2}}))
    return tmp_path


FOLDS = ("data.folds=2", "data.fold=0")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def run(scenes, *words):
    return check_data.main([str(scenes / "mine.yaml"), "--sheet", str(scenes / "sheet.png"), *words])


def test_what_is_sound_is_counted_and_drawn(scenes, capsys):
    assert run(scenes) == 0
    out = capsys.readouterr().out
    pixels = np.array([12 * 31 * 4 + 12 * 3, 11 * 31 * 4 + 11 * 3, 23])
    shares = pixels / pixels.sum()
    assert "train: 4 images, 24x32 (height x width), nothing wrong" in out
    assert f"{shares[2]:.3%}" in out and f"{1 / 24:.3%}" in out  # of the pole; of the ignored row


def test_the_sheet_shows_each_image_beside_its_labels_and_what_the_colours_mean(scenes):
    assert run(scenes) == 0
    sheet = np.array(Image.open(scenes / "sheet.png"))
    top = len(sheet) - (3 * (2 * 22 + 360) + 2 * 12)  # six images, two a row, each under its title and what it is
    image, mask = (np.array(Image.open(scenes / folder / "train/0.png")) for folder in ("images", "masks"))
    space = build.dataset(parse({"data": {"root": str(scenes)}}), "train").space
    for x, expected in ((0, image), (480 + 4, pictures.overlay(image, mask, space))):
        shown = sheet[top + 2 * 22 :][:360, x : x + 480]
        assert np.array_equal(shown, cv2.resize(expected, (480, 360), interpolation=cv2.INTER_AREA))
    legend = set(map(tuple, sheet[:top].reshape(-1, 3).tolist()))
    assert {*(c.color for c in space.classes), (0, 0, 0)} <= legend  # black: ignored


def test_a_name_that_no_font_can_draw_is_a_title_all_the_same():
    picture = np.zeros((4, 90, 3), np.uint8)
    assert pictures.titled(picture, "a\nb\udcff").shape == (26, 90, 3)  # OpenCV ends the process on such bytes


def test_the_weights_are_a_loss_that_trains(scenes, capsys):
    run(scenes)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  loss: "))
    config = parse({**yaml.safe_load(line), "data": {"root": str(scenes)}})
    criterion = build.criterion(config, build.dataset(config, "train").space)
    road, sky, pole = criterion.terms[0].weight.tolist()
    assert road < sky < pole and (road + sky + pole) / 3 == pytest.approx(1, abs=1e-3)


def test_weights_are_bounded_where_a_class_hardly_occurs():
    weights = class_weights(np.array([10**9, 1, 0]))
    assert weights[1] == weights[2] == pytest.approx(weights[0] * np.log(2.02) / np.log(1.02), rel=1e-3)


def test_an_image_of_both_splits_misleads(scenes, capsys):
    shutil.copy(scenes / "images/train/2.png", scenes / "images/val/1.png")
    assert run(scenes) == 2
    err = capsys.readouterr().err
    assert (
        f"{scenes}/images/val/1.png: the same file, byte by byte, is in split train, as {scenes}/images/train/2" in err
    )
    assert not (scenes / "sheet.png").exists()


@pytest.mark.parametrize(("shift", "kind"), [(1, "high"), (-1, "low")])
@pytest.mark.parametrize("folds", [(), FOLDS])
def test_ids_that_are_off_by_one_are_told_as_such(scenes, capsys, shift, kind, folds):
    if shift < 0:
        (scenes / "classes.yaml").write_text("[{name: road, id: 1}, {name: sky, id: 2}, {name: pole, id: 3}]")
    else:
        for path in (scenes / "masks").rglob("*.png"):
            mask = np.array(Image.open(path))
            save(path, np.where(mask == 255, 255, mask + 1).astype(np.uint8))
    assert run(scenes, *folds) == 2
    assert f"all ids are one too {kind}." in capsys.readouterr().err


@pytest.mark.parametrize("folds", [(), FOLDS])
def test_a_mask_without_an_image_is_reported(scenes, capsys, folds):
    save(scenes / "masks/train/stray.png", np.zeros((24, 32), np.uint8))
    assert run(scenes, *folds) == 2
    assert f"{scenes}/masks/train/stray.png: a mask without an image." in capsys.readouterr().err


@pytest.mark.parametrize("folds", [(), FOLDS])
def test_masks_that_all_hold_one_class_are_doubted(scenes, capsys, folds):
    for path in (scenes / "masks").rglob("*.png"):
        save(path, np.zeros((24, 32), np.uint8))
    assert run(scenes, *folds) == 2
    assert "the masks of split 'train' hold the class road alone" in capsys.readouterr().err


def test_the_check_of_folds_decodes_no_image(scenes, monkeypatch):
    def refuse(path):
        raise AssertionError(path)

    config = parse({"data": {"root": str(scenes), "folds": 2, "fold": 0}})
    sets = build.data_sets(config)
    monkeypatch.setattr(pairs, "decode_image", refuse)
    assert checks.find_problems(sets, progress=False) == []
    save(scenes / "masks/train/stray.png", np.zeros((24, 32), np.uint8))
    (scenes / "masks/train/1.png").unlink()
    with pytest.raises(DataError) as caught:
        build.data_sets(config)
    assert "stray.png: a mask without an image." in str(caught.value) and "1.png: has no mask" in str(caught.value)
    with pytest.raises(DataError, match=r"masks/train/1\.png"):
        build.data_sets(parse({"data": {"root": str(scenes), "folds": 2, "fold": 0, "check": False}}))


def test_an_image_of_two_folds_misleads(scenes, capsys):
    for i in range(1, 4):
        shutil.copy(scenes / "images/train/0.png", scenes / f"images/train/{i}.png")
    assert run(scenes, *FOLDS) == 2
    assert "the same file, byte by byte, is in split train" in capsys.readouterr().err


def test_one_strange_value_is_not_taken_for_a_shift(scenes, capsys):
    mask = np.array(Image.open(scenes / "masks/train/0.png"))
    mask[5, 5] = 3
    save(scenes / "masks/train/0.png", mask)
    assert run(scenes) == 2
    err = capsys.readouterr().err
    assert "value 3 (row 5, column 5) is not in classes.yaml, which lists 0 to 2" in err and "one too" not in err


def test_images_of_several_sizes_need_a_crop(scenes, capsys):
    save(scenes / "images/train/1.png", np.zeros((20, 30, 3), np.uint8))
    save(scenes / "masks/train/1.png", np.zeros((20, 30), np.uint8))
    assert run(scenes) == 2
    assert "augment.crop: is not set, but the training images are of 2 sizes from 20x30" in capsys.readouterr().err
    assert run(scenes, "augment.crop=[16, 16]") == 0
    assert run(scenes, "train.batch_size=1") == 0


def test_a_class_without_a_pixel_is_a_warning(scenes, capsys):
    save(scenes / "masks/train/0.png", np.array(Image.open(scenes / "masks/train/1.png")))
    assert run(scenes) == 0
    assert "warning: split train has no pixel of pole: cannot be learned." in capsys.readouterr().out


def test_binary_and_multilabel_get_the_weights_of_their_loss(scenes, capsys):
    (scenes / "classes.yaml").write_text("[{name: sky, id: 1}]")
    for path in (scenes / "masks").rglob("*.png"):
        save(path, (np.array(Image.open(path)) == 1).astype(np.uint8))
    assert run(scenes, "data.task=binary") == 0
    assert "loss: [{name: bce, pos_weight: [" in capsys.readouterr().out


def test_a_sheet_that_cannot_be_written_is_told(scenes, capsys):
    assert run(scenes, "--sheet", str(scenes / "mine.yaml" / "sheet.png")) == 2
    assert "mine.yaml" in capsys.readouterr().err


def test_packages_that_do_not_fit_are_told(monkeypatch):
    versions = {"torchvision": "0.9.0", "torch": "2.15.0+cpu", "numpy": "2.4.0"}
    needs = {"torchvision": ["torch==1.8.0", "numpy", "scipy; extra == 'scipy'"], "torch": ["numpy<2"]}
    monkeypatch.setattr(installed, "_version", versions.get)
    monkeypatch.setattr(installed, "_requirements", lambda package: needs.get(package, []))
    assert installed.misfits() == [
        "torchvision 0.9.0 needs torch==1.8.0, installed is 2.15.0+cpu.",
        "torch 2.15.0+cpu needs numpy<2, installed is 2.4.0.",
    ]


def test_the_packages_of_these_tests_fit():
    assert installed.misfits() == []
