"""Lists of names as other people, systems and projects write them, and names of files that are no text."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrseg.data.folder import Folder
from hrseg.data.splits import split_by_share
from hrseg.errors import DataError
from hrseg.files import name_as_text, spelled_out, text_as_name

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def make(root: Path, *names: str, mask_names: tuple[str, ...] = (), ending: str = "png") -> Path:
    """Images and masks of these names; the value of a mask is the place of its name."""
    for number, (name, mask) in enumerate(zip(names, mask_names or names, strict=True)):
        for folder, file in (("images", f"{name}.{ending}"), ("masks", f"{mask}.png")):
            path = root / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), number, np.uint8)).save(path)
    (root / "classes.yaml").write_text("[a, b, c]")
    return root


def read(root: Path, content: str | bytes) -> list[str]:
    (root / "train.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(Folder(root, "train").names)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfp00\r\ncam/p01\r\n",
        "p00\ncam/p01".encode("utf-16"),
        "p00\rcam/p01\r",
        "p00\ncam\\p01\n",
        "p00.PNG\ncam/p01.png\n",
        "./images/p00.png\nimages/cam/p01.png\n",
        "/data/other/images/p00.png\nC:\\data\\images\\cam\\p01.png\n",
        "images/p00.png masks/p00.png\nimages/cam/p01.png masks/cam/p01.png\n",
        "image,mask\np00.png,p00.png\ncam/p01.png,cam/p01.png\n",
        "images/p00.png\tmasks/p00.png\nimages/cam/p01.png\tmasks/cam/p01.png\n",
        '"images/p00.png";"masks/p00.png"\n"images/cam/p01.png";"masks/cam/p01.png"\n',
        "# the good ones\n\np00  \n  cam/p01\n",
    ],
)
def test_a_list_may_be_of_another_system_or_project(tmp_path, content):
    assert read(make(tmp_path, "p00", "cam/p01", "p02"), content) == ["p00", "cam/p01"]


def test_a_second_column_is_the_mask(tmp_path):
    make(tmp_path, "p00", "p01", mask_names=("x_gt", "y_gt"))
    assert read(tmp_path, "images/p00.png labels/y_gt.png\nimages/p01.png,x_gt.png\n") == ["p00", "p01"]
    folder = Folder(tmp_path, "train")
    assert [folder[i].target.max() for i in range(2)] == [1, 0] and folder.strays() == []
    with pytest.raises(DataError, match=r"there is no mask 'z_gt\.png' of the image p00"):
        read(tmp_path, "p00.png z_gt.png\n")


def test_a_second_image_in_a_line_is_not_taken_for_a_mask(tmp_path):
    with pytest.raises(DataError, match="'p01', which has the name of another image"):
        read(make(tmp_path, "p00", "p01"), "p00,p01\n")


@pytest.mark.parametrize("listed", [NFC, NFD])
@pytest.mark.parametrize("image", [NFC, NFD])
@pytest.mark.parametrize("mask", [NFC, NFD])
def test_letters_may_be_composed_or_not(tmp_path, listed, image, mask):
    make(tmp_path, image, mask_names=(mask,))
    assert read(tmp_path, listed) == [NFC] and Folder(tmp_path, "train")[0].target.max() == 0


@pytest.mark.parametrize(
    ("line", "shown"),
    [("p\u200b00", r"p\\u200b00"), ("p00\u00a0x", r"p00\\xa0x"), ("\u043000", r"'\\u043000'")],
)
def test_what_the_eye_does_not_see_is_spelled_out(tmp_path, line, shown):
    make(tmp_path, "p00", "a00", "p00 x")
    with pytest.raises(DataError, match=rf"line 1: there is no image .*It looks like .*{shown}"):
        read(tmp_path, line)


def test_names_that_are_no_text_are_read_listed_and_hashed(tmp_path):
    make(tmp_path, "p00", "p01")
    for folder in ("images", "masks"):
        (tmp_path / folder / "p00.png").rename(tmp_path / folder / os.fsdecode(b"caf\xe9.png"))
    assert read(tmp_path, b"caf\xe9\np01\n") == ["caf\\xe9", "p01"]
    folder = Folder(tmp_path, "train")
    assert folder[0].target.max() == 0 and os.fsencode(folder.images[0]).endswith(b"caf\xe9.png")
    assert len(Folder(tmp_path, "val", val_share=0.5)) == 1


def test_a_list_in_another_encoding_than_the_names_is_told(tmp_path):
    with pytest.raises(DataError, match=r"train\.txt, line 2: is not text in UTF-8"):
        read(make(tmp_path, NFC, "p01"), "p01\ncafé\n".encode("latin-1"))


def test_bmp_images_are_read(tmp_path):
    folder = make(tmp_path, "p00", "p01", ending="bmp")
    assert read(folder, "p00\np01.bmp\n") == ["p00", "p01"] and Folder(folder, "train")[1].image.max() == 1


def test_a_share_hardly_moves_when_images_are_added():
    names = [f"scene/{i}" for i in range(300)]
    before, after = split_by_share(names[:200], 0.2), split_by_share(names, 0.2)
    assert (len(before), len(after)) == (40, 60)
    assert len(before - after) <= 10


@pytest.mark.parametrize("name", ["plain", "Straße", "歩道", "a\ud800b"])
def test_a_name_survives_the_way_to_a_file_name_and_back(name):
    assert name_as_text(text_as_name(name)) == spelled_out(name)
