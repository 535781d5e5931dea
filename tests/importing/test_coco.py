"""COCO, its panoptic labels, and Roboflow's exports: the pixels are those of pycocotools."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference
from pycocotools.coco import COCO

from hrseg.commands.importing import main
from hrseg.data.folder import Folder
from tests.importing.made import HEIGHT, SIZE, WIDTH, classes_of, image, imported, mask_of, objects_of, ring, text, told

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 17, "name": "car"}]  # with gaps, unordered


def compressed(mask: np.ndarray) -> dict:
    rle = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**rle, "counts": rle["counts"].decode()}


def runs(mask: np.ndarray) -> dict:
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts if flat[0] == 0 else [0, *counts]}


def coco_file(names, annotations) -> dict:
    images = [{"id": i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(names, start=1)]
    return {"images": images, "categories": CATEGORIES, "annotations": annotations}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Two images with polygons, polygons of two parts, both kinds of run lengths, and crowds."""
    folder = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(1)
    annotations = []
    for number in range(60):
        category = CATEGORIES[number % 3]["id"]
        blob = np.zeros(SIZE, bool)
        y, x = rng.integers(0, 40, 2)
        blob[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = rng.random() < 2
        shape = [[ring(rng)], [ring(rng), ring(rng, 3)], compressed(blob), runs(blob)][number % 4]
        crowd = int(number % 4 == 3 and number % 3 == 0)
        annotations.append(
            {"id": number, "image_id": 1 + number % 2, "category_id": category, "segmentation": shape, "iscrowd": crowd}
        )
    for name in ("a.png", "b.png"):
        image(folder / "images" / name)
    text(folder / "annotations" / "instances.json", coco_file(["a.png", "b.png"], annotations))
    return folder


def painted(coco: COCO, image_id: int, ids: dict[int, int], fill: int) -> np.ndarray:
    labels = np.full(SIZE, fill, np.uint8)
    for annotation in coco.imgToAnns[image_id]:
        value = 255 if annotation["iscrowd"] else ids[annotation["category_id"]]
        labels[coco.annToMask(annotation).astype(bool)] = value
    return labels


@pytest.mark.parametrize("unlabelled", ["background", "ignore"])
def test_masks_are_those_of_pycocotools(export, tmp_path, unlabelled):
    out = imported(export, tmp_path / "out", "--unlabelled", unlabelled)
    classes = classes_of(out)
    coco = COCO(export / "annotations" / "instances.json")
    ids = {category["id"]: classes[category["name"]] for category in CATEGORIES}
    fill = classes["background"] if unlabelled == "background" else 255
    for image_id, name in ((1, "a"), (2, "b")):
        assert np.array_equal(mask_of(out, name), painted(coco, image_id, ids, fill))
    assert [name for name in classes if name != "background"] == ["cat", "car", "dog"]  # in the order of their ids
    assert (out / "images" / "a.png").resolve() == (export / "images" / "a.png").resolve()
    dataset = Folder(out, "train", val_share=0.4) if unlabelled == "background" else Folder(out, "val", val_share=0.9)
    assert dataset[0].target.shape == SIZE


def test_every_object_keeps_its_pixels_under_a_number_of_its_class(export, tmp_path):
    out = imported(export, tmp_path / "out", "--unlabelled", "background")
    coco, objects, mask = COCO(export / "annotations" / "instances.json"), objects_of(out, "a"), mask_of(out, "a")
    top = np.zeros(SIZE, int)
    for number, annotation in enumerate(coco.imgToAnns[1], start=1):
        top[coco.annToMask(annotation).astype(bool)] = -1 if annotation["iscrowd"] else number
    pairs = set(zip(top.ravel().tolist(), objects.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})  # one number for each object
    assert np.array_equal(np.where(objects >= 1000, objects // 1000, objects), mask)


def test_the_overlap_is_counted_where_the_order_decides_the_class(tmp_path):
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    half = [[20, 10, 40, 10, 40, 30, 20, 30]]
    annotations = [
        {"id": i, "image_id": 1, "category_id": c, "segmentation": s}
        for i, c, s in ((1, 3, square), (2, 17, half), (3, 17, half))
    ]
    image(tmp_path / "in" / "a.png")
    text(tmp_path / "in" / "x.json", coco_file(["a.png"], annotations))
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "ignore")
    assert told(out)["overlap_share"] == pytest.approx(1 / 3, abs=1e-6)  # 10 of 30 columns


def test_what_cannot_be_known_is_asked(export, tmp_path, capsys):
    assert main([str(export), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "--unlabelled background" in message and "--unlabelled ignore" in message
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "crossing": ({"segmentation": [[1, 1, 50, 50, 50, 1, 1, 50]]}, "crosses itself"),
    "outside": ({"segmentation": [[1, 1, 500, 1, 50, 50]]}, "point (500, 1) lies outside"),
    "huge": ({"segmentation": [[1, 1, 1e300, 1, 50, 50]]}, "lies outside"),
    "no number": ({"segmentation": [[1, 1, float("nan"), 1, 50, 50]]}, "finite"),
    "words": ({"segmentation": [["a", 1, 2, 1, 50, 50]]}, "not numbers"),
    "two points": ({"segmentation": [[1, 1, 20, 20]]}, "fewer than three points"),
    "a box": ({"segmentation": [], "bbox": [1, 2, 3, 4]}, "box only"),
    "category": ({"category_id": 4}, "no category with the id 4"),
    "image": ({"image_id": 9}, "no image with the id 9"),
    "size": ({"segmentation": {"size": [5, 5], "counts": [25]}}, "5x5"),
    "sum": ({"segmentation": {"size": list(SIZE), "counts": [5, 7]}}, "add up to 12"),
    "count": ({"segmentation": {"size": list(SIZE), "counts": [2**40, -5]}}, "not counts"),
    "text": ({"segmentation": {"size": list(SIZE), "counts": "PPPPPPPPP"}}, "damaged"),
    "nothing": ({"segmentation": {"size": list(SIZE), "counts": [HEIGHT * WIDTH]}}, "covers no pixel"),
    "type": ({"image_id": [1]}, "image_id"),
}


def test_everything_that_is_broken_is_told_at_once_and_can_be_left_out(tmp_path, capsys):
    sound = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[1, 1, 50, 1, 50, 50]]}
    annotations = [sound] + [{**sound, "id": f"broken {what}", **change} for what, (change, _) in BROKEN.items()]
    file = coco_file(["a.png", "gone.png", "small.png"], annotations)
    image(tmp_path / "in" / "a.png")
    image(tmp_path / "in" / "small.png", (8, 8))
    text(tmp_path / "in" / "x.json", file)
    words = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unlabelled", "background"]
    assert main(words) == 2
    message = capsys.readouterr().err
    for what, (_, reason) in BROKEN.items():
        line = next(line for line in message.splitlines() if f"id broken {what}:" in line)
        assert reason in line
    assert "there is no image 'gone.png'" in message and "8x8" in message and "--skip-broken" in message
    assert f"{len(BROKEN)} annotations and 2 images" in message
    assert not (tmp_path / "out").exists()
    assert main([*words, "--skip-broken"]) == 0
    left_out = told(tmp_path / "out")["left_out"]
    assert (len(left_out["annotations"]), len(left_out["images"])) == (len(BROKEN), 2)
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["a.png"]


def test_roboflow_has_a_split_in_each_folder_and_a_category_that_is_none(tmp_path):
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    for split in ("train", "valid", "test"):
        shape = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 50, 1, 50, 50]]}
        images = [{"id": 0, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}]
        image(tmp_path / "in" / split / "a.jpg")
        content = {"images": images, "categories": categories, "annotations": [shape]}
        text(tmp_path / "in" / split / "_annotations.coco.json", content)
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "background")
    assert list(classes_of(out)) == ["background", "cat"]
    lists = {path.stem: path.read_text().split() for path in out.glob("*.txt")}
    assert lists == {"train": ["train/a"], "val": ["val/a"], "test": ["test/a"]}
    assert Folder(out, "val").names == ["val/a"]


def test_roboflow_masks_have_their_classes_in_a_table(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, SIZE, dtype=np.uint8)
    for split in ("train", "valid"):
        image(tmp_path / "in" / split / f"{split}_1.jpg")
        Image.fromarray(mask).save(tmp_path / "in" / split / f"{split}_1_mask.png")
        text(tmp_path / "in" / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, road\n2, sky\n")
    out = imported(tmp_path / "in", tmp_path / "out")
    assert classes_of(out) == {"background": 0, "road": 1, "sky": 2}
    assert np.array_equal(mask_of(out, "train_1"), mask)
    assert (out / "val.txt").read_text() == "valid_1\n"


def test_panoptic_segments_become_classes_and_things_keep_their_objects(tmp_path):
    ids = np.zeros(SIZE, int)
    ids[:30], ids[30:, :40], ids[30:, 40:70] = 70_000, 1_234, 4_321  # the rest is void
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], 2).astype(np.uint8)
    image(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "panoptic_val2017").mkdir()
    Image.fromarray(colors).save(tmp_path / "in" / "panoptic_val2017" / "a.png")
    segments = [{"id": i, "category_id": c} for i, c in ((70_000, 8), (1_234, 5), (4_321, 5))]
    things = [{"id": 8, "name": "sky", "isthing": 0}, {"id": 5, "name": "car", "isthing": 1, "color": [0, 0, 142]}]
    content = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": segments}],
        "categories": things,
    }
    text(tmp_path / "in" / "panoptic_val2017.json", content)
    out = imported(tmp_path / "in", tmp_path / "out")
    car, sky = (classes_of(out)[name] for name in ("car", "sky"))
    expected = np.select([ids == 70_000, ids > 0], [sky, car], 255)
    assert np.array_equal(mask_of(out, "a"), expected)
    objects = objects_of(out, "a")
    assert {*np.unique(objects[ids == 1_234]), *np.unique(objects[ids == 4_321])} == {car * 1000 + 1, car * 1000 + 2}
    assert set(np.unique(objects[:30])) == {sky}


def test_several_files_and_a_folder_of_images_elsewhere(export, tmp_path):
    plain = json.loads((export / "annotations" / "instances.json").read_text())
    parts = [
        text(
            tmp_path / f"{split}.json",
            {
                **plain,
                "images": plain["images"][i : i + 1],
                "annotations": [a for a in plain["annotations"] if a["image_id"] == i + 1],
            },
        )
        for i, split in enumerate(("train", "val"))
    ]
    words = ("--images", str(export / "images"), "--unlabelled", "background", "--copy")
    out = imported(parts, tmp_path / "out", *words)
    assert (out / "train.txt").read_text() == "a\n" and (out / "val.txt").read_text() == "b\n"
    assert not (out / "images" / "a.png").is_symlink()


def test_a_file_with_a_path_that_leads_out_reads_nothing_there(tmp_path, capsys):
    image(tmp_path / "secret.png")
    image(tmp_path / "in" / "a.png")
    shape = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[1, 1, 50, 1, 50, 50]]}
    for name in ("../secret.png", str(tmp_path / "secret.png"), "..\\secret.png"):
        text(tmp_path / "in" / "x.json", coco_file([name], [shape]))
        assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unlabelled", "ignore"]) == 2
        assert "there is no image" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["faster_coco_eval.mask_api_new_cpp", "shapely"])
def test_without_the_extra_the_way_to_it_is_told(export, tmp_path, capsys, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert main([str(export), "--out", str(tmp_path / "out"), "--unlabelled", "background"]) == 2
    assert "pip install 'hrseg[import]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
