"""Every YAML in configs/ is built: settings, augmentation, model (on the meta device), loss, optimizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hrseg import build, config
from hrseg.build import optimizer as optim
from hrseg.build import train_transform
from hrseg.data import ade20k, camvid, cityscapes
from hrseg.task import LabelSpace, SegmentationClass
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
OWN = LabelSpace(tuple(SegmentationClass(name, (9 * i, 0, 0)) for i, name in enumerate(("ground", "tree", "roof"))))
SPACES = {
    "cityscapes": LabelSpace(cityscapes.CLASSES),
    "ade20k": LabelSpace(ade20k.CLASSES),
    "camvid": LabelSpace(camvid.CLASSES),
    "folder": OWN,
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_built(path: Path):
    settings = config.load(path)
    space = SPACES[settings.data.dataset]
    train_transform(settings.augment, space)
    with torch.device("meta"):
        model = build.model(settings, space, 3, pretrained=False)
    optim.freeze(model, settings.train.freeze)
    assert optim.optimizer(model, settings.optim).param_groups
    assert build.criterion(settings, space).terms
    assert model(torch.empty(2, 3, 64, 128, device="meta")).shape == (2, space.outputs, 64, 128)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_shows_its_command(path: Path):
    assert f"tools/train.py configs/{path.name}" in path.read_text() or "make demo" in path.read_text()


def test_the_official_recipes_have_their_published_length():
    """119,548 and 151,560 iterations, from 2975 and 20,210 training images."""
    from hrseg.data.loader import iterations_per_epoch

    for name, images, iterations in (("cityscapes", 2975, 119_548), ("ade20k", 20_210, 151_560)):
        train = config.load(ROOT / "configs" / f"{name}.yaml").train
        assert train.epochs * iterations_per_epoch(images, train.batch_size) == iterations
