"""The check before training: every problem, each with its path, all at once."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrseg.data import checks
from hrseg.data.camvid import CamVid
from hrseg.data.checks import require_sound
from hrseg.data.dataset import Dataset, as_dataset
from hrseg.data.folder import Folder
from hrseg.errors import DataError
from hrseg.task import LabelSpace, Sample, SegmentationClass
from tests.conftest import ROOT


def check(*args: object, **kwargs: object) -> list[str]:
    return [str(problem) for problem in checks.check(*args, **kwargs)]


def save(path: Path, array: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(array, np.uint8)).save(path)


def make(root: Path, names: str, split: str = "train") -> None:
    """Sound pairs, one a letter."""
    for name in names:
        save(root / f"images/{split}/{name}.png", np.full((32, 48, 3), 9))
        save(root / f"masks/{split}/{name}.png", np.arange(32 * 48).reshape(32, 48) % 2)
    (root / "classes.yaml").write_text("[road, sky]")


@pytest.mark.parametrize("workers", [0, 2])
def test_all_that_is_wrong_is_reported_together(tmp_path, workers):
    make(tmp_path, "abcdefghij")
    images, masks = tmp_path / "images/train", tmp_path / "masks/train"
    (masks / "b.png").unlink()
    (images / "c.png").unlink()
    save(masks / "d.png", np.zeros((48, 32)))
    (images / "e.png").write_bytes((images / "e.png").read_bytes()[:60])
    save(masks / "f.png", np.full((32, 48), 7))
    save(masks / "g.png", np.full((32, 48, 3), (1, 2, 3)))
    save(masks / "h.png", np.full((32, 48), 255))
    (masks / "i.png").write_bytes(b"")
    (images / "x.webp").write_bytes(b"RIFF")
    (images / "notes.txt").write_text("beside the images, in nobody's way")
    tifffile.imwrite(images / "j.tif", np.zeros((32, 48, 2), np.uint8), photometric="minisblack", planarconfig="contig")
    (images / "j.png").unlink()

    problems = check(Folder(tmp_path, "train"), workers=workers, progress=False)
    expected = [
        (images / "b.png", f"has no mask, there is no {masks / 'b.png'}"),
        (images / "d.png", "the image is 32x48 (height x width), its mask 48x32"),
        (images / "e.png", "cannot be"),
        (masks / "f.png", "value 7 (row 0, column 0) is not in classes.yaml, which lists 0 and 1 (ignored: 255)"),
        (masks / "g.png", "is an RGB picture, but class 'road' has no color"),
        (masks / "h.png", "every pixel is ignored"),
        (masks / "i.png", "is empty (0 bytes)"),
        (images / "j.tif", "has 2 channels, the data set 3"),
        (images / "x.webp", "is in a format that is not read"),
        (masks / "c.png", "a mask without an image"),
    ]
    assert len(problems) == len(expected), problems
    for problem, (path, reason) in zip(problems, expected, strict=True):
        assert problem.startswith(f"{path}: ") and reason in problem


def test_sound_data_has_no_problems(tmp_path, camvid):
    make(tmp_path, "ab")
    assert check(Folder(tmp_path, "train"), progress=False) == []
    assert check(CamVid(camvid, "val"), workers=2, progress=False) == []


def test_a_list_split_does_not_complain_of_the_other_splits(tmp_path):
    for name in "abc":
        save(tmp_path / f"images/{name}.png", np.zeros((4, 6, 3)))
        save(tmp_path / f"masks/{name}.png", [[0, 1] * 3] * 4)
    (tmp_path / "classes.yaml").write_text("[road, sky]")
    (tmp_path / "train.txt").write_text("a\nb\n")
    assert check(Folder(tmp_path, "train"), progress=False) == []


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_255_as_foreground_is_noticed(tmp_path, task):
    # The usual binary masks: 255 means yes, and the usual ignored value is 255.
    make(tmp_path, "ab")
    for name in "ab":
        save(tmp_path / f"masks/train/{name}.png", np.arange(32 * 48).reshape(32, 48) % 2 * 255)
    (tmp_path / "classes.yaml").write_text("[background, crack]")
    (problem,) = check(Folder(tmp_path, "train", task=task), progress=False)
    assert "the class background alone" in problem and "ignored: 255" in problem and "id: 255" in problem


def test_a_missing_label_mask_is_named(tmp_path):
    make(tmp_path, "ab")
    for label, name in (("cell", "a"), ("cell", "b"), ("border", "a")):
        save(tmp_path / f"masks/{label}/train/{name}.png", np.full((32, 48), 255))
    (tmp_path / "classes.yaml").write_text("[cell, border]")
    (problem,) = check(Folder(tmp_path, "train", task="multilabel"), progress=False)
    assert str(tmp_path / "masks/border/train/b.png") in problem


def test_training_is_stopped_with_one_message_for_all_splits(tmp_path):
    make(tmp_path, "abcdefghijklmnopqrstuvwxyz")
    make(tmp_path, "a", split="val")
    sets = {"train": Folder(tmp_path, "train"), "val": Folder(tmp_path, "val")}
    require_sound(sets, progress=False)
    for path in (tmp_path / "masks").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError) as caught:
        require_sound(sets, progress=False)
    lines = str(caught.value).splitlines()
    assert "data (train, val): 27 problems." in lines[0]
    assert lines[1].startswith(f"- {tmp_path}/images/train/a.png and 26 more: has no mask")
    assert "--all lists every file" in lines[2] and "data.check=false" in lines[3] and len(lines) == 4


class Lab(Dataset):
    """A data set of one's own, with nothing but samples."""

    space = LabelSpace((SegmentationClass("a", (1, 2, 3)), SegmentationClass("b", (3, 2, 1))))

    def __init__(self, *samples: Sample):
        self.samples, self.names = samples, [s.name for s in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Sample:
        return self.samples[i]


def test_a_data_set_of_ones_own_is_checked_by_its_samples():
    image, target = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.int64)
    problems = check(
        Lab(
            Sample(image, target, "sound"),
            Sample(image, target + 2, "unknown"),
            Sample(image, target[:3], "small"),
            Sample(image, target + 255, "ignored"),
            Sample(image[..., 0], target, "flat"),
            Sample(image.astype(np.float64), target, "double"),
        ),
        progress=False,
    )
    assert [p.split(":")[0] for p in problems] == ["unknown", "small", "ignored", "flat", "double"]


def test_the_example_of_the_documentation_is_a_sound_data_set():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "datasets.md").read_text(), re.DOTALL)
    scope: dict = {}
    exec(code, scope)
    tiles = scope["Tiles"]("anywhere", "train", size=16)
    assert tiles[0].image.shape == (16, 16, 4)
    assert check(as_dataset(tiles), progress=False) == []


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_of_pairs_that_are_not_opened_it_is_seen_whether_there_is_a_mask(tmp_path, task):
    make(tmp_path, "abcd")
    labels = ["."] if task == "multiclass" else ["road", "sky"]
    for label in labels if task == "multilabel" else []:
        for name in "abcd":
            save(tmp_path / f"masks/{label}/train/{name}.png", np.zeros((32, 48)))
    gone = [tmp_path / f"masks/{labels[-1]}/train/{name}.png" for name in "bd"]
    gone[0].unlink()
    gone[1].unlink()
    gone[1].symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "images/train/c.png").write_bytes(b"not opened")
    images = tmp_path / "images/train"
    problems = check(Folder(tmp_path, "train", task=task), at_most=1, progress=False)
    assert problems == [f"{images / path.name}: has no mask, there is no {path}." for path in gone]
