"""A data set of eight images that a network learns in seconds, and the settings to train on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from hrseg import build, config
from hrseg.task import LabelSpace, Normalisation, SegmentationClass, Task
from hrseg.weights import checkpoint

COLORS = {"ground": (90, 90, 90), "box": (220, 40, 40), "disc": (40, 60, 220)}


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Boxes and discs on grey ground as data.dataset=folder wants them: 6 training and 2 validation images, 48x64."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :64]
    for number in range(8):
        split = "train" if number < 6 else "val"
        mask = np.zeros((48, 64), np.uint8)
        y, x = rng.integers(8, 24), rng.integers(8, 24)
        mask[y : y + 16, x : x + 16] = 1
        mask[(rows - rng.integers(14, 34)) ** 2 + (columns - rng.integers(44, 52)) ** 2 < 81] = 2
        image = np.array(list(COLORS.values()), np.uint8)[mask] + rng.integers(0, 30, (48, 64, 3), dtype=np.uint8)
        mask[0] = 255
        for folder, picture in (("images", image), ("masks", mask)):
            path = root / folder / split / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    classes = [{"name": name, "color": list(color)} for name, color in COLORS.items()]
    (root / "classes.yaml").write_text(yaml.safe_dump(classes))
    return root


@pytest.fixture
def config_file(shapes, tmp_path):
    """A YAML file that trains on `shapes` for six iterations."""
    settings = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"dataset": "folder", "root": str(shapes), "workers": 0},
        "augment": {"scale": [0.75, 1.25], "crop": [32, 32]},
        "loss": [{"name": "ohem", "min_kept": 0.2}],
        "optim": {"name": "adamw", "lr": 0.003},
        "train": {"iterations": 6, "batch_size": 4, "log_every": 1, "val_every": 3},
        "run": {"dir": str(tmp_path / "run"), "threads": 1},
    }
    path = tmp_path / "shapes.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def save_checkpoint(path, seed=0, names=tuple(COLORS), task="multiclass", channels=3, **normalisation):
    """A checkpoint of a network with random weights whose answers differ from pixel to pixel."""
    settings = config.parse({"model": {"encoder": "hrnetv2_w18_small_v1"}})
    space = LabelSpace(tuple(SegmentationClass(n, COLORS.get(n, (7, 7, 7))) for n in names), Task(task))
    usual = {"mean": (0.5,) * channels, "std": (0.25,) * channels, "input_range": ((0.0, 255.0),) * channels}
    torch.manual_seed(seed)
    model = build.model(settings, space, channels)
    with torch.no_grad():
        model.segmentation_head.conv.weight.mul_(20)
    checkpoint.save(path, {
        "model": model.state_dict(), "ema": None, "step": 3, "config": settings.to_plain(),
        "normalisation": Normalisation(**usual | normalisation).to_plain(), **space.to_plain(),
    })  # fmt: skip
    return path


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The path of such a checkpoint, for ground, box and disc."""
    return save_checkpoint(tmp_path_factory.mktemp("saved") / "net.pt")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Twelve training and three validation images, 32 x 64; a YAML file that trains on them for eight iterations.

    An epoch has three iterations; validations and checkpoints come at others.
    """
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for number in range(15):
        mask = np.zeros((32, 64), np.uint8)
        y, x = rng.integers(0, 16), rng.integers(0, 48)
        mask[y : y + 16, x : x + 16] = 1
        image = np.where(mask[..., None] == 1, (220, 40, 40), (90, 90, 90)) + rng.integers(0, 30, (32, 64, 3))
        for folder, picture in (("images", image.astype(np.uint8)), ("masks", mask)):
            path = root / folder / ("train" if number < 12 else "val") / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    (root / "classes.yaml").write_text(yaml.safe_dump(["ground", "box"]))
    settings = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"dataset": "folder", "root": str(root), "workers": 0, "check": False},
        "augment": {"scale": [0.75, 1.25], "crop": [32, 64], "extra": [{"name": "GaussNoise", "p": 0.5}]},
        "loss": [{"name": "ohem", "min_kept": 0.2}],
        "optim": {"name": "adamw", "lr": 0.003, "warmup": 3},
        "train": {"iterations": 8, "batch_size": 4, "log_every": 1, "val_every": 4, "checkpoint_every": 3},
        "run": {"threads": 1},
    }
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
