from __future__ import annotations

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import hrseg  # noqa: F401 (registers the encoders)
from hrseg.models.hrnet import BasicBlock
from hrseg.models.ocrnet import REFERENCE_NAMES, OCRNet, concatenate
from hrseg.models.psa import ParallelPSA, SequentialPSA
from tests.models.reference import assert_close, reference_input, reference_state, renamed

BLOCKS = {"p": ParallelPSA, "s": SequentialPSA}
# Its OCR heads nest batch norm and ReLU one level deeper than the reference OCR code in two places.
OCR_NAMES = (
    ("backbone.", "encoder."),
    ("ocr.aux_head.1.0.", "aux_head.1."),
    ("ocr.aux_head.2.", "aux_head.3."),
    ("ocr.conv3x3_ocr.1.0.", "decoder.pixel.1."),
    *((f"ocr.{theirs}", ours) for theirs, ours in REFERENCE_NAMES),
)


def encoder(name: str, weights: dict[str, Tensor] | None = None) -> nn.Module:
    model = smp.encoders.get_encoder(name, weights=None).eval()
    if weights is not None:
        model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_equals_the_reference(golden, kind):
    case = f"psa_block_{kind}_c18"
    block = BLOCKS[kind](18)
    block.load_state_dict(reference_state(golden, case))
    expected = np.load(golden / f"{case}.npz")
    values = np.random.Generator(np.random.PCG64(0)).normal(size=(2, 18, 12, 20))
    x = torch.from_numpy(values.astype(np.float32))
    with torch.no_grad():
        assert_close(block(x), expected["half.out.out"])
        assert_close(x * block.channel_mask(x), expected["half.out.spatial_pool"])  # the reference's names mislead
        assert_close(x * block.position_mask(x), expected["half.out.channel_pool"])


@pytest.mark.parametrize("kind", BLOCKS)
def test_encoder_equals_the_reference(golden, kind):
    case = f"psa_hrnet_w18_{kind}"
    expected = np.load(golden / f"{case}.npz")
    model = encoder(f"hrnetv2_w18_psa_{kind}", reference_state(golden, case))
    with torch.no_grad():
        features = model(reference_input(*expected["input_hw"]))
        assert_close(concatenate(features[-4:], align_corners=False), expected["half.out.feats"])


@pytest.mark.long
@pytest.mark.parametrize("kind", BLOCKS)
def test_ocrnet_over_attention_equals_the_reference(golden, kind):
    case = f"psa_hrnet_w48_ocr_{kind}"
    expected = np.load(golden / f"{case}.npz")
    with torch.device("meta"):
        model = OCRNet(f"hrnetv2_w48_psa_{kind}", upsampling=1).eval()
    model.load_state_dict(renamed(reference_state(golden, case), OCR_NAMES), assign=True)
    with torch.no_grad():
        main, aux = model.forward_train(reference_input(*expected["input_hw"]))
    assert_close(main, expected["half.out.logits"])
    assert_close(aux, expected["half.out.aux"])


def test_weights_without_attention_start_an_encoder_with_it(caplog):
    plain = encoder("hrnetv2_w18_small_v1").state_dict()
    attentive = encoder("hrnetv2_w18_small_v1_psa_s", plain)
    assert "attention starts from random values" in caplog.text
    assert torch.equal(attentive.stage4[0].branches[3][1].conv2.weight, plain["stage4.0.branches.3.1.conv2.weight"])


def test_weights_with_half_of_their_attention_are_refused():
    weights = encoder("hrnetv2_w18_small_v1_psa_p").state_dict()
    del weights["stage4.0.branches.3.1.deattn.conv_up.weight"]
    with pytest.raises(RuntimeError, match=r"deattn\.conv_up"):
        encoder("hrnetv2_w18_small_v1_psa_p", weights)


@pytest.mark.parametrize("kind", BLOCKS)
def test_encoder_takes_odd_sizes(kind):
    with torch.no_grad():
        features = encoder(f"hrnetv2_w18_small_v1_psa_{kind}")(torch.randn(1, 3, 43, 75))
    assert [tuple(f.shape[-2:]) for f in features[2:]] == [(11, 19), (6, 10), (3, 5), (2, 3)]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", BLOCKS)
def test_torchscript_computes_the_same(kind):
    block = BasicBlock(18, BLOCKS[kind]).eval()
    x = torch.randn(2, 18, 7, 9)
    with torch.no_grad():
        assert torch.allclose(torch.jit.script(block)(x), block(x), atol=1e-6)
