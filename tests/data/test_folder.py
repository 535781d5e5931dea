"""A folder of one's own: splits, matching by name, classes.yaml, and what a mask's pixels mean."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrseg.data.folder import Folder
from hrseg.errors import DataError
from hrseg.task import Task

TWO = "- {name: road, color: [128, 64, 128]}\n- {name: sky, color: [70, 130, 180]}\n"


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def make(root: Path, names: list[str], *, classes: str = "[road, sky]", mask: object = 0, below: str = "") -> Path:
    """images/ and masks/ of 4x6 pixels, the masks filled with one value or one array."""
    for name in names:
        save(root / "images" / below / f"{name}.png", np.full((4, 6, 3), len(name), np.uint8))
        save(root / "masks" / below / f"{name}.png", np.array(np.broadcast_to(mask, (4, 6)), np.uint8))
    (root / "classes.yaml").write_text(classes)
    return root


# Splits


def test_a_split_is_a_folder_below_images_and_masks(tmp_path):
    make(tmp_path, ["a", "cam1/b"], below="train")
    make(tmp_path, ["c"], below="val")
    train = Folder(tmp_path, "train")
    assert train.names == ["a", "cam1/b"]
    assert train.files(1) == (tmp_path / "images/train/cam1/b.png", tmp_path / "masks/train/cam1/b.png")
    assert Folder(tmp_path, "val").names == ["c"]


def test_a_split_is_a_list_of_names_with_or_without_ending(tmp_path):
    make(tmp_path, ["a", "b.v2", "cam1/c"])
    (tmp_path / "train.txt").write_text("cam1/c\n\nb.v2.png\r\n")
    assert Folder(tmp_path, "train").names == ["cam1/c", "b.v2"]


@pytest.mark.parametrize("line", ["../secret", "/etc/passwd", "C:/secret", "cam1/../../a"])
def test_a_list_never_leads_out_of_the_folder(tmp_path, line):
    make(tmp_path, ["a"])
    (tmp_path / "train.txt").write_text(f"a\n{line}\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: .* leads out of images/"):
        Folder(tmp_path, "train")


@pytest.mark.parametrize("split", ["../other", "/etc", "", ".hidden"])
def test_a_split_is_no_path(tmp_path, split):
    with pytest.raises(DataError, match="not the name of a split"):
        Folder(make(tmp_path, ["a"]), split)


def test_a_list_names_known_images_once(tmp_path):
    make(tmp_path, ["a"])
    (tmp_path / "train.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: there is no image 'b'"):
        Folder(tmp_path, "train")
    (tmp_path / "train.txt").write_text("a\na.png\n")
    with pytest.raises(DataError, match=r"line 2: .* in line 1 too"):
        Folder(tmp_path, "train")


def test_a_share_stays_where_it_is_when_images_are_added(tmp_path):
    names = [f"{i:03}" for i in range(200)]
    make(tmp_path, names[:100])
    before = set(Folder(tmp_path, "val", val_share=0.3).names)
    make(tmp_path, names)
    train, val = Folder(tmp_path, "train", val_share=0.3), Folder(tmp_path, "val", val_share=0.3)
    assert len(before & {*val.names}) >= 25  # the share of all may take a few from one side to the other
    assert sorted([*train.names, *val.names]) == names


@pytest.mark.parametrize(
    ("images", "share", "val"), [(40, 0.2, 8), (56, 0.2, 11), (9, 0.3, 3), (5, 0.01, 1), (3, 0.99, 2)]
)
def test_a_share_is_that_share_of_the_images(tmp_path, images, share, val):
    make(tmp_path, [f"{i:03}" for i in range(images)])
    sides = [Folder(tmp_path, split, val_share=share).names for split in ("train", "val")]
    assert [len(side) for side in sides] == [images - val, val] and not {*sides[0]} & {*sides[1]}


def test_a_share_of_too_few_images_says_so(tmp_path):
    make(tmp_path, ["a"])
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"1 image cannot be divided into train and val\. Cut .* into tiles"):
            Folder(tmp_path, split, val_share=0.2)


def test_a_share_beside_split_folders_is_refused(tmp_path):
    make(tmp_path, ["a"], below="train")
    make(tmp_path, ["a"], below="val")
    with pytest.raises(DataError, match="val_share"):
        Folder(tmp_path, "train", val_share=0.2)


def test_what_is_missing_is_said_with_the_layout(tmp_path):
    with pytest.raises(DataError, match="images: no such folder"):
        Folder(tmp_path, "train")
    make(tmp_path, ["a"])
    with pytest.raises(
        DataError, match=r"no split 'train': neither .*images/train/ nor .*train\.txt nor data\.val_share"
    ):
        Folder(tmp_path, "train")
    (tmp_path / "images" / "train").mkdir()
    with pytest.raises(DataError, match="'train' is empty"):
        Folder(tmp_path, "train")
    save(tmp_path / "images/train/a.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(DataError, match="masks/train: no such folder"):
        Folder(tmp_path, "train")


def test_only_test_may_have_no_masks(tmp_path):
    make(tmp_path, [])
    save(tmp_path / "images/test/a.png", np.zeros((4, 6), np.uint8))
    test = Folder(tmp_path, "test")
    assert test[0].target is None and test.files(0) == (tmp_path / "images/test/a.png", None)


def test_masks_may_carry_a_suffix(tmp_path):
    make(tmp_path, ["a"], below="train")
    (tmp_path / "masks/train/a.png").rename(tmp_path / "masks/train/a_mask.png")
    assert Folder(tmp_path, "train", mask_suffix="_mask")[0].target.shape == (4, 6)


# Ids


def test_ids_default_to_the_position_and_255_is_ignored(tmp_path):
    mask = np.arange(24).reshape(4, 6) % 2
    mask[0, 0] = 255
    folder = Folder(make(tmp_path, ["a"], below="train", mask=mask), "train")
    assert folder[0].target.dtype == np.uint8 and np.array_equal(folder[0].target, mask)
    assert folder.classes == folder.space.classes and folder.space.names == ("road", "sky")


def test_ids_and_the_ignored_value_are_what_the_file_says(tmp_path):
    classes = "{classes: [{name: road, id: 7}, {name: sky, id: 255}], ignore: 0}"
    make(tmp_path, ["a"], classes=classes, below="train", mask=[7, 255, 0, 0, 7, 255])
    assert Folder(tmp_path, "train")[0].target[0].tolist() == [0, 1, 255, 255, 0, 1]


def test_an_unknown_id_is_named_with_file_and_pixel(tmp_path):
    mask = np.zeros((4, 6), np.uint8)
    mask[2, 5] = 9
    folder = Folder(make(tmp_path, ["a"], below="train", mask=mask), "train")
    with pytest.raises(
        DataError,
        match=r"masks/train/a\.png: value 9 \(row 2, column 5\) is not in classes\.yaml, which lists 0 and 1 \(",
    ):
        folder[0]


def test_300_classes_of_16_bits(tmp_path):
    make(tmp_path, ["a"], classes=f"[{', '.join(f'c{i}' for i in range(300))}]", below="train")
    mask = np.arange(24, dtype=np.uint16).reshape(4, 6) + 276
    mask[0, 0] = 65535
    tifffile.imwrite(tmp_path / "masks/train/a.tif", mask)
    (tmp_path / "masks/train/a.png").unlink()
    folder = Folder(tmp_path, "train")
    assert folder.space.ignore_index == 65535
    assert folder[0].target.dtype == np.uint16 and np.array_equal(folder[0].target, mask)


# Colours


def colored(root: Path, classes: str = TWO) -> np.ndarray:
    """A folder with one RGB mask; returns the indices it stands for."""
    indices = np.arange(24).reshape(4, 6) % 2
    make(root, ["a"], classes=classes, below="train")
    save(root / "masks/train/a.png", np.array([[128, 64, 128], [70, 130, 180]], np.uint8)[indices])
    return indices


def test_colors_map_exactly(tmp_path):
    indices = colored(tmp_path)
    folder = Folder(tmp_path, "train")
    assert np.array_equal(folder[0].target, indices)
    assert folder.space.palette[:2].tolist() == [[128, 64, 128], [70, 130, 180]]


def test_an_ignored_color(tmp_path):
    indices = colored(tmp_path, "{classes: [{name: sky, color: [70, 130, 180]}], ignore: [128, 64, 128]}")
    assert np.array_equal(Folder(tmp_path, "train")[0].target, np.where(indices == 1, 0, 255))


def test_an_unknown_color_is_named_with_file_and_pixel(tmp_path):
    colored(tmp_path)
    mask = np.array(Image.open(tmp_path / "masks/train/a.png"))
    mask[3, 1, 2] += 1  # what smoothing or JPEG does
    save(tmp_path / "masks/train/a.png", mask)
    with pytest.raises(
        DataError, match=r"masks/train/a\.png: the color \[70, 130, 181\] \(row 3, column 1\) is not in"
    ):
        Folder(tmp_path, "train")[0]


def test_an_rgb_mask_needs_the_colors_of_all_classes(tmp_path):
    colored(tmp_path, "[road, sky]")
    with pytest.raises(DataError, match="class 'road' has no color"):
        Folder(tmp_path, "train")[0]


def palette_mask(root: Path, palette: list[int]) -> np.ndarray:
    indices = colored(root)
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(palette)
    image.save(root / "masks/train/a.png")
    return indices


def test_a_palette_counts_by_index(tmp_path):
    indices = palette_mask(tmp_path, [128, 0, 0, 0, 128, 0])  # colours for the eye that mean nothing
    assert np.array_equal(Folder(tmp_path, "train")[0].target, indices)


def test_a_palette_in_another_order_than_the_classes_is_not_taken_for_ids(tmp_path):
    # As graphics programs write it when they turn an RGB mask into a palette.
    indices = palette_mask(tmp_path, [70, 130, 180, 128, 64, 128])
    with pytest.raises(DataError, match="its indices are not their ids"):
        Folder(tmp_path, "train")[0]
    assert np.array_equal(Folder(tmp_path, "train", masks="colors")[0].target, 1 - indices)
    assert np.array_equal(Folder(tmp_path, "train", masks="ids")[0].target, indices)


# Tasks


def test_binary_names_one_foreground_class(tmp_path):
    make(tmp_path, ["a"], classes="[{name: crack, id: 255}]", below="train", mask=[0, 255, 0, 0, 0, 255])
    folder = Folder(tmp_path, "train", task="binary")
    assert folder.space.task is Task.BINARY and folder.space.names == ("background", "crack")
    assert folder[0].target[0].tolist() == [0, 1, 0, 0, 0, 1]
    (tmp_path / "classes.yaml").write_text("[crack]")
    assert Folder(tmp_path, "train", task="binary")[0].target[0].tolist() == [0, 255, 0, 0, 0, 255]  # as the usual
    (tmp_path / "classes.yaml").write_text("[a, b, c]")
    with pytest.raises(DataError, match="binary task"):
        Folder(tmp_path, "train", task="binary")


def test_multilabel_has_a_folder_of_masks_a_class(tmp_path):
    make(tmp_path, ["x/a"], classes="{classes: [cell, border], ignore: 7}", below="train")
    save(tmp_path / "masks/cell/train/x/a.png", np.full((4, 6), 255, np.uint8))
    save(tmp_path / "masks/border/train/x/a.png", np.array([[0, 1, 7, 255, 0, 0]] * 4, np.uint8))
    folder = Folder(tmp_path, "train", task="multilabel")
    target = folder[0].target
    assert target.shape == (2, 4, 6) and target.dtype == np.uint8
    assert target[0].min() == 1 and target[1, 0].tolist() == [0, 1, 255, 1, 0, 0]
    assert folder.files(0)[1] == [tmp_path / f"masks/{c}/train/x/a.png" for c in ("cell", "border")]


@pytest.mark.parametrize("name", ["../up", "a/b", ".."])
def test_a_multilabel_class_is_no_path(tmp_path, name):
    make(tmp_path, ["a"], classes=f"['{name}', b]", below="train")
    with pytest.raises(DataError, match="not a folder name"):
        Folder(tmp_path, "train", task="multilabel")


# Images


@pytest.mark.parametrize("odd", ["a", "b", "c"])
def test_channels_are_those_of_most_images(tmp_path, odd):
    make(tmp_path, ["a", "b", "c"], below="train")
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 5), np.uint8)
    for name in {"a", "b", "c"} - {odd}:
        (tmp_path / f"images/train/{name}.png").unlink()
        tifffile.imwrite(tmp_path / f"images/train/{name}.tif", image, photometric="minisblack", planarconfig="contig")
    folder = Folder(tmp_path, "train")
    for place, name in enumerate("abc"):
        if name == odd:
            with pytest.raises(DataError, match=rf"{odd}\.png: has 3 channels, the data set 5"):
                folder[place]
        else:
            assert np.array_equal(folder[place].image, image)


@pytest.mark.parametrize("odd", ["a", "b", "c"])
def test_images_of_8_and_16_bit_are_not_mixed(tmp_path, odd):
    make(tmp_path, ["a", "b", "c"], below="train")
    for name in "abc":
        save(tmp_path / f"images/train/{name}.png", np.full((4, 6), 9, np.uint16 if name == odd else np.uint8))
    folder = Folder(tmp_path, "train")
    assert folder.image_type() == np.uint8
    with pytest.raises(DataError, match=rf"{odd}\.png: has uint16 values, most images of the split uint8"):
        folder["abc".index(odd)]


def test_grey_among_rgb_is_repeated(tmp_path):
    make(tmp_path, ["a", "b"], below="train")
    save(tmp_path / "images/train/b.png", np.full((4, 6), 9, np.uint8))
    assert np.array_equal(Folder(tmp_path, "train")[1].image, np.full((4, 6, 3), 9))


def test_a_mask_of_another_size_is_an_error(tmp_path):
    make(tmp_path, ["a"], below="train")
    save(tmp_path / "masks/train/a.png", np.zeros((6, 4), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: the image is 4x6 \(height x width\), its mask 6x4"):
        Folder(tmp_path, "train")[0]


def test_neighbours_are_those_of_one_folder(tmp_path):
    make(tmp_path, ["a", "b", "day1/c", "day1/d"], below="train")
    folder = Folder(tmp_path, "train")
    assert [folder.cluster(i) for i in range(4)] == ["a", "b", "day1", "day1"]


# classes.yaml


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ("[{name: a, colour: [1, 2, 3]}]", "class 0, 'colour' is no key, did you mean 'color'"),
        ("[{name: a, color: [1, 2, 256]}]", "255"),
        ("[{name: a, color: [1, 2]}]", "color"),
        ("[{name: a, id: 1.5}]", "class 0, id is '1.5', not a whole number"),
        ("[{name: a, id: []}]", "class 0, id"),
        ("[{name: a}, {id: 1}]", "class 1 has no name"),
        ("[~]", "class 0 has no name"),
        ("[[a]]", "class 0 is neither a name nor an entry"),
        ("[]", "the list is empty"),
        ("{classs: [a]}", "'classs' is misspelt"),
        ("{0: {name: a, id: 2}}", "an id twice"),
        ("{classes: [a], ignore: [[1, 2]]}", "ignore is"),
        ("[{name: a, id: [1, 2]}, {name: b, id: 2}]", "two classes have the id 2"),
        ("just a sentence", "has no list of classes"),
        ("[a, a]", "two classes have the name a"),
        ("[{name: a, id: 3}, {name: b, id: 3}]", "two classes have the id 3"),
        ("[{name: a, color: [1, 2, 3]}, {name: b, color: [1, 2, 3]}]", "two classes have the color"),
        ("{classes: [a, b], ignore: 1}", "ignores 1, which is a class too"),
    ],
)
def test_a_classes_file_is_checked(tmp_path, classes, reason):
    make(tmp_path, ["a"], classes=classes, below="train")
    with pytest.raises(DataError, match=reason) as caught:
        Folder(tmp_path, "train")
    assert str(tmp_path / "classes.yaml") in str(caught.value)


def test_the_classes_file_may_lie_elsewhere_but_must_be_there(tmp_path):
    make(tmp_path / "data", ["a"], below="train")
    (tmp_path / "data/classes.yaml").rename(tmp_path / "mine.yaml")
    assert len(Folder(tmp_path / "data", "train", classes=tmp_path / "mine.yaml").classes) == 2
    with pytest.raises(DataError, match=r"classes\.yaml: no such file; the masks hold 0"):
        Folder(tmp_path / "data", "train")


def test_a_folder_travels_to_a_worker_process(tmp_path):
    folder = Folder(make(tmp_path, ["a"], below="train"), "train")
    assert np.array_equal(pickle.loads(pickle.dumps(folder))[0].image, folder[0].image)
