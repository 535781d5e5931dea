"""`model.weights` alone is enough to fine-tune, and a message names the settings where it does not fit."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch

from hrseg import build, config
from hrseg.build.starting_weights import StartingWeights
from hrseg.errors import ConfigError
from hrseg.task import LabelSpace, SegmentationClass

SPACE = LabelSpace(tuple(SegmentationClass(n, (7, 7, 7)) for n in ("ground", "box", "disc", "tree")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """smp's own folder of a U-Net with narrow decoder and three classes."""
    path = tmp_path_factory.mktemp("smp") / "unet"
    narrow = {"decoder_channels": (64, 32, 16, 8, 8)}
    smp.Unet("hrnetv2_w18_small_v1", encoder_weights=None, classes=3, **narrow).save_pretrained(path)
    return path


def start(folder, **model):
    settings = config.parse({"model": {"weights": str(folder), **model}})
    weights = StartingWeights(settings.model.weights)
    settings = weights.completed(settings)
    network = build.model(settings, SPACE, 3, pretrained=False)
    weights.load_into(network, settings)
    return settings.model, network


@pytest.mark.parametrize("unset", [{}, {"arch": None, "encoder": None}])
def test_architecture_encoder_and_options_are_the_files_unless_set(folder, unset):
    model, network = start(folder, **unset)
    assert (model.arch, model.encoder) == ("unet", "hrnetv2_w18_small_v1")
    stored = smp.from_pretrained(folder).state_dict()
    loaded = network.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in stored.items() if "segmentation_head" not in k)


def test_the_encoder_alone_goes_below_the_usual_head(folder):
    model, _ = start(f"{folder}#encoder")
    assert (model.arch, model.encoder) == ("hrnetv2", "hrnetv2_w18_small_v1")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"encoder": "hrnetv2_w18"}, "Set model.encoder=hrnetv2_w18_small_v1"),
        ({"arch": "fpn", "encoder": "hrnetv2_w18_small_v1"}, "Set model.arch=unet, or take its encoder alone"),
        ({"arch": "fpn", "encoder": "hrnetv2_w18"}, "Set model.encoder=hrnetv2_w18_small_v1 model.arch=unet"),
    ],
)
def test_what_is_set_and_does_not_fit_is_named_with_what_to_set(folder, model, said):
    with pytest.raises(ConfigError, match=said):
        start(folder, **model)
