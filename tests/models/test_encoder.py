from __future__ import annotations

import json
import logging

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import hrseg
from hrseg.models import encoder as encoders
from hrseg.models.encoder import PUBLISHED, extra_channels
from hrseg.models.hrnet import VARIANTS

NAME = "hrnetv2_w18_small_v1"
CHANNELS = [3, 64, 16, 32, 64, 128]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_space": "RGB", "input_range": [0, 1]}


def build(name: str = NAME, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return smp.encoders.get_encoder(name, **options).eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub that holds made-up weights of one published set, and no way to the hub itself."""
    torch.manual_seed(1)
    network = timm.create_model("hrnet_w18_small").eval()
    folder = tmp_path / "models--timm--hrnet_w18_small.gluon_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    nested = {"architecture": "hrnet_w18_small", "pretrained_cfg": {"mean": IMAGENET["mean"], "std": IMAGENET["std"]}}
    (snapshot / "config.json").write_text(json.dumps(nested))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return network


def test_every_variant_and_fusion_has_a_name():
    expected = {f"hrnetv2_{variant}{suffix}" for variant in VARIANTS for suffix in ("", "_nearest", "_ac")}
    assert expected <= set(smp.encoders.get_encoder_names())


@pytest.mark.parametrize(("suffix", "fusion"), [("", "bilinear"), ("_nearest", "nearest"), ("_ac", "bilinear_ac")])
def test_the_name_decides_the_fusion(suffix, fusion):
    named, direct = build(NAME + suffix), encoders.HRNet("w18_small_v1", fusion=fusion).eval()
    direct.load_state_dict(named.state_dict())
    x = torch.randn(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(named(x)[1:], direct(x), strict=True))


def test_registering_twice_is_harmless():
    before = list(smp.encoders.get_encoder_names())
    hrseg.models.register()
    assert list(smp.encoders.get_encoder_names()) == before
    assert smp.encoders.get_preprocessing_params(NAME) == IMAGENET


def test_the_same_encoder_from_a_module_that_was_loaded_twice_is_no_clash(monkeypatch):
    ours = encoders.HRNetEncoder
    twin = type(ours.__name__, (ours,), {"__module__": ours.__module__, "__qualname__": ours.__qualname__})
    monkeypatch.setitem(smp.encoders.encoders, NAME, {**smp.encoders.encoders[NAME], "encoder": twin})
    hrseg.models.register()
    assert smp.encoders.encoders[NAME]["encoder"] is ours


def test_another_encoder_of_the_name_is_not_overwritten(monkeypatch):
    class Other(torch.nn.Module):
        pass

    monkeypatch.setitem(smp.encoders.encoders, NAME, {"encoder": Other, "pretrained_settings": {}, "params": {}})
    with pytest.raises(RuntimeError, match=f"already has an encoder '{NAME}'.*Other"):
        hrseg.models.register()
    assert smp.encoders.encoders[NAME]["encoder"] is Other


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_features_follow_smps_contract(depth):
    network = build(depth=depth)
    x = torch.randn(1, 3, 75, 107)
    features = network(x)
    assert torch.equal(features[0], x)
    assert [f.shape[1] for f in features] == network.out_channels == CHANNELS[: depth + 1]
    assert [f.shape[-2:] for f in features] == [(-(-75 // 2**i), -(-107 // 2**i)) for i in range(depth + 1)]


@pytest.mark.parametrize("options", [{"depth": 0}, {"depth": 6}, {"output_stride": 4}, {"output_stride": 64}])
def test_other_depths_and_strides_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        build(**options)


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_enlarges_the_deep_features_only(stride):
    x = torch.randn(1, 3, 70, 100)
    plain, dense = build()(x), build(output_stride=stride)(x)
    sizes = [(-(-70 // s), -(-100 // s)) for s in (min(2**i, stride) for i in range(6))]
    assert [f.shape[-2:] for f in dense] == sizes
    for feature, reference, size in zip(dense, plain, sizes, strict=True):
        resized = torch.nn.functional.interpolate(reference, size=size, mode="bilinear")
        torch.testing.assert_close(feature, resized)


def test_channels_by_smps_rule(hub):
    rgb = hub.conv1.weight
    grey = build(in_channels=1, weights="imagenet").conv1.weight
    four = build(in_channels=4, weights="imagenet").conv1.weight
    torch.testing.assert_close(grey, rgb.sum(1, keepdim=True))
    torch.testing.assert_close(four, rgb[:, [0, 1, 2, 0]] * 0.75)


def test_extra_channels_can_start_without_effect(hub):
    with extra_channels("zero"):
        five = build(in_channels=5, weights="imagenet")
    x = torch.randn(1, 5, 64, 64)
    expected = build(weights="imagenet")(x[:, :3])
    for feature, reference in zip(five(x)[1:], expected[1:], strict=True):
        torch.testing.assert_close(feature, reference)
    five(x)[1].sum().backward()
    assert five.conv1.weight.grad[:, 3:].abs().sum() > 0  # and learns to use them
    assert build(in_channels=5, weights="imagenet").conv1.weight[:, 3:].abs().sum() > 0  # outside: smp's rule again


def test_a_misspelt_rule_for_extra_channels_is_refused():
    with pytest.raises(ValueError, match="'tile' or 'zero'"), extra_channels("zeros"):
        pass


def test_every_published_set_is_timms():
    known = timm.list_pretrained("hrnet*")
    for variant, sets in PUBLISHED.items():
        of_smp = smp.encoders.encoders[f"hrnetv2_{variant}"]["pretrained_settings"]
        assert {name: f"timm/{place}" for name, place in sets.items()} == {k: v["repo_id"] for k, v in of_smp.items()}
        architecture = sets["imagenet"].split(".")[0]
        assert sets["imagenet"] == f"{architecture}.{timm.models.get_pretrained_cfg(architecture).tag}"
    assert {place for sets in PUBLISHED.values() for place in sets.values()} == set(known)


def test_published_weights_compute_in_the_nearest_encoder_what_they_compute_in_timm(hub):
    reference = timm.create_model("hrnet_w18_small", features_only=True, feature_location="").eval()
    reference.load_state_dict(hub.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    features = build(f"{NAME}_nearest", weights="imagenet")(x)[1:]
    for feature, expected in zip(features, reference(x), strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(("name", "told"), [(NAME, True), (f"{NAME}_ac", True), (f"{NAME}_nearest", False)])
def test_the_log_tells_that_imagenet_weights_meet_another_fusion(hub, caplog, name, told):
    with caplog.at_level(logging.INFO, logger="hrseg"):
        build(name, weights="imagenet")
    assert ("trained with nearest fusion" in caplog.text) == told


def test_published_weights_load_into_a_lower_depth(hub):
    shallow = build(depth=3, weights="imagenet")
    assert torch.equal(shallow.conv1.weight, hub.conv1.weight)


def test_preprocessing_asks_no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for weights in ("imagenet", "imagenet-ssld"):
        assert smp.encoders.get_preprocessing_params("hrnetv2_w48", weights) == IMAGENET
    white = torch.full((2, 2, 3), 255.0).numpy()
    normalised = smp.encoders.get_preprocessing_fn("hrnetv2_w48")(white)
    assert normalised[0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)


def test_preprocessing_of_other_encoders_stays_smps_own():
    assert smp.encoders.get_preprocessing_params("tu-resnet18.a1_in1k")["mean"] == IMAGENET["mean"]
    with pytest.raises(ValueError, match="Available pretrained options"):
        smp.encoders.get_preprocessing_params(NAME, "imagenet-22k")
