from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch

from hrseg.models import ARCHITECTURES

ENCODER = "hrnetv2_w18_small_v1"
CONVOLUTIONAL = sorted(ARCHITECTURES.keys() - {"dpt"})


def build(arch: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return smp.create_model(arch, encoder_name=ENCODER, encoder_weights=None, classes=3)


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_architecture_trains_with_an_hrnet_encoder(arch):
    model = build(arch).train()
    logits = model(torch.randn(2, 3, 128, 160))
    logits.square().mean().backward()
    assert logits.shape == (2, 3, 128, 160)
    assert model.encoder.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_odd_sizes_work_or_are_refused_in_a_sentence(arch):
    model, x = build(arch).eval(), torch.randn(1, 3, 97, 131)
    if model.requires_divisible_input_shape:
        with pytest.raises(RuntimeError, match=r"height=97, width=131\. Expected image height and width divisible by"):
            model(x)
    else:
        assert model(x).shape == (1, 3, 97, 131)


def test_dpt_says_why_it_takes_no_convolutional_encoder():
    with pytest.raises(ValueError, match=f"Only Timm encoders are supported for DPT.*got {ENCODER}"):
        build("dpt")
