"""CVAT's XML and its zip of masks, PASCAL VOC: polygons and run lengths are those of pycocotools."""

from __future__ import annotations

import zipfile

import numpy as np
from PIL import Image
from pycocotools import mask as reference

from hrseg.commands.importing import main
from tests.importing.made import HEIGHT, SIZE, WIDTH, classes_of, image, imported, mask_of, objects_of, ring, text

LABELS = "<label><name>road</name><color>#804080</color></label><label><name>car</name><color>#00008e</color></label>"


def cvat(*images: str, labels: str = LABELS) -> str:
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    return f"{head}{meta}{''.join(images)}</annotations>"


def picture(name: str, *shapes: str, others: str = "") -> str:
    return f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}" {others}>{"".join(shapes)}</image>'


def polygon(label: str, flat, order: int = 0, others: str = "") -> str:
    points = ";".join(f"{x},{y}" for x, y in np.reshape(flat, (-1, 2)))
    return f'<polygon label="{label}" points="{points}" z_order="{order}" occluded="0" {others}></polygon>'


def of_polygon(flat) -> np.ndarray:
    return reference.decode(reference.merge(reference.frPyObjects([list(map(float, flat))], *SIZE))).astype(bool)


def runs_by_rows(mask: np.ndarray) -> str:
    flat = [0, *mask.ravel().astype(int), 2]
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat[1:])) + 1)])
    return ", ".join(map(str, counts if not mask.ravel()[0] else [0, *counts]))


def test_polygons_boxes_and_masks_lie_in_their_z_order(tmp_path):
    rng = np.random.default_rng(5)
    rings = [ring(rng) for _ in range(3)]
    blob = rng.random((20, 30)) < 0.5
    mask = f'<mask label="car" rle="{runs_by_rows(blob)}" left="25" top="15" width="30" height="20" z_order="1"></mask>'
    shapes = (
        polygon("road", rings[0], 2), polygon("car", rings[1]), mask, polygon("car", rings[2], 0, 'group_id="3"'),
        '<box label="road" xtl="1" ytl="2" xbr="9.5" ybr="12" z_order="-1" group_id="3"></box>',
    )  # fmt: skip
    image(tmp_path / "in" / "images" / "a.png")
    text(tmp_path / "in" / "annotations.xml", cvat(picture("a.png", *shapes)))
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "background")
    classes = classes_of(out)
    whole = np.zeros(SIZE, bool)
    whole[15:35, 25:55] = blob
    expected = np.zeros(SIZE, np.uint8)
    box = of_polygon([1, 2, 9.5, 2, 9.5, 12, 1, 12])
    layers = [("road", box), ("car", of_polygon(rings[1])), ("car", of_polygon(rings[2])), ("car", whole)]
    for label, pixels in [*layers, ("road", of_polygon(rings[0]))]:
        expected[pixels] = classes[label]
    assert np.array_equal(mask_of(out, "a"), expected)
    assert "color: [128, 64, 128]" in (out / "classes.yaml").read_text()
    assert np.array_equal(objects_of(out, "a") // 1000, np.where(expected, expected, 0))


def test_subsets_are_splits(tmp_path):
    pictures = []
    for split in ("Train", "Validation"):
        image(tmp_path / "in" / "images" / split / "a.jpg")
        pictures.append(picture(f"{split}/a.jpg", polygon("car", [1, 1, 30, 1, 30, 30]), others=f'subset="{split}"'))
    text(tmp_path / "in" / "annotations.xml", cvat(*pictures))
    out = imported(tmp_path / "in", tmp_path / "out", "--unlabelled", "ignore")
    assert (out / "train.txt").read_text() == "train/a\n" and (out / "val.txt").read_text() == "val/a\n"


def test_what_is_broken_in_xml_is_told_at_once(tmp_path, capsys):
    broken = {
        polygon("tree", [1, 1, 9, 1, 9, 9]): "no label 'tree'",
        polygon("car", [1, 1, 50, 50, 50, 1, 1, 50]): "crosses itself",
        '<polygon label="car" points="1,1;x,2;3,3"></polygon>': "not numbers",
        '<polygon label="car" points="1,1;nan,2;3,3"></polygon>': "too large",
        '<mask label="car" rle="1, 2" left="1" top="1" width="9" height="9"></mask>': "add up to 3",
        '<mask label="car" rle="81" left="79" top="1" width="9" height="9"></mask>': "outside the image",
        '<mask label="car" rle="1" left="1" top="1" width="1e9" height="1e9"></mask>': "outside the image",
        '<polyline label="car" points="1,1;2,2"></polyline>': "no area",
    }
    image(tmp_path / "in" / "a.png")
    pictures = picture("a.png", *broken), picture("gone.png")
    text(tmp_path / "in" / "annotations.xml", cvat(*pictures))
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unlabelled", "ignore"]) == 2
    message = capsys.readouterr().err
    for reason in (*broken.values(), "no image 'gone.png'"):
        assert reason in message


def voc_export(folder, names=("a",)):
    labels = np.zeros(SIZE, np.uint8)
    labels[5:30, 5:40], labels[20:50, 30:70], labels[0] = 1, 2, 3
    colors = np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142), (224, 224, 192)], np.uint8)
    objects = np.zeros((*SIZE, 3), np.uint8)
    objects[5:30, 5:25], objects[5:30, 25:30], objects[20:50, 30:70] = (128, 0, 0), (0, 128, 0), (9, 9, 9)
    for name in names:
        image(folder / "JPEGImages" / f"{name}.jpg")
        for kind, array in (("SegmentationClass", colors[labels]), ("SegmentationObject", objects)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")
    text(
        folder / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ncar:0,0,142::\n",
    )
    return labels


def test_voc_colours_are_classes_and_its_lists_are_splits(tmp_path):
    labels = voc_export(tmp_path / "in", ("a", "b", "c"))
    text(tmp_path / "in" / "ImageSets" / "Segmentation" / "train.txt", "a\nb\n")
    text(tmp_path / "in" / "ImageSets" / "Segmentation" / "val.txt", "c\n")
    out = imported(tmp_path / "in", tmp_path / "out")
    assert classes_of(out) == {"background": 0, "road": 1, "car": 2}
    assert np.array_equal(mask_of(out, "b"), np.where(labels == 3, 255, labels))
    assert (out / "train.txt").read_text() == "a\nb\n"
    objects = objects_of(out, "c")
    assert {*np.unique(objects).tolist()} == {0, 1, 255, 1001, 1002, 2001}


def test_cvats_zip_of_masks_is_unpacked_and_copied(tmp_path):
    labels = voc_export(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    out = imported(tmp_path / "task.zip", tmp_path / "out")
    assert np.array_equal(mask_of(out, "a"), np.where(labels == 3, 255, labels))
    assert not (out / "images" / "a.jpg").is_symlink()
    assert sorted(p.name for p in out.iterdir()) == ["classes.yaml", "images", "import.json", "instances", "masks"]
    assert "/.out." not in (out / "import.json").read_text()


def test_a_colour_that_labelmap_does_not_list_is_named(tmp_path, capsys):
    voc_export(tmp_path / "in")
    text(tmp_path / "in" / "labelmap.txt", "background:0,0,0::\nroad:128,64,128::\n")
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    assert "a.png has (0, 0, 142) at row 20, column 30, which is no class" in capsys.readouterr().err
