from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from huggingface_hub import constants

import hrseg
from hrseg.data.cityscapes import CLASS_WEIGHTS
from hrseg.losses import ohem_cross_entropy
from hrseg.models import HRNetV2
from hrseg.models.hrnet import VARIANTS, initialize, set_bn_momentum
from hrseg.models.hrnetv2 import REFERENCE_NAMES
from tests.models.reference import assert_close, reference_input, reference_state, renamed

SMALL = "hrnetv2_w18_small_v1"
OWN_GOLDEN = Path(__file__).parents[1] / "data" / "golden"
PARAMETERS = {
    "w18_small_v1": 1_540_819,
    "w18_small_v2": 3_939_579,
    "w18": 9_641_119,
    "w30": 26_024_695,
    "w32": 29_546_515,
    "w40": 45_894_435,
    "w44": 55_424_779,
    "w48": 65_859_379,
    "w64": 116_640_339,
}
OFFICIAL = [  # cases of one row have the same weights, from two branches of the reference code
    (["official_v11_w18_small_v1"], "hrnetv2_w18_small_v1", False),
    (["official_v11_w18_small_v2"], "hrnetv2_w18_small_v2", False),
    (["official_v11_w18"], "hrnetv2_w18", False),
    (["official_v11_w48", "official_ocr_w48_seg_ac0"], "hrnetv2_w48", False),
    (["official_ocr_w48_seg_ac1"], "hrnetv2_w48_ac", True),
]


def build(encoder: str = SMALL, **options) -> HRNetV2:
    torch.manual_seed(0)
    return HRNetV2(encoder, **options).eval()


def rebuilt(golden: Path, case: str, encoder: str, **options) -> HRNetV2:
    """The model of a reference case, with its weights."""
    model = build(encoder, **options)
    model.load_state_dict(renamed(reference_state(golden, case), REFERENCE_NAMES))
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_counts_are_the_published_ones(variant):
    with torch.device("meta"):
        model = HRNetV2(f"hrnetv2_{variant}")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[variant]


def test_small_model_equals_the_reference_code():
    case = "official_v11_w18_small_v1"
    expected = np.load(OWN_GOLDEN / f"{case}.npz")
    with torch.no_grad():
        logits = rebuilt(OWN_GOLDEN, case, SMALL, upsampling=1)(reference_input(*expected["input_hw"]))
    assert_close(logits, expected["half.out.logits"])


@pytest.mark.parametrize(("cases", "encoder", "align_corners"), OFFICIAL, ids=[cases[0] for cases, *_ in OFFICIAL])
def test_logits_equal_the_reference_code(golden, cases, encoder, align_corners):
    model = rebuilt(golden, cases[0], encoder, upsampling=1, align_corners=align_corners)
    expected = [np.load(golden / f"{case}.npz") for case in cases]
    with torch.no_grad():
        logits = model(reference_input(*expected[0]["input_hw"]))
        for arrays in expected:
            assert_close(logits, arrays["half.out.logits"])
        if "small" in encoder:
            large = model(reference_input(*expected[0]["large_input_hw"]))
            assert_close(large[..., ::8, ::8], expected[0]["half.large.sub8.logits"])


@pytest.fixture(scope="module")
def training_step(golden):
    """A model in training mode after one forward pass of the reference case, its logits, and the labels."""
    case = "train_v11_w18_small_v1"
    model = rebuilt(golden, case, SMALL).train()
    set_bn_momentum(model, 0.01)
    x = np.random.Generator(np.random.PCG64(0)).normal(size=(2, 3, 64, 128)).astype(np.float32)
    rng = np.random.Generator(np.random.PCG64(1))
    labels = rng.integers(0, 19, size=(2, 64, 128))
    labels[rng.random((2, 64, 128)) < 0.1] = 255
    logits = model.forward_train(torch.from_numpy(x)).main
    return model, logits, torch.from_numpy(labels)


LOSSES = {
    "ce": lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=255),
    "ce_cityscapes_weights": lambda logits, labels: F.cross_entropy(
        logits, labels, weight=torch.tensor(CLASS_WEIGHTS), ignore_index=255
    ),
    "ohem_t0.9_k1000": lambda *args: ohem_cross_entropy(*args, thresh=0.9, min_kept=1000),
    "ohem_t0.7_k100": lambda *args: ohem_cross_entropy(*args, thresh=0.7, min_kept=100),
    "ohem_t0.05_k100": lambda *args: ohem_cross_entropy(*args, thresh=0.05, min_kept=100),
    "ohem_t0.05_k12000": lambda *args: ohem_cross_entropy(*args, thresh=0.05, min_kept=12000),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_training_step_equals_the_reference_code(golden, training_step, loss):
    model, logits, labels = training_step
    expected = json.loads((golden / "train_v11_w18_small_v1.json").read_text())[f"half.{loss}"]
    arrays = np.load(golden / "train_v11_w18_small_v1.npz")
    value = LOSSES[loss](logits, labels)
    assert value.item() == pytest.approx(expected["loss_float64"], rel=2e-6)
    gradients = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
    by_name = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
    norms = {name: by_name[ours].norm().item() for name, ours in reference_names(expected["grad_norms"]).items()}
    # The gradient of a bias before a batch norm is zero: what is stored of it is rounding.
    assert norms.pop("last_layer.0.bias") < 1e-6
    for name, norm in norms.items():
        assert norm == pytest.approx(expected["grad_norms_float64"][name], rel=2e-5), name
    whole = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    assert whole == pytest.approx(expected["total_grad_norm_float64"], rel=2e-6)
    stored = [key for key in arrays if key.startswith(f"half.grad.{loss}.")]
    assert len(stored) == 5
    for key in stored:
        assert_close(by_name[reference_name(key.removeprefix(f"half.grad.{loss}."))], arrays[key])


def test_running_statistics_equal_the_reference_code(golden, training_step):
    state = training_step[0].state_dict()
    arrays = np.load(golden / "train_v11_w18_small_v1.npz")
    after = {key.removeprefix("half.after."): arrays[key] for key in arrays if key.startswith("half.after.")}
    assert len(after) == 2 * sum(key.endswith("running_mean") for key in state)
    for name, expected in after.items():
        assert_close(state[reference_name(name)], expected)


def reference_name(name: str) -> str:
    return next(iter(renamed({name: None}, REFERENCE_NAMES)))


def reference_names(names) -> dict[str, str]:
    return {name: reference_name(name) for name in names}


def test_every_head_parameter_has_its_place_in_the_reference_checkpoints():
    ours = {name for name in build().state_dict() if not name.startswith("encoder.")}
    theirs = reference_state(OWN_GOLDEN, "official_v11_w18_small_v1")
    assert ours == {reference_name(name) for name in theirs if name.startswith("last_layer.")}


@pytest.mark.parametrize("size", [(1, 1), (33, 1), (97, 131)])
def test_logits_have_the_size_of_any_image(size):
    with torch.no_grad():
        logits = build(classes=4)(torch.randn(2, 3, *size))
    assert logits.shape == (2, 4, *size)
    assert logits.isfinite().all()


def test_upsampling_4_interpolates_what_upsampling_1_gives():
    x = torch.randn(1, 3, 75, 107)
    for align_corners in (False, True):
        fine = build(align_corners=align_corners)(x)
        coarse = build(align_corners=align_corners, upsampling=1)(x)
        assert coarse.shape[-2:] == (19, 27)
        expected = F.interpolate(coarse, size=(75, 107), mode="bilinear", align_corners=align_corners)
        torch.testing.assert_close(fine, expected)


@pytest.mark.parametrize("upsampling", [0, 2, 8, None])
def test_another_upsampling_is_refused(upsampling):
    with pytest.raises(ValueError, match=r"must be 4 .* or 1"):
        HRNetV2(SMALL, upsampling=upsampling)


def test_activation_comes_after_interpolation():
    probabilities = build(activation="softmax2d")(torch.randn(1, 3, 50, 70))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 50, 70))


def test_aux_params_add_labels_of_the_image():
    model = build(aux_params={"classes": 3})
    x = torch.randn(2, 3, 64, 64)
    logits, labels = model(x)
    assert labels.shape == (2, 3)
    assert torch.equal(model.forward_train(x).main, logits)
    assert model.forward_train(x).aux is None


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "mit_b0", "tu-convnext_atto"])
def test_head_works_over_other_encoders(encoder):
    model = build(encoder, classes=3, in_channels=4).train()
    logits = model(torch.randn(2, 4, 75, 107))  # these encoders take odd sizes
    logits.sum().backward()
    assert logits.shape == (2, 3, 75, 107)
    width = sum(model.encoder.out_channels[-4:])
    assert model.decoder.conv.weight.shape == (width, width, 1, 1)


def test_an_encoder_that_needs_divisible_sizes_keeps_smps_check():
    model = build("tu-hrnet_w18_small")
    with pytest.raises(RuntimeError, match=r"height=75, width=107.*divisible by 32"):
        model(torch.randn(1, 3, 75, 107))
    assert model(torch.randn(1, 3, 64, 96)).shape[-2:] == (64, 96)


@pytest.mark.parametrize(
    ("encoder", "given"),
    [
        ("tu-nest_tiny", "1/4, 1/8, 1/16"),
        ("tu-vit_tiny_patch16_224", "1/16, 1/16, 1/16"),
        ("tu-levit_128", "1/16, 1/32, 1/64"),
    ],
)
def test_encoders_without_the_four_scales_are_refused_in_a_sentence(encoder, given):
    with pytest.raises(
        ValueError, match=f"needs features at 1/4, 1/8, 1/16 and 1/32; encoder '{encoder}' gives {given}"
    ):
        HRNetV2(encoder)


def test_reference_start_values_and_momentum_reach_the_whole_model():
    model = build()
    initialize(model, "reference")
    set_bn_momentum(model, 0.01)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.weight.abs().max() < 0.01
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.momentum == 0.01


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("load", [smp.from_pretrained, HRNetV2.from_pretrained], ids=["smp", "class"])
def test_saved_model_comes_back_without_the_hub(no_hub, tmp_path, load):
    model = build(f"{SMALL}_ac", classes=3, in_channels=2, align_corners=True, aux_params={"classes": 2})
    model.config["encoder_weights"] = "imagenet"  # as if it had started from published weights
    model.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["encoder_weights"] is None
    again = load(tmp_path / "model").eval()
    assert isinstance(again, HRNetV2)
    x = torch.randn(1, 2, 50, 70)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(x), model(x), strict=True))


def test_smp_creates_it_by_name():
    model = smp.create_model("hrnetv2", encoder_name=SMALL, encoder_weights=None, classes=5)
    assert isinstance(model, HRNetV2)
    assert hrseg.models.ARCHITECTURES["hrnetv2"] is HRNetV2
    assert smp.MODEL_ARCHITECTURES_MAPPING.items() <= hrseg.models.ARCHITECTURES.items()


@pytest.mark.parametrize("place", ["mapping", "module"])
def test_another_architecture_of_the_name_is_not_overwritten(monkeypatch, place):
    class Other:
        pass

    if place == "mapping":
        monkeypatch.setitem(smp.MODEL_ARCHITECTURES_MAPPING, "hrnetv2", Other)
    else:
        monkeypatch.setattr(smp, "HRNetV2", Other)
    with pytest.raises(RuntimeError, match=r"already has an architecture HRNetV2, .*Other"):
        hrseg.models.register()


def test_export_with_any_batch_and_size():
    model = build(classes=2)
    n, h, w = (torch.export.Dim(name, min=low, max=4096) for name, low in (("n", 1), ("h", 33), ("w", 33)))
    shapes = ({0: n, 2: h, 3: w},)
    exported = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=shapes).module()
    x = torch.randn(3, 3, 75, 107)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x))


def compiled_equals_eager(backend: str) -> None:
    torch.compiler.reset()
    model = build(classes=2)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for size in ((2, 3, 64, 96), (3, 3, 75, 107)):
            x = torch.randn(size)
            torch.testing.assert_close(compiled(x), model(x))


def test_compiles_as_one_graph_for_any_size():
    compiled_equals_eager("eager")


@pytest.mark.long
def test_compiled_code_computes_the_same():
    compiled_equals_eager("inductor")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("aux_params", [None, {"classes": 3}], ids=["logits", "logits and labels"])
def test_torchscript_computes_the_same(aux_params):
    model, x = build(aux_params=aux_params), torch.randn(1, 3, 45, 70)
    outputs = torch.jit.script(model)(x)
    torch.testing.assert_close(outputs, model(x))
