"""What a mask's values may mean: several values a class, several that are ignored, grey edges, other files than PNG."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFilter

from hrseg.data import checks
from hrseg.data.folder import Folder
from hrseg.data.pairs import UnknownValues, ValueTable
from hrseg.data.problems import lines
from hrseg.errors import DataError

VALUES = np.arange(24, dtype=np.uint8).reshape(4, 6) % 5


def make(root: Path, classes: str, mask: np.ndarray = VALUES, name: str = "a", ending: str = "png") -> Path:
    """One image of 4x6 pixels in the split train, and its mask."""
    for folder in ("images", "masks"):
        (root / folder / "train").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*mask.squeeze().shape[:2], 3), np.uint8)).save(root / f"images/train/{name}.png")
    path = root / f"masks/train/{name}.{ending}"
    if ending == "npy":
        np.save(path, mask)
    elif ending == "tif":
        tifffile.imwrite(path, mask, photometric="minisblack")
    else:
        Image.fromarray(mask).save(path)
    (root / "classes.yaml").write_text(classes, encoding="utf-8")
    return root


def target(root: Path, **options: object) -> np.ndarray:
    read = Folder(root, "train", **options)[0].target
    assert read is not None
    return read


def mapped(mapping: dict[int, int], mask: np.ndarray = VALUES) -> np.ndarray:
    return np.vectorize(mapping.__getitem__)(mask)


def test_a_class_may_have_several_values_and_the_first_is_the_one_that_is_written(tmp_path):
    make(tmp_path, "- {name: ground, id: 0}\n- {name: box, id: 1}\n- {name: disc, id: [4, 3, 2]}\n")
    folder = Folder(tmp_path, "train")
    assert np.array_equal(folder[0].target, mapped({0: 0, 1: 1, 2: 2, 3: 2, 4: 2}))
    assert [values[0] for values in folder.mask_values.values] == [0, 1, 4]


@pytest.mark.parametrize(
    "classes",
    [
        "{classes: [ground, box], ignore: [2, 3, 4]}",
        "{classes: [{name: ground, color: [9, 9, 9]}, {name: box, color: [8, 8, 8]}], ignore: [2, 3, 4]}",
        "{classes: {0: ground, 1: box}, ignore: [2, 3, 4, [7, 7, 7]]}",
    ],
)
def test_several_values_may_be_ignored(tmp_path, classes):
    make(tmp_path, classes)
    assert np.array_equal(target(tmp_path), mapped({0: 0, 1: 1, 2: 255, 3: 255, 4: 255}))


def test_several_colors_may_be_ignored(tmp_path):
    colors = np.array([[0, 0, 90], [0, 90, 0], [90, 0, 0], [1, 2, 3], [4, 5, 6]], np.uint8)
    classes = "{classes: [{name: a, color: [0, 0, 90]}, {name: b, color: [0, 90, 0]}], ignore: %s}"
    make(tmp_path, classes % "[[90, 0, 0], [1, 2, 3], [4, 5, 6]]", colors[VALUES])
    assert np.array_equal(target(tmp_path), mapped({0: 0, 1: 1, 2: 255, 3: 255, 4: 255}))
    (tmp_path / "classes.yaml").write_text(
        classes % "[1, 2, 3]"
    )  # three numbers: a colour here, values in masks of ids
    with pytest.raises(UnknownValues, match=r"the color \[90, 0, 0\]") as caught:
        target(tmp_path)
    assert caught.value.unknown == ((4, 5, 6), (90, 0, 0))


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_values_may_be_negative_and_in_any_type_that_holds_whole_numbers(tmp_path, dtype, ending):
    mask = VALUES.astype(dtype)
    mask[mask == 4] = -9999
    make(tmp_path, "{classes: [a, b, {name: c, id: [2, -1]}, d], ignore: -9999}", mask, ending=ending)
    assert np.array_equal(target(tmp_path), mapped({0: 0, 1: 1, 2: 2, 3: 3, 4: 255}))
    mask[0, 0] = -7
    make(tmp_path, "{classes: [a, b, {name: c, id: [2, -1]}, d], ignore: -9999}", mask, ending=ending)
    what = r"value -7(\.0)? \(row 0, column 0\) is not in classes\.yaml, which lists -1 to 3 \(ignored: -9999\)"
    with pytest.raises(UnknownValues, match=what):
        target(tmp_path)


def test_fractions_are_no_ids(tmp_path):
    make(tmp_path, "[a, b]", np.full((4, 6), 0.5), ending="npy")
    with pytest.raises(DataError, match=r"a\.npy: is a mask of float64 values, 0\.5 at row 0, column 0"):
        target(tmp_path)


@pytest.mark.parametrize(
    ("mask", "ending"),
    [
        (np.dstack([VALUES] * 3), "png"),
        (np.dstack([VALUES] * 3 + [np.full_like(VALUES, 200)]), "png"),
        (np.dstack([VALUES, np.full_like(VALUES, 200)]), "png"),
        (np.dstack([VALUES] * 3).astype(np.uint16), "npy"),
        (VALUES[None], "npy"),
        (VALUES[..., None], "npy"),
        (VALUES.astype(np.int64), "npy"),
        (VALUES, "bmp"),
    ],
)
def test_grey_may_be_saved_as_rgb_or_with_an_alpha_that_says_nothing(tmp_path, mask, ending):
    make(tmp_path, "[a, b, c, d, e]", mask, ending=ending)
    assert np.array_equal(target(tmp_path), VALUES)
    (tmp_path / "classes.yaml").write_text("".join(f"- {{name: c{i}, color: [{i}, 9, 9]}}\n" for i in range(5)))
    if mask.shape[-1] in (3, 4):  # grey in masks whose classes have colours, of which it is none
        assert np.array_equal(target(tmp_path), VALUES)


def test_an_alpha_that_says_something_is_refused(tmp_path):
    make(tmp_path, "[a, b, c, d, e]", np.dstack([VALUES, VALUES]))
    with pytest.raises(DataError, match="transparent"):
        target(tmp_path)


# Two values


def soft(root: Path, ending: str = "png", mode: str = "L") -> np.ndarray:
    """A mask of 0 and 255 with soft edges; what it was before."""
    hard = np.zeros((32, 48), np.uint8)
    hard[8:24, 10:30] = 255
    blurred = Image.fromarray(hard).filter(ImageFilter.GaussianBlur(1)).convert(mode)
    make(root, "[{name: crack, id: 255}]", np.asarray(blurred), ending=ending)
    return (hard > 0).astype(np.uint8)


@pytest.mark.parametrize(("ending", "mode"), [("png", "L"), ("jpg", "L"), ("jpg", "RGB")])
def test_shades_count_as_the_nearer_of_two_values_if_asked_for(tmp_path, ending, mode):
    hard = soft(tmp_path, ending, mode)
    read = target(tmp_path, task="binary", masks="threshold")
    assert read.dtype == np.uint8 and np.count_nonzero(read != hard) <= 4  # corners are rounded by the blur
    assert checks.check(Folder(tmp_path, "train", task="binary", masks="threshold"), progress=False) == []


def test_shades_are_told_with_the_setting_that_reads_them(tmp_path):
    soft(tmp_path)
    (problem,) = checks.check(Folder(tmp_path, "train", task="binary"), progress=False)
    assert "has grey edges (anti-aliased)" in str(problem) and "data.masks=threshold" in str(problem)


def test_a_jpeg_mask_is_told_once(tmp_path):
    soft(tmp_path, "jpg")
    (problem,) = checks.check(Folder(tmp_path, "train", task="binary"), progress=False)
    assert "is a mask in JPEG, whose compression changes label values" in str(problem)


def test_more_than_two_values_have_no_threshold(tmp_path):
    make(tmp_path, "[a, b, c, d, e]")
    with pytest.raises(DataError, match=r"data\.masks: threshold is for masks of two values"):
        Folder(tmp_path, "train", masks="threshold")


# Images without a mask


def test_without_a_mask_an_image_is_background_if_asked_for(tmp_path):
    for name in "ab":
        make(tmp_path, "[{name: crack, id: 255}]", VALUES % 2 * 255, name=name)
    (tmp_path / "masks/train/b.png").unlink()
    (problem,) = checks.check(Folder(tmp_path, "train", task="binary"), progress=False)
    assert "b.png: has no mask" in str(problem)
    folder = Folder(tmp_path, "train", task="binary", missing_mask="background")
    cracked = np.count_nonzero(VALUES % 2)
    assert [int(folder[i].target.sum()) for i in range(2)] == [cracked, 0] and folder.files(1)[1] == []
    found = checks.examine(folder, progress=False)
    assert not found.problems and found.pixels.tolist() == [48 - cracked, cracked]
    assert folder.meaning() != Folder(tmp_path, "train", task="binary").meaning()  # another cache
    (tmp_path / "classes.yaml").write_text("[{name: road, id: 0}, {name: crack, id: 255}]")
    with pytest.raises(DataError, match=r"data\.missing_mask: .* no class named background"):
        Folder(tmp_path, "train", missing_mask="background")


# Names


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ("[no, yes, off]", ("no", "yes", "off")),
        ("[007, 1.10, 2026-11-27]", ("007", "1.10", "2026-11-27")),
        ("- {name: on}\n- {name: 1e3}\n- {name: 0x10}", ("on", "1e3", "0x10")),
        ("{0: ground, 1: box, 2: disc}", ("ground", "box", "disc")),
        ("{ground: 0, box: 1, disc: 2}", ("ground", "box", "disc")),
        ("\ufeff[Straße, 歩道, дерево]", ("Straße", "歩道", "дерево")),
    ],
)
def test_names_are_what_is_written(tmp_path, classes, names):
    make(tmp_path, classes, VALUES % 3)
    folder = Folder(tmp_path, "train")
    assert folder.space.names == names and np.array_equal(folder[0].target, VALUES % 3)


def test_a_classes_file_of_powershell_is_read(tmp_path):
    make(tmp_path, "")
    (tmp_path / "classes.yaml").write_text("[Straße, b, c, d, e]\r\n", encoding="utf-16")
    assert Folder(tmp_path, "train").space.names[0] == "Straße"


# The turn of a photograph


def test_a_turned_image_whose_mask_is_not_is_told(tmp_path):
    make(tmp_path, "[a, b, c, d, e]")
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = image.getexif()
    exif[274] = 6
    (tmp_path / "images/train/a.png").unlink()
    image.save(tmp_path / "images/train/a.jpg", exif=exif)
    (problem,) = checks.check(Folder(tmp_path, "train"), progress=False)
    assert "the image is turned as its orientation tag (EXIF) says" in str(problem)
    Image.fromarray(np.rot90(VALUES, -1)).save(tmp_path / "masks/train/a.png")
    assert checks.check(Folder(tmp_path, "train"), progress=False) == []


# How it is told


def test_values_are_counted_over_masks(tmp_path):
    for name, value in (("a", 7), ("b", 7), ("c", 9), ("d", 7)):
        mask = VALUES.copy()
        mask[1, 2] = value
        make(tmp_path, "[a, b, c, d, e]", mask, name=name)
    problems = checks.check(Folder(tmp_path, "train"), progress=False)
    (line,) = lines(problems)
    masks = tmp_path / "masks/train"
    expected = f"value 7 in 3 masks (first: {masks / 'a.png'}), value 9 in 1 mask (first: {masks / 'c.png'}): "
    assert line.startswith(expected + "not in classes.yaml, which lists 0 to 4 (ignored: 255).")
    assert len(lines(problems, one_by_one=True)) == 4


def test_an_error_of_a_mask_comes_whole_out_of_a_reading_process(tmp_path):
    with pytest.raises(UnknownValues) as caught:
        ValueTable({0: 0, 1: 1})(np.full((2, 2), 9, np.uint8), tmp_path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.unknown) == (UnknownValues, str(caught.value), (9,))
