"""Labelme: the pixels are those of labelme.utils.shape.shape_to_mask, which draws with Pillow."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hrseg.commands.importing import main
from tests.importing.made import HEIGHT, SIZE, WIDTH, classes_of, image, imported, mask_of, objects_of, ring, text, told


def encoded(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def labelme(name: str, shapes: list[dict], data: str | None = None) -> dict:
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": data, **size}


def shape(label: str, kind: str, flat, **others) -> dict:
    return {
        "label": label,
        "shape_type": kind,
        "points": np.reshape(flat, (-1, 2)).tolist(),
        "group_id": None,
        **others,
    }


def drawn(kind: str, points: list, width: int) -> np.ndarray:
    """What shape_to_mask draws."""
    picture = Image.new("L", (WIDTH, HEIGHT))
    draw, points = ImageDraw.Draw(picture), [tuple(point) for point in points]
    if kind in ("circle", "point"):
        (x, y), radius = points[0], 5 if kind == "point" else math.dist(*points)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        draw.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        draw.line(points, fill=1, width=width)
    else:
        draw.polygon(points, outline=1, fill=1)
    return np.array(picture, bool)


@pytest.mark.parametrize("width", [10, 3])
def test_every_kind_of_shape_has_labelmes_pixels(tmp_path, width):
    rng = np.random.default_rng(3)
    shapes = [shape("leaf", "polygon", ring(rng)) for _ in range(6)]
    shapes += [
        shape("box", "rectangle", [50.2, 40.7, 10.6, 30]),
        shape("disc", "circle", [60, 30, 66.5, 33.2]),
        shape("road", "linestrip", [1, 1, 30.5, 20.1, 40, 55]),
        shape("road", "line", [70, 1, 60, 50]),
        shape("dot", "point", [12.3, 12.8]),
        shape("leaf", "polygon", ring(rng)),
    ]
    image(tmp_path / "in" / "a.png")
    text(tmp_path / "in" / "a.json", labelme("a.png", shapes))
    words = ("--unlabelled", "background") if width == 10 else ("--unlabelled", "background", "--line-width", "3")
    out = imported(tmp_path / "in", tmp_path / "out", *words)
    classes = classes_of(out)
    expected = np.zeros(SIZE, np.uint8)
    for one in shapes:
        expected[drawn(one["shape_type"], one["points"], width)] = classes[one["label"]]
    assert np.array_equal(mask_of(out, "a"), expected)
    assert list(classes) == ["background", "box", "disc", "dot", "leaf", "road"]


def test_masks_groups_and_the_image_inside_the_file(tmp_path):
    pixels = np.random.default_rng(0).random((11, 21)) < 0.5
    inside = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    shapes = [
        shape("cat", "mask", [30, 20, 50, 30], mask=encoded(pixels.astype(np.uint8) * 255)),
        shape("dog", "rectangle", [1, 1, 5, 5], group_id=4),
        shape("dog", "rectangle", [10, 1, 15, 5], group_id=4),
        shape("__ignore__", "rectangle", [60, 50, 70, 55]),
    ]
    text(tmp_path / "in" / "a.json", labelme("../photos/a.png", shapes, encoded(inside)))
    text(tmp_path / "in" / "labels.txt", "__ignore__\n_background_\ndog\ncat\n")
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "background")
    classes, mask, objects = classes_of(out), mask_of(out, "a"), objects_of(out, "a")
    assert list(classes) == ["background", "dog", "cat"]
    assert np.array_equal(mask[20:31, 30:51] == classes["cat"], pixels)
    assert (mask[50:56, 60:71] == 255).all()
    assert objects[3, 3] == objects[3, 12] == classes["dog"] * 1000 + 1  # one group is one object
    assert np.array_equal(np.asarray(Image.open(out / "images" / "a.png")), inside)


def test_folders_named_after_splits_are_splits(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / "in" / split / f"{split}0.png")
        text(
            tmp_path / "in" / split / f"{split}0.json", labelme(f"{split}0.png", [shape("cat", "circle", [9, 9, 5, 5])])
        )
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "background")
    assert (out / "train.txt").read_text() == "train0\n" and (out / "val.txt").read_text() == "val0\n"


BROKEN = {
    "crossing": (shape("a", "polygon", [1, 1, 50, 50, 50, 1, 1, 50]), "crosses itself"),
    "outside": (shape("a", "polygon", [1, 1, 500, 50, 50, 1]), "outside the image"),
    "far": (shape("a", "circle", [1, 1, 1e9, 50]), "outside the image"),
    "kind": (shape("a", "cuboid", [1, 1, 3, 3]), "'cuboid'"),
    "points": (shape("a", "circle", [1, 1, 3, 3, 5, 5]), "a circle has 3 points"),
    "three": ({**shape("a", "polygon", [1, 1]), "points": [[1, 2, 3]]}, "not pairs"),
    "mask": (shape("a", "mask", [1, 1, 3, 3], mask="%%%"), "damaged"),
    "picture": (shape("a", "mask", [1, 1, 3, 3], mask=base64.b64encode(b"PNG").decode()), "damaged"),
    "corners": (shape("a", "mask", [1, 1, 3, 3], mask=encoded(np.ones((4, 4), np.uint8))), "4x4"),
    "label": ({**shape("a", "polygon", [1, 1]), "label": 7}, "label"),
}


def test_broken_shapes_are_told_at_once(tmp_path, capsys):
    image(tmp_path / "in" / "a.png")
    sound = shape("a", "circle", [9, 9, 5, 5])
    text(tmp_path / "in" / "a.json", labelme("a.png", [sound, *(broken for broken, _ in BROKEN.values())]))
    text(tmp_path / "in" / "gone.json", labelme("gone.png", [sound]))
    words = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unlabelled", "ignore"]
    assert main(words) == 2
    message = capsys.readouterr().err
    for number, (_, reason) in enumerate(BROKEN.values(), start=1):
        line = next(
            line for line in message.splitlines() if f"a.json, shape number {number} " in line.replace(":", " ")
        )
        assert reason in line
    assert "there is no image 'gone.png'" in message
    assert main([*words, "--skip-broken"]) == 0
    assert len(told(tmp_path / "out")["left_out"]["annotations"]) == len(BROKEN)
