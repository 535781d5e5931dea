from __future__ import annotations

import pickle
import re
import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from hrseg import weights
from hrseg.errors import WeightsError
from hrseg.models.hrnetv2 import HRNetV2
from hrseg.weights.families import FAMILIES
from tests.weights.made import ODD, SMALL, assert_same, built, official, outputs, shaken

WRITTEN = (
    ("official", "hrnetv2"),
    ("official", "ocrnet"),
    ("imagenet", "classifier"),
    ("imagenet", "increased"),
    ("mmseg", "hrnetv2"),
    ("mmseg", "ocrnet_bilinear"),
    ("csail", "c1"),
    ("pose", "pose"),
    ("detection", "detection"),
    ("mmdet", "detection"),
    ("psa", "ocrnet_bilinear"),
)


@pytest.mark.parametrize(("family", "architecture"), WRITTEN)
def test_what_is_saved_for_a_family_is_that_family_s_and_computes_the_same(tmp_path, family, architecture):
    model = built(architecture)
    files = weights.save(model, tmp_path / "saved.pth", family)
    found = weights.inspect([str(f) for f in files] if len(files) > 1 else files[0])
    assert found.family.name == family
    assert found.architecture == architecture.removesuffix("_bilinear")
    # HRFPN needs a few pixels more.
    assert_same(weights.build_model(found), model, (139, 203) if architecture == "detection" else ODD)


def test_mmsegmentation_files_have_no_bias_before_a_norm(tmp_path):
    weights.save(built("hrnetv2"), tmp_path / "saved.pth", "mmseg")
    state = torch.load(tmp_path / "saved.pth", weights_only=True)["state_dict"]
    assert "decode_head.convs.0.conv.weight" in state
    assert "decode_head.convs.0.conv.bias" not in state


def test_a_family_that_fuses_otherwise_is_not_written(tmp_path):
    with pytest.raises(WeightsError, match="fuses by bilinear, imagenet by nearest"):
        weights.save(built("hrnetv2"), tmp_path / "x.pth", "timm", encoder_only=True)
    assert not list(tmp_path.iterdir())


def test_a_head_that_a_family_does_not_have_is_not_written(tmp_path):
    with pytest.raises(WeightsError, match="csail has no hrnetv2 head"):
        weights.save(built("hrnetv2"), tmp_path / "x.pth", "csail")


def test_timm_computes_the_same_features_from_a_saved_encoder(tmp_path):
    encoder = built("classifier").encoder
    weights.save(encoder, tmp_path / "trunk.safetensors", "timm")
    state = weights.read_checkpoint(tmp_path / "trunk.safetensors").tensors
    theirs = timm.create_model("hrnet_w18_small", features_only=True, feature_location="").eval()
    theirs.load_state_dict(state)
    for a, b in zip(outputs(theirs, (64, 96)), outputs(encoder, (64, 96))[1:], strict=True):
        torch.testing.assert_close(a, b)


def test_gammas_of_inplace_abn_count_by_their_absolute_value(tmp_path):
    state = torch.load(official(built("hrnetv2"), tmp_path), weights_only=True)
    state = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "torch04.pth", _use_new_zipfile_serialization=False)
    found = weights.inspect(tmp_path / "torch04.pth")
    assert found.family.name == "official_torch04"
    gamma = state["model.last_layer.1.weight"]
    assert (gamma < 0).any()
    torch.testing.assert_close(weights.build_model(found).decoder.bn.weight.data, gamma.abs() + 1e-5)
    # A file of ordinary batch norm without counters: the person knows better.
    plain = weights.inspect(tmp_path / "torch04.pth", family="official")
    torch.testing.assert_close(weights.build_model(plain).decoder.bn.weight.data, gamma)


def test_a_plain_official_file_asks_for_align_corners(tmp_path):
    path = official(built("hrnetv2"), tmp_path)
    found = weights.inspect(path)
    assert (found.encoder, found.align_corners, found.bn_momentum) == (SMALL, False, 0.01)
    assert "--align-corners true|false" in found.questions[0]
    told = weights.inspect(path, align_corners=True)
    assert (told.encoder, told.align_corners) == (f"{SMALL}_ac", True)
    assert not [q for q in told.questions if "align" in q]
    assert outputs(weights.build_model(found))[0].ne(outputs(weights.build_model(told))[0]).any()


def test_class_names_come_from_the_file_where_it_has_them(tmp_path):
    path = weights.save(built("hrnetv2"), tmp_path / "mm.pth", "mmseg")[0]
    content = torch.load(path, weights_only=True)
    content["meta"] = {
        "dataset_meta": {"classes": [f"c{i}" for i in range(19)], "palette": [[1, 2, i] for i in range(19)]}
    }
    torch.save(content, path)
    found = weights.inspect(path)
    assert found.space.classes[3] == ("c3", (1, 2, 3), None, None)
    assert weights.inspect(official(built("hrnetv2"), tmp_path)).space.names[0] == "road"


def test_momentum_of_the_home_is_part_of_the_model(tmp_path):
    model = weights.build_model(official(built("hrnetv2"), tmp_path))
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.model.{k}": v for k, v in s.items()},
        lambda s: {"epoch": 3, "model": {f"net.{k}": v for k, v in s.items()}, "optimizer": {"state": {}}},
        lambda s: {"model": {k: torch.zeros_like(v) for k, v in s.items()}, "ema": s},
        lambda s: {"student": {f"student.{k}": v for k, v in s.items()}},
    ],
    ids=["module", "compile", "nested", "ema", "student"],
)
def test_wrappers_are_taken_off(tmp_path, wrap):
    model = built("hrnetv2")
    state = torch.load(official(model, tmp_path), weights_only=True)
    bare = {key.removeprefix("model."): tensor for key, tensor in state.items() if not key.startswith("loss.")}
    torch.save(wrap(bare), tmp_path / "wrapped.pth")
    assert_same(weights.build_model(tmp_path / "wrapped.pth"), model)


def test_two_networks_in_one_file_are_not_guessed_between(tmp_path):
    state = built("hrnetv2").state_dict()
    torch.save({f"{who}.{k}": v for who in ("student", "teacher") for k, v in state.items()}, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match=r"holds 2 networks, under 'student\.', 'teacher\.'"):
        weights.inspect(tmp_path / "two.pth")


def test_smp_models_over_timm_s_hrnet_load_into_themselves_and_give_their_encoder(tmp_path):
    unet = shaken(smp.Unet("tu-hrnet_w18_small", encoder_weights=None))
    torch.save(unet.state_dict(), tmp_path / "unet.pth")
    again = smp.Unet("tu-hrnet_w18_small", encoder_weights=None).eval()
    assert weights.load(again, tmp_path / "unet.pth").fits
    assert_same(again, unet, (64, 96))
    other = HRNetV2(f"{SMALL}_nearest", classes=2)
    report = weights.load(other, tmp_path / "unet.pth", encoder_only=True)
    assert str(report).startswith("426 of 426")
    torch.testing.assert_close(other.encoder.conv1.weight, unet.encoder.model.conv1.weight)


def paddle_name(name: str) -> str:
    """A reference name as PaddleSeg spells it."""

    def up(zero_based: str) -> str:
        return str(int(zero_based) + 1)

    name = re.sub(r"^(conv|bn)([12])\.", lambda m: f"backbone.conv_layer1_{m[2]}.{m[1]}.", name)
    name = re.sub(
        r"^layer1\.(\d)\.(?:(conv|bn)(\d)|downsample\.(\d))\.",
        lambda m: (
            f"backbone.la1.bb_layer2_{up(m[1])}."
            + (f"conv{m[3]}.{m[2]}." if m[2] else f"conv_down.{('conv', 'bn')[int(m[4])]}.")
        ),
        name,
    )
    name = re.sub(
        r"^transition(\d)\.(\d)(?:\.0)?\.(\d)\.",
        lambda m: f"backbone.tr{m[1]}.transition_tr{m[1]}_layer_{up(m[2])}.{('conv', 'bn')[int(m[3])]}.",
        name,
    )
    name = re.sub(
        r"^stage(\d)\.(\d)\.branches\.(\d)\.(\d)\.(conv|bn)(\d)\.",
        lambda m: (
            f"backbone.st{m[1]}.stage_st{m[1]}_{up(m[2])}.branches_func."
            f"bb_st{m[1]}_{up(m[2])}_branch_layer_{up(m[3])}_{up(m[4])}.conv{m[6]}.{m[5]}."
        ),
        name,
    )
    name = re.sub(
        r"^stage(\d)\.(\d)\.fuse_layers\.(\d)\.(\d)(?:\.(\d))?\.(\d)\.",
        lambda m: (
            f"backbone.st{m[1]}.stage_st{m[1]}_{up(m[2])}.fuse_func."
            f"residual_st{m[1]}_{up(m[2])}_layer_{up(m[3])}_{up(m[4])}{'_' + up(m[5]) if m[5] else ''}"
            f".{('conv', 'bn')[int(m[6])]}."
        ),
        name,
    )
    ocr = "ocr_distri_head.object_context_block."
    for there, here in (
        ("last_layer.0.", "head.conv_1.conv."),
        ("last_layer.1.", "head.conv_1.bn."),
        ("last_layer.3.", "head.cls."),
        ("aux_head.0.", "head.aux_head.0.conv."),
        ("aux_head.1.", "head.aux_head.0.bn."),
        ("aux_head.3.", "head.aux_head.1."),
        ("conv3x3_ocr.0.", "head.conv3x3_ocr.conv."),
        ("conv3x3_ocr.1.", "head.conv3x3_ocr.bn."),
        ("cls_head.", "head.cls_head."),
        ("ocr_distri_head.conv_bn_dropout.0.", "head.spatial_ocr.conv1x1.0.conv."),
        ("ocr_distri_head.conv_bn_dropout.1.0.", "head.spatial_ocr.conv1x1.0.bn."),
        *((f"{ocr}{f}.0.", f"head.spatial_ocr.attention_block.{f}.0.conv.") for f in ("f_pixel", "f_object")),
        *((f"{ocr}{f}.1.0.", f"head.spatial_ocr.attention_block.{f}.0.bn.") for f in ("f_pixel", "f_object")),
        *((f"{ocr}{f}.2.", f"head.spatial_ocr.attention_block.{f}.1.conv.") for f in ("f_pixel", "f_object")),
        *((f"{ocr}{f}.3.0.", f"head.spatial_ocr.attention_block.{f}.1.bn.") for f in ("f_pixel", "f_object")),
        *((f"{ocr}{f}.0.", f"head.spatial_ocr.attention_block.{f}.conv.") for f in ("f_down", "f_up")),
        *((f"{ocr}{f}.1.0.", f"head.spatial_ocr.attention_block.{f}.bn.") for f in ("f_down", "f_up")),
    ):
        if name.startswith(there):
            name = here + name.removeprefix(there)
            break
    name = name.replace(".conv.", "._conv.").replace(".bn.", "._batch_norm.")
    return name.replace("running_mean", "_mean").replace("running_var", "_variance")


@pytest.mark.parametrize("architecture", ["hrnetv2", "ocrnet_bilinear"])
def test_paddle_files_give_every_tensor_its_place(tmp_path, architecture):
    model = built(architecture, "hrnetv2_w18_small_v2")
    state = torch.load(official(model, tmp_path), weights_only=True)
    arrays = {
        paddle_name(key.removeprefix("model.")): tensor.numpy()
        for key, tensor in state.items()
        if not key.endswith("num_batches_tracked") and not key.startswith("loss.")
    }
    assert "backbone.st3.stage_st3_2.fuse_func.residual_st3_2_layer_3_1_2._batch_norm._mean" in arrays
    with (tmp_path / "model.pdparams").open("wb") as file:
        pickle.dump({**arrays, "StructuredToParameterName@@": dict.fromkeys(arrays, "x")}, file, protocol=4)
    found = weights.inspect(tmp_path / "model.pdparams")
    assert found.family.name == "paddleseg"
    assert found.normalisation.mean == (0.5, 0.5, 0.5)
    assert "the outputs differ" in found.questions[0]
    loaded = weights.build_model(found).state_dict()
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert loaded[name].equal(tensor), name


def test_every_family_is_described_and_every_saved_one_is_tested():
    assert {family for family, _ in WRITTEN} == {n for n, f in FAMILIES.items() if f.saved and n != "hrseg"}


MEASURED = """
import resource, sys, torch
from hrseg import weights
from hrseg.models.hrnetv2 import HRNetV2
model = HRNetV2("hrnetv2_w48")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[2] == "plain":
    state = torch.load(sys.argv[1], weights_only=True)
    model.load_state_dict({key.removeprefix("model."): state[key] for key in state}, strict=False)
else:
    weights.load(model, sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
def test_loading_w48_takes_at_most_twice_the_memory_of_torch_alone(tmp_path):
    path = official(HRNetV2("hrnetv2_w48"), tmp_path)
    plain, ours = (
        int(subprocess.run([sys.executable, "-c", MEASURED, path, how], capture_output=True, check=True).stdout)
        for how in ("plain", "ours")
    )
    assert ours <= 2 * plain
