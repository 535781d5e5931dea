from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

import hrseg
from hrseg import build, config
from hrseg.models.four_scale_model import TrainOutput
from hrseg.models.ocrnet import REFERENCE_NAMES, OCRNet
from hrseg.task import LabelSpace, SegmentationClass
from tests.conftest import ROOT
from tests.models.reference import assert_close, reference_input, reference_state, renamed

SMALL = "hrnetv2_w18_small_v1"
ATTENTION = "decode_head.1.object_context_block."
MMSEG_NAMES = (
    ("backbone.", "encoder."),
    ("decode_head.0.convs.0.conv.", "aux_head.0."),
    ("decode_head.0.convs.0.bn.", "aux_head.1."),
    ("decode_head.0.conv_seg.", "aux_head.3."),
    ("decode_head.1.bottleneck.conv.", "decoder.pixel.0."),
    ("decode_head.1.bottleneck.bn.", "decoder.pixel.1."),
    (ATTENTION + "query_project.0.conv.", "decoder.query.0."),
    (ATTENTION + "query_project.0.bn.", "decoder.query.1."),
    (ATTENTION + "query_project.1.conv.", "decoder.query.3."),
    (ATTENTION + "query_project.1.bn.", "decoder.query.4."),
    (ATTENTION + "key_project.0.conv.", "decoder.key.0."),
    (ATTENTION + "key_project.0.bn.", "decoder.key.1."),
    (ATTENTION + "key_project.1.conv.", "decoder.key.3."),
    (ATTENTION + "key_project.1.bn.", "decoder.key.4."),
    (ATTENTION + "value_project.conv.", "decoder.value.0."),
    (ATTENTION + "value_project.bn.", "decoder.value.1."),
    (ATTENTION + "out_project.conv.", "decoder.context.0."),
    (ATTENTION + "out_project.bn.", "decoder.context.1."),
    (ATTENTION + "bottleneck.conv.", "decoder.mix.0."),
    (ATTENTION + "bottleneck.bn.", "decoder.mix.1."),
    ("decode_head.1.conv_seg.", "segmentation_head.conv."),
)


def on_meta(*args, **kwargs) -> OCRNet:
    """A model without numbers, for those that `load_state_dict(assign=True)` brings."""
    with torch.device("meta"):
        return OCRNet(*args, **kwargs).eval()


def assert_outputs_equal(model: OCRNet, golden: Path, case: str) -> None:
    expected = np.load(golden / f"{case}.npz")
    with torch.no_grad():
        main, aux = model.forward_train(reference_input(*expected["input_hw"]))
    assert_close(main, expected["half.out.logits"])
    assert_close(aux, expected["half.out.aux"])


def test_outputs_equal_the_reference(golden):
    case = "official_ocr_w48_ocr_ac1"
    model = on_meta("hrnetv2_w48_ac", align_corners=True, upsampling=1)
    model.load_state_dict(renamed(reference_state(golden, case), REFERENCE_NAMES), assign=True)
    assert_outputs_equal(model, golden, case)


def test_outputs_equal_mmsegmentation(golden):
    case = "mmseg_ocrnet_hr18"
    model = on_meta("hrnetv2_w18", upsampling=1)
    state = renamed(reference_state(golden, case), MMSEG_NAMES)
    state["aux_head.0.bias"], state["decoder.pixel.0.bias"] = torch.zeros(270), torch.zeros(512)
    model.load_state_dict(state, assign=True)
    assert_outputs_equal(model, golden, case)


def test_reference_names_cover_both_heads_one_to_one(golden):
    keys = json.loads((golden / "official_ocr_w48_ocr_ac1.keys.json").read_text())
    theirs = renamed({name: torch.empty(shape, device="meta") for name, shape, _ in keys}, REFERENCE_NAMES)
    ours = on_meta("hrnetv2_w48_ac").state_dict()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


def test_both_outputs_have_the_size_of_an_odd_image():
    model = OCRNet(SMALL, in_channels=4, classes=5).eval()
    x = torch.randn(1, 4, 75, 107)
    with torch.no_grad():
        main, aux = model.forward_train(x)
        assert main.shape == aux.shape == (1, 5, 75, 107)
        assert torch.equal(model(x), main)
        model.upsampling = 1
        main, aux = model.forward_train(x)
        assert main.shape == aux.shape == (1, 5, 19, 27)


def test_align_corners_reaches_every_interpolation():
    torch.manual_seed(0)
    model = OCRNet(SMALL).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = model.forward_train(x)
        for part in (model, model.segmentation_head):
            part.align_corners = True
            after = model.forward_train(x)
            assert not torch.allclose(before.main, after.main)
            before = after


def test_each_output_teaches_its_own_head():
    model = OCRNet(SMALL, classes=5)
    main, aux = model.forward_train(torch.randn(2, 3, 64, 64))
    aux.mean().backward(retain_graph=True)
    assert model.aux_head[3].weight.grad is not None
    assert model.segmentation_head.conv.weight.grad is None
    main.mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_both_heads_start_alike():
    torch.manual_seed(0)
    model = OCRNet(SMALL)
    for conv in (model.segmentation_head.conv, model.aux_head[3], model.aux_head[0], model.decoder.pixel[0]):
        bound = nn.init.calculate_gain("leaky_relu", 5**0.5) * (3 / conv.weight[0].numel()) ** 0.5
        assert 0.9 * bound < conv.weight.abs().max() <= bound
        assert conv.bias.any()


def test_saved_and_loaded_with_both_heads(tmp_path):
    model = OCRNet(SMALL, classes=3, align_corners=True).eval()
    model.save_pretrained(tmp_path)
    again = smp.from_pretrained(str(tmp_path)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(model.forward_train(x), again.forward_train(x), strict=True):
            assert torch.equal(a, b)


def test_image_labels_come_beside_the_mask():
    model = smp.create_model("ocrnet", SMALL, encoder_weights=None, classes=3, aux_params={"classes": 7}).eval()
    with torch.no_grad():
        mask, labels = model(torch.randn(2, 3, 64, 64))
        assert model.forward_train(torch.randn(2, 3, 64, 64)).main.shape == mask.shape == (2, 3, 64, 64)
    assert labels.shape == (2, 7)


def test_takes_other_encoders():
    model = OCRNet("resnet18", classes=3).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_refuses_an_upsampling_that_it_cannot_do():
    with pytest.raises(ValueError, match="upsampling must be 4 "):
        OCRNet(SMALL, upsampling=2)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_computes_the_same():
    model = OCRNet(SMALL, classes=3).eval()
    x = torch.randn(1, 3, 75, 107)
    with torch.no_grad():
        assert torch.allclose(torch.jit.script(model)(x), model(x), atol=1e-5)


def test_registered_twice_is_harmless_and_another_of_the_name_is_refused(monkeypatch):
    hrseg.models.register()
    assert hrseg.models.ARCHITECTURES["ocrnet"] is smp.OCRNet is OCRNet
    monkeypatch.setitem(smp.MODEL_ARCHITECTURES_MAPPING, "ocrnet", nn.Identity)
    with pytest.raises(RuntimeError, match="OCRNet"):
        hrseg.models.register()


@pytest.mark.parametrize(
    ("recipe", "overrides", "case"),
    [
        ("cityscapes_ocr", [], "two_outputs_ce_align_corners_true"),
        ("ade20k_ocr", ["loss.0.thresh=0.3", "loss.0.min_kept=50"], "two_outputs_ohem_align_corners_true"),
    ],
)
def test_recipe_weighs_both_outputs_as_the_reference_does(golden, recipe, overrides, case):
    settings = config.load(ROOT / "configs" / f"{recipe}.yaml", overrides)
    space = LabelSpace(tuple(SegmentationClass(str(i), (i, i, i)) for i in range(19)))
    with torch.device("meta"):
        model = build.model(settings, space, channels=3, pretrained=False)
    assert isinstance(model, OCRNet)
    assert model.align_corners
    arrays = np.load(golden / "loss_two_outputs.npz")
    target = torch.from_numpy(arrays["labels"])
    outputs = [
        F.interpolate(torch.from_numpy(arrays[name]), target.shape[-2:], mode="bilinear", align_corners=True)
        for name in ("logits_main", "logits_aux")
    ]
    expected = json.loads((golden / "loss_two_outputs.json").read_text())[case]["value"]
    assert build.criterion(settings, space)(TrainOutput(*outputs), target).total.item() == pytest.approx(expected, 1e-5)
