"""Toy city: Cityscapes' layout, labels equal to cityscapesScripts' drawing, determinism, and scenes worth learning."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import labels as OFFICIAL
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage

from hrseg.data.cityscapes_labels import EVALUATED, LABELS, id_to_train_id
from hrseg.errors import ConfigError, DataError
from hrseg.toycity import city_files
from hrseg.toycity.__main__ import main
from hrseg.toycity.annotation import draw_ids
from hrseg.toycity.cities import CITIES
from hrseg.toycity.city_files import MARKER, write_city
from hrseg.toycity.color_baseline import color_baseline
from hrseg.toycity.scene import COUNTED, Scene, draw_scene

SIZE = (256, 512)
TRAIN, VAL = 4, 3
DRAWN = (  # split, index, checksums of label and instance ids, mean colour
    ("train", 0, 1289998552, 1130897623, (125.6, 121.91, 122.85)),
    ("train", 3, 2061323083, 2220812302, (135.66, 133.52, 139.55)),
    ("val", 1, 4110913608, 4290584305, (130.03, 134.98, 142.72)),
)


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toycity") / "city"
    assert write_city(root, train=TRAIN, val=VAL, workers=1)
    return root


def read(path: Path | str) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_label_table_is_that_of_cityscapes():
    official = [(t.name, t.id, t.trainId, t.category, t.hasInstances, t.ignoreInEval, t.color) for t in OFFICIAL]
    assert [tuple(label) for label in LABELS] == official
    assert [label.train_id for label in EVALUATED] == list(range(19))
    table = id_to_train_id()
    assert table[7] == 0 and table[33] == 18 and table[0] == 255 and table[34] == 255


def test_folders_and_names_are_those_of_cityscapes(city):
    for split, count in (("train", TRAIN), ("val", VAL)):
        images = sorted((city / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == count
        for path in images:
            name, sequence, frame = path.name.removesuffix("_leftImg8bit.png").split("_")
            assert name == path.parent.name and len(sequence) == len(frame) == 6
            stem = city / "gtFine" / split / name / f"{name}_{sequence}_{frame}_gtFine"
            assert read(path).shape == (*SIZE, 3)
            assert read(f"{stem}_labelIds.png").dtype == np.uint8 and read(f"{stem}_labelIds.png").shape == SIZE
            assert read(f"{stem}_instanceIds.png").dtype == np.uint16 and read(f"{stem}_instanceIds.png").shape == SIZE
            annotation = json.loads(Path(f"{stem}_polygons.json").read_text())
            assert (annotation["imgHeight"], annotation["imgWidth"]) == SIZE
    towns = [{p.name for p in (city / "leftImg8bit" / split).iterdir()} for split in ("train", "val")]
    assert not towns[0] & towns[1]


def test_label_images_equal_the_official_drawing_bit_for_bit(city):
    paths = sorted(city.glob("gtFine/*/*/*_polygons.json"))
    assert len(paths) == TRAIN + VAL
    for path in paths:
        annotation = Annotation()
        annotation.fromJsonFile(str(path))
        stem = str(path).removesuffix("polygons.json")
        assert np.array_equal(read(f"{stem}labelIds.png"), createLabelImage(annotation, "ids"))
        assert np.array_equal(read(f"{stem}instanceIds.png"), createInstanceImage(annotation, "ids"))
        color = np.asarray(createLabelImage(annotation, "color"))[..., :3]
        assert np.array_equal(read(f"{stem}color.png")[..., ::-1], color)


def test_groups_and_licence_plates_are_numbered_as_in_the_official_drawing(tmp_path):
    def box(label: str, left: int) -> dict:
        return {"label": label, "polygon": [[left, 10], [left + 8, 10], [left + 8, 30], [left, 30]]}

    kinds = ["car", "cargroup", "car", "license plate", "person", "persongroup", "pole", "polegroup"]
    objects = [box(kind, 12 * i + 2) for i, kind in enumerate(kinds)]
    objects.append(box("license plate", 2))  # on the first car: not drawn
    ids, instances = draw_ids(objects, (40, 100))
    assert [int(ids[20, 12 * i + 6]) for i in range(8)] == [26, 26, 26, 0, 24, 24, 17, 18]
    assert [int(instances[20, 12 * i + 6]) for i in range(8)] == [26000, 26, 26001, 0, 24000, 24, 17, 18]

    path = tmp_path / "polygons.json"
    path.write_text(json.dumps({"imgHeight": 40, "imgWidth": 100, "objects": objects}))
    annotation = Annotation()
    annotation.fromJsonFile(str(path))
    assert np.array_equal(ids, createLabelImage(annotation, "ids"))
    assert np.array_equal(instances, createInstanceImage(annotation, "ids"))


def test_a_scene_depends_on_seed_split_and_index_alone(city, tmp_path):
    write_city(tmp_path / "more", train=TRAIN + 1, val=1, workers=2)
    ours, more = files(city), files(tmp_path / "more")
    shared = [name for name in more if name in ours and name != MARKER]
    assert len(shared) == 5 * (TRAIN + 1)
    assert all(ours[name] == more[name] for name in shared)

    first, _ = draw_scene(0, "val", 0)
    for seed, split, index in ((1, "val", 0), (0, "train", 0), (0, "val", len(CITIES["val"]))):
        assert not np.array_equal(first, draw_scene(seed, split, index)[0])


def test_val_has_ten_evaluated_classes_with_pole_person_and_rider(city):
    ids = np.stack([read(path) for path in sorted(city.glob("gtFine/val/*/*_labelIds.png"))])
    share = {label.name: float((ids == label.id).mean()) for label in EVALUATED}
    present = {name for name, value in share.items() if value > 0}
    assert len(present) >= 10 and {"pole", "person", "rider"} <= present
    assert (ids == 0).mean() < 0.001


def test_every_counted_object_shows_six_pixels_of_width(city):
    counted, seen = COUNTED, 0
    for path in sorted(city.glob("gtFine/*/*/*_polygons.json")):
        objects = [o for o in json.loads(path.read_text())["objects"] if o["label"] != "license plate"]
        owner = np.zeros(SIZE, int)
        for index, item in enumerate(objects):  # each object in a drawing of its own: the last one owns the pixel
            owner[draw_ids([item], SIZE)[0] > 0] = index
        for index, item in enumerate(objects):
            if item["label"].removesuffix("group") in counted:
                columns = np.nonzero((owner == index).any(0))[0]
                assert np.ptp(columns) + 1 >= 6, (path.name, item["label"])
                seen += 1
    assert seen > 30


def test_the_picture_shows_each_object_where_its_polygon_is():
    scene = Scene(np.random.default_rng(3), CITIES["train"][0], SIZE)
    for layer in scene.layers:
        painted = np.zeros(scene.canvas, np.float32)
        painted[layer.box] = layer.paint
        painted = cv2.resize(painted, SIZE[::-1], interpolation=cv2.INTER_AREA) >= 0.5
        label = draw_ids([{"label": layer.label, "polygon": layer.points}], SIZE)[0] > 0
        near = cv2.dilate(label.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert not (painted & ~near).any(), layer.label
        if layer.label not in {"fence", "bicycle", "bicyclegroup"}:  # one looks through these
            core = cv2.erode(label.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            assert (core & ~painted).sum() <= 0.02 * label.sum(), layer.label


def test_colour_alone_does_not_tell_the_classes_apart(city):
    assert color_baseline(city) < 0.4


@pytest.mark.parametrize("size", [(600, 900), (1024, 128)])
def test_a_picture_may_have_any_shape(size):
    picture, annotation = draw_scene(0, "train", 0, size)  # its canvas is higher than the noise it is taken from
    assert picture.shape == (*size, 3)
    assert draw_ids(annotation["objects"], size)[0].shape == size


def test_the_same_city_is_left_alone_and_an_older_one_replaced(tmp_path, capsys):
    root = tmp_path / "city"
    command = ["--out", str(root), "--train", "1", "--val", "1", "--size", "128x256", "--workers", "1"]
    assert main(command) == 0 and "written" in capsys.readouterr().out
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert main(command) == 0 and "already there" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == times
    assert write_city(root, train=1, val=1, size=(128, 256), seed=5, workers=1)
    assert json.loads((root / MARKER).read_text())["seed"] == 5
    assert [p.name for p in tmp_path.iterdir()] == ["city"]


def test_a_foreign_folder_is_refused_and_left_as_it_is(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="something other"):
        write_city(tmp_path, train=1, val=1)
    assert main(["--out", str(tmp_path)]) == 2 and "something other" in capsys.readouterr().err
    assert files(tmp_path) == {"notes.txt": b"mine"}


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(city_files, "draw_ids", fail)
    with pytest.raises(OSError, match="disk full"):
        write_city(tmp_path / "city", train=1, val=1, workers=1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"train": 0}, "train"), ({"val": -1}, "val"), ({"seed": -1}, "seed"), ({"size": (64, 512)}, "height"),
     ({"size": (256, 5000)}, "width"), ({"workers": -2}, "workers")],
)  # fmt: skip
def test_parameters_out_of_range_are_named(tmp_path, wrong, name):
    with pytest.raises(ConfigError, match=name):
        write_city(tmp_path / "city", **wrong)


def test_the_drawing_stays_the_same():
    """Checksums of the ids; of the colours only means, since OpenCV rounds differently on other processors."""
    for split, index, ids_crc, instances_crc, mean in DRAWN:
        image, annotation = draw_scene(0, split, index)
        ids, instances = draw_ids(annotation["objects"], SIZE)
        assert (zlib.crc32(ids.tobytes()), zlib.crc32(instances.tobytes())) == (ids_crc, instances_crc)
        assert np.abs(image.mean((0, 1)) - mean).max() < 0.05
