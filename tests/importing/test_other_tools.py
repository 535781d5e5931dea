"""Label Studio, Supervisely and Mapillary Vistas: the pixels are those of their own code."""

from __future__ import annotations

import base64
import io
import zlib

import cv2
import numpy as np
from label_studio_converter.brush import encode_rle
from PIL import Image
from pycocotools import mask as reference

from hrseg.commands.importing import main
from tests.importing.made import HEIGHT, SIZE, WIDTH, classes_of, image, imported, mask_of, objects_of, ring, text


def label_studio(*results: dict, name: str = "/data/upload/3/0a1b2c3d-a.png") -> list[dict]:
    sized = [{"id": f"r{i}", "original_width": WIDTH, "original_height": HEIGHT, **r} for i, r in enumerate(results)]
    cancelled = {"result": [], "was_cancelled": True}
    return [{"id": 7, "data": {"image": name}, "annotations": [cancelled, {"result": sized}]}]


def polygon(label: str, flat) -> dict:
    points = (np.reshape(flat, (-1, 2)) * 100 / [WIDTH, HEIGHT]).tolist()
    return {"type": "polygonlabels", "value": {"points": points, "polygonlabels": [label]}}


def brush(label: str, pixels: np.ndarray) -> dict:
    rgba = np.repeat((pixels * 255).astype(np.uint8)[:, :, None], 4, axis=2)
    value = {"format": "rle", "rle": [int(v) for v in encode_rle(rgba.ravel())], "brushlabels": [label]}
    return {"type": "brushlabels", "value": value}


def test_label_studios_polygons_and_brushes(tmp_path):
    flat = ring(np.random.default_rng(3))
    pixels = np.random.default_rng(4).random(SIZE) < 0.1
    image(tmp_path / "in" / "a.png")
    text(tmp_path / "in" / "x.json", label_studio(polygon("cat", flat), brush("dog", pixels)))
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "background")
    classes = classes_of(out)
    exact = (np.reshape(flat, (-1, 2)) * 100 / [WIDTH, HEIGHT] / 100 * [WIDTH, HEIGHT]).ravel().tolist()
    cat = reference.decode(reference.merge(reference.frPyObjects([exact], *SIZE))).astype(bool)
    assert np.array_equal(mask_of(out, "a"), np.select([pixels, cat], [classes["dog"], classes["cat"]], 0))


def test_broken_results_of_label_studio_are_told(tmp_path, capsys):
    sound = brush("dog", np.random.default_rng(5).random(SIZE) < 0.5)
    packed = sound["value"]["rle"]
    broken = {
        "damaged": {**sound, "value": {**sound["value"], "rle": packed[:20]}},
        "is not for an image": {**sound, "value": {**sound["value"], "rle": [255] * 40}},
        "not a list of bytes": {**sound, "value": {**sound["value"], "rle": [1e9]}},
        "has 2 labels": {**sound, "value": {**sound["value"], "brushlabels": ["a", "b"]}},
        "not pairs": {"type": "polygonlabels", "value": {"points": [[1]], "polygonlabels": ["a"]}},
        "no area": {"type": "ellipselabels", "value": {"ellipselabels": ["a"]}},
        "original_width": {**polygon("a", [1, 1, 9, 1, 9, 9]), "original_width": 0},
    }
    image(tmp_path / "in" / "a.png")
    text(tmp_path / "in" / "x.json", label_studio(*broken.values()))
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unlabelled", "background"]) == 2
    message = capsys.readouterr().err
    assert all(reason in message for reason in broken if reason != "no area"), message
    assert "0 labels" in message


def packed(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(np.dstack([pixels * 255] * 4).astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


def test_superviselys_polygons_with_holes_and_bitmaps(tmp_path):
    blob = np.random.default_rng(1).random((12, 20)) < 0.5
    outer, hole = [[5, 5], [60, 5], [60, 50], [5, 50]], [[20, 20], [30, 20], [30, 30]]
    objects = [
        {"id": 1, "classTitle": "roof", "geometryType": "polygon", "points": {"exterior": outer, "interior": [hole]}},
        {"id": 2, "classTitle": "tree", "geometryType": "bitmap", "bitmap": {"origin": [40, 30], "data": packed(blob)}},
    ]
    classes = [{"title": "tree", "shape": "bitmap", "color": "#00FF00"}, {"title": "roof", "color": "#FF0000"}]
    image(tmp_path / "in" / "train" / "img" / "a.png")
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
    text(tmp_path / "in" / "train" / "ann" / "a.png.json", content)
    text(tmp_path / "in" / "meta.json", {"classes": classes})
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "background")
    ids, expected = classes_of(out), np.zeros(SIZE, np.uint8)
    cv2.fillPoly(expected, [np.array(outer)], ids["roof"])
    cv2.fillPoly(expected, [np.array(hole)], 0)
    expected[30:42, 40:60][blob] = ids["tree"]
    assert np.array_equal(mask_of(out, "a"), expected)
    assert "color: [0, 255, 0]" in (out / "classes.yaml").read_text()
    bad = [{**objects[1], "bitmap": {"origin": o, "data": d}} for o, d in (([70, 5], packed(blob)), ([1, 1], "AAAA"))]
    text(tmp_path / "in" / "train" / "ann" / "a.png.json", {**content, "objects": [*objects, *bad]})
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "bad"), "--unlabelled", "background"]) == 2


def test_vistas_labels_and_instances(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[10:30], labels[30:50, :40], labels[50:] = 1, 1, 2
    numbers = np.zeros(SIZE, int)
    numbers[30:50, :40] = 1
    entries = [
        {
            "name": "construction--road",
            "readable": "Road",
            "color": [128, 64, 128],
            "instances": False,
            "evaluate": True,
        },
        {"name": "object--car", "readable": "Car", "color": [0, 0, 142], "instances": True, "evaluate": True},
        {"name": "void--unlabeled", "readable": "Unlabeled", "color": [0, 0, 0], "instances": False, "evaluate": False},
    ]
    for split in ("training", "validation"):
        base = tmp_path / "in" / split
        image(base / "images" / f"{split}.jpg")
        for kind, array in (("labels", labels), ("instances", (labels * np.uint16(256) + numbers).astype(np.uint16))):
            (base / "v2.0" / kind).mkdir(parents=True)
            Image.fromarray(array).save(base / "v2.0" / kind / f"{split}.png")
    text(tmp_path / "in" / "config_v2.0.json", {"labels": entries})
    out = imported(tmp_path / "in", tmp_path / "out")
    ids = classes_of(out)
    road, car = ids["construction--road"], ids["object--car"]
    assert np.array_equal(mask_of(out, "training"), np.array([road, car, 255])[labels])
    assert {*np.unique(objects_of(out, "validation")).tolist()} == {road, car * 1000 + 1, car * 1000 + 2, 255}
    assert (out / "val.txt").read_text() == "validation\n"
