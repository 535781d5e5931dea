"""What HRNetV2, OCRNet and C1 share."""

from __future__ import annotations

import inspect
import json

import pytest
import segmentation_models_pytorch as smp
import torch

from hrseg.models import C1, OWN_ARCHITECTURES, HRNetV2, OCRNet

SMALL = "hrnetv2_w18_small_v1"


@pytest.mark.parametrize("architecture", OWN_ARCHITECTURES)
def test_smp_may_pass_its_own_depth(architecture):
    model = smp.create_model(architecture, SMALL, encoder_weights=None, encoder_depth=5)
    assert type(model) is OWN_ARCHITECTURES[architecture]


@pytest.mark.parametrize("architecture", OWN_ARCHITECTURES)
def test_another_depth_is_refused_with_the_features_that_the_head_needs(architecture):
    with pytest.raises(
        ValueError, match=rf"must be 5, not 4: {architecture} needs features at 1/4, 1/8, 1/16 and 1/32"
    ):
        smp.create_model(architecture, SMALL, encoder_weights=None, encoder_depth=4)


@pytest.mark.parametrize("cls", [OCRNet, C1])
def test_arguments_are_those_of_hrnetv2(cls):
    assert list(inspect.signature(cls).parameters) == list(inspect.signature(HRNetV2).parameters)


def test_c1_takes_every_argument_and_comes_back_with_them(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 50, 70)
    models = [
        C1(SMALL, classes=3, aux_params={"classes": 2}, align_corners=corners).eval() for corners in (False, True)
    ]
    models[1].load_state_dict(models[0].state_dict())
    with torch.no_grad():
        logits, labels = models[1](x)
        assert logits.shape == (1, 3, 50, 70) and labels.shape == (1, 2)
        assert not torch.allclose(models[0](x)[0], logits)
        assert torch.equal(models[1].forward_train(x).main, logits)
    models[1].save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["align_corners"] is True
    again = smp.from_pretrained(tmp_path).eval()
    assert isinstance(again, C1)
    with torch.no_grad():
        assert torch.equal(again(x)[0], logits)


def test_c1_keeps_smps_check_of_sizes():
    with pytest.raises(RuntimeError, match="divisible by 32"):
        C1("tu-hrnet_w18_small").eval()(torch.randn(1, 3, 75, 107))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_c1_in_torchscript_computes_the_same():
    model, x = C1(SMALL, classes=3).eval(), torch.randn(1, 3, 45, 70)
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))
