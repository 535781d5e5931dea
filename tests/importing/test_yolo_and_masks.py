"""YOLO's polygons, filled as Ultralytics does; folders of masks by colour and value, soft and missing ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from hrseg.commands.importing import main
from tests.importing.made import HEIGHT, SIZE, WIDTH, classes_of, image, imported, mask_of, ring, text, told


def shares(flat) -> str:
    points = np.reshape(flat, (-1, 2)) / [WIDTH, HEIGHT]
    return " ".join(f"{v:.6f}" for v in points.ravel())


def polygon2mask(words: str) -> np.ndarray:
    """What ultralytics.data.utils.polygon2mask makes of the numbers of a line."""
    points = np.array(words.split(), np.float32).reshape(-1, 2) * np.array([WIDTH, HEIGHT], np.float32)
    mask = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(mask, np.asarray([points], dtype=np.int32), color=1)
    return mask.astype(bool)


@pytest.mark.parametrize("layout", ["images/{split}/{name}", "{split}/images/{name}"])
def test_yolo_polygons_have_the_pixels_of_ultralytics(tmp_path, layout):
    rng = np.random.default_rng(4)
    lines = [f"{i % 2 * 3} {shares(ring(rng))}" for i in range(7)]
    for split, name in (("train", "a"), ("valid", "b"), ("valid", "empty")):
        key = layout.format(split=split, name=name)
        image(tmp_path / "in" / f"{key}.jpg")
        if name != "empty":
            text(tmp_path / "in" / f"{key.replace('images', 'labels')}.txt", "\n".join(lines))
    text(tmp_path / "in" / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: {0: cat, 3: dog}\n")
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "background")
    classes, expected = classes_of(out), np.zeros(SIZE, np.uint8)
    for line in lines:
        number, _, words = line.partition(" ")
        expected[polygon2mask(words)] = classes["dog" if number == "3" else "cat"]
    assert np.array_equal(mask_of(out, "a"), expected)
    assert (out / "val.txt").read_text() == "b\nempty\n" and not mask_of(out, "empty").any()


def test_lines_of_yolo_that_are_broken_are_told(tmp_path, capsys):
    lines = {
        "7 0.1 0.1 0.5 0.1 0.5 0.5": "no class 7",
        "0 0.5 0.5 0.1 0.1": "box only",
        "0 0.1 0.1 0.5": "not pairs",
        "0 0.1 0.1 9 0.1 0.5 0.5": "outside",
        "0 0.1 0.1 nan 0.1 0.5 0.5": "finite",
        "zero 1": "not a class",
        "0 0.1 0.1 0.9 0.9 0.9 0.1 0.1 0.9": "crosses itself",
    }
    image(tmp_path / "in" / "images" / "a.png")
    text(tmp_path / "in" / "labels" / "a.txt", "\n".join(lines))
    text(tmp_path / "in" / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unlabelled", "ignore"]) == 2
    message = capsys.readouterr().err.splitlines()
    for number, reason in enumerate(lines.values(), start=1):
        assert any(f"a.txt, line {number}: " in line and reason in line for line in message), reason


COLORS = {"road": (128, 64, 128), "sky": (70, 130, 180), "void": (0, 0, 0)}
LABELS = np.arange(HEIGHT * WIDTH).reshape(SIZE) // 7 % 3
TABLES = {
    "class_dict.csv": "name,r,g,b\nroad,128,64,128\nsky,70,130,180\nvoid,0,0,0\n",
    "classes.csv": "128,64,128,road\n70,130,180,sky\n0,0,0,void\n",
    "colors.json": {name: list(color) for name, color in COLORS.items()},
    "classes.json": [{"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)} for name, color in COLORS.items()],
}


def mask(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)


@pytest.mark.parametrize("table", TABLES)
def test_colours_mean_what_a_table_says(tmp_path, table):
    image(tmp_path / "in" / "images" / "train" / "a.jpg")
    image(tmp_path / "in" / "images" / "val" / "b.jpg")
    for name in ("train/a", "val/b"):
        mask(tmp_path / "in" / "labels" / f"{name}.png", np.array(list(COLORS.values()))[LABELS])
    text(tmp_path / "in" / table, TABLES[table])
    out = imported(tmp_path / "in", tmp_path / "out")
    ids = classes_of(out)
    assert np.array_equal(mask_of(out, "a"), np.array([ids["road"], ids["sky"], 255])[LABELS])
    assert "color: [70, 130, 180]" in (out / "classes.yaml").read_text() and (out / "val.txt").exists()


def test_values_mean_what_a_table_says_and_255_is_ignored(tmp_path):
    image(tmp_path / "in" / "a.jpg")
    mask(tmp_path / "in" / "a_mask.png", np.array([4, 9, 255])[LABELS])
    table = text(tmp_path / "table.csv", "value;name\n9;tree\n4;grass\n")
    out = imported(tmp_path / "in", tmp_path / "out", "--classes", str(table))
    ids = classes_of(out)
    assert np.array_equal(mask_of(out, "a"), np.array([ids["grass"], ids["tree"], 255])[LABELS])


@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_two_values_are_background_and_foreground(tmp_path, high):
    image(tmp_path / "in" / "img" / "a.jpg")
    mask(tmp_path / "in" / "mask" / "a.png", (LABELS == 1) * high)
    out = imported(tmp_path / "in", tmp_path / "out")
    assert classes_of(out) == {"background": 0, "foreground": 1}
    assert np.array_equal(mask_of(out, "a"), LABELS == 1)


@pytest.fixture
def soft(tmp_path):
    """A disc with soft edges, as PNG and as JPEG."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = np.clip((20 - np.hypot(y - 30, x - 40)) / 4 + 0.5, 0, 1) * 255
    mask(tmp_path / "in" / "masks" / "a.png", disc.round())
    mask(tmp_path / "in" / "masks" / "b.jpg", disc.round(), quality=95)
    for name in "ab":
        image(tmp_path / "in" / "images" / f"{name}.png")
    return tmp_path


def test_soft_masks_are_a_question_with_two_answers(soft, capsys):
    words = [str(soft / "in"), "--out"]
    assert main([*words, str(soft / "out")]) == 2
    message = capsys.readouterr().err
    assert "JPEG" in message and "--soft threshold" in message and "--soft ignore" in message
    (soft / "in" / "masks" / "b.jpg").unlink()
    assert main([*words, str(soft / "out")]) == 2
    assert "soft edges" in capsys.readouterr().err


def test_soft_masks_are_cut_at_the_middle_or_ignored_between(soft):
    disc = np.asarray(Image.open(soft / "in" / "masks" / "a.png"))
    cut = imported(soft / "in", soft / "cut", "--soft", "threshold")
    assert np.array_equal(mask_of(cut, "a"), disc >= 128)
    assert (mask_of(cut, "b") != (disc >= 128)).mean() < 0.01
    kept = imported(soft / "in", soft / "kept", "--soft", "ignore")
    between = (disc > 32) & (disc < 223)
    assert between.any() and np.array_equal(mask_of(kept, "a"), np.where(between, 255, disc >= 128))


def test_an_image_without_a_mask_is_background_if_you_say_so(tmp_path, capsys):
    for name in "ab":
        image(tmp_path / "in" / "images" / f"{name}.png")
    mask(tmp_path / "in" / "masks" / "a.png", (LABELS == 1) * 255)
    words = [str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "b.png: it has no mask" in capsys.readouterr().err
    assert main([*words, "--unlabelled", "background"]) == 0
    assert not mask_of(tmp_path / "out", "b").any()
    assert told(tmp_path / "out")["images"] == {"all": 2}


def test_values_that_nobody_named_are_listed(tmp_path, capsys):
    image(tmp_path / "in" / "images" / "a.png")
    mask(tmp_path / "in" / "masks" / "a.png", np.array([0, 3, 7])[LABELS])
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "values 0, 3, 7" in message and "classes.csv" in message
    text(tmp_path / "in" / "classes.csv", "ground,0\ntree,3\n")
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    assert "has 7 at row" in capsys.readouterr().err
