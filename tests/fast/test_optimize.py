"""The fast form is the same function, in fewer steps, and leaves the model alone."""

from __future__ import annotations

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import hrseg
from hrseg.errors import ConfigError
from hrseg.fast import engines, fused_graph
from hrseg.fast.optimize import optimize
from tests.models.reference import reference_tensor

SMALL = "hrnetv2_w18_small_v1"
BACKENDS = ["torch", *engines.ENGINES]


def with_sane_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Weights and batch norm statistics under which features keep their size."""
    model.load_state_dict({name: reference_tensor(name, [*t.shape]) for name, t in model.state_dict().items()})
    return model.eval()


def image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest, as a share of the largest value."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def model():
    return with_sane_weights(hrseg.HRNetV2(SMALL))


def skip_if_missing(backend: str) -> None:
    if backend != "torch" and backend not in engines.installed_engines("fp32"):
        pytest.skip(f"{backend} is not installed")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("architecture", "suffix"), [(hrseg.HRNetV2, ""), (hrseg.HRNetV2, "_nearest"), (hrseg.OCRNet, "_ac")]
)
def test_logits_are_those_of_the_model(architecture, suffix, backend):
    skip_if_missing(backend)
    model = with_sane_weights(architecture(SMALL + suffix, classes=7, align_corners=suffix == "_ac"))
    fast = optimize(model, backend)
    for size in ((64, 96), (75, 107)):  # the second is odd at every scale
        with torch.inference_mode():
            expected = model(image(*size, batch=2))
        for _ in range(2):  # the first answer of a size is torch's
            assert difference(fast(image(*size, batch=2)), expected) < 1e-5


SIGNALS = f"""
import gc, os, signal, torch, hrseg
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
fast = hrseg.optimize(hrseg.HRNetV2("{SMALL}"), "openvino")
for width in (32, 64, 96):
    fast(torch.zeros(1, 3, 32, width))
del fast
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_is_handled_after_engines_of_several_sizes_are_gone():
    """Such as that of a data loader's worker which has ended, after a validation."""
    pytest.importorskip("openvino")
    run = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "handled\n"), run.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        {"encoder_name": f"{SMALL}_psa_s"},
        {"encoder_name": "resnet18"},
        {"encoder_name": SMALL, "in_channels": 5, "upsampling": 1},
        {"encoder_name": SMALL, "activation": "sigmoid"},
    ],
    ids=str,
)
def test_other_encoders_and_options_keep_their_function(arguments):
    model = with_sane_weights(hrseg.HRNetV2(**arguments))
    x = torch.randn(1, arguments.get("in_channels", 3), 64, 96)
    with torch.inference_mode():
        assert difference(optimize(model, "torch")(x), model(x)) < 1e-5


def test_a_size_that_the_encoder_refuses_is_padded_and_cut():
    fast = optimize(with_sane_weights(hrseg.HRNetV2("resnet18")), "torch")
    assert fast(image(50, 70)).shape == (1, 19, 50, 70)


def test_labels_of_an_image_come_beside_the_logits():
    model = with_sane_weights(hrseg.HRNetV2(SMALL, aux_params={"classes": 3}))
    with torch.inference_mode():
        pairs = zip(optimize(model)(image(64, 64)), model(image(64, 64)), strict=True)
        assert all(difference(fast, slow) < 1e-5 for fast, slow in pairs)


def test_a_model_whose_course_depends_on_its_values_is_run_as_it_is():
    class Branching(hrseg.HRNetV2):
        def forward(self, x):
            return super().forward(x if x.mean() > 0 else -x)

    model = with_sane_weights(Branching(SMALL))
    with torch.inference_mode():
        assert difference(optimize(model)(image(64, 64)), model(image(64, 64))) < 1e-5


def test_the_model_stays_as_it_is_and_its_later_changes_do_not_show():
    model = with_sane_weights(hrseg.HRNetV2(SMALL)).train()
    model.encoder.bn1.eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    fast = optimize(model, "torch")
    expected = fast(image(64, 64)).clone()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes and "check_input_shape" not in vars(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(fast(image(64, 64)), expected)


def test_an_engine_is_prepared_when_a_size_comes_again(model, monkeypatch):
    if not engines.installed_engines("fp32"):
        pytest.skip("no engine is installed")
    fast = optimize(model)
    prepared, prepare = [], engines.prepare_engine

    def spy(name, form, shape, *more):
        prepared.append(shape)
        return prepare(name, form, shape, *more)

    monkeypatch.setattr(engines, "prepare_engine", spy)
    for size in ((32, 32), (32, 64), (32, 64), (32, 64)):
        fast(image(*size))
    assert [tuple(shape[-2:]) for shape in prepared] == [(32, 64)]


def test_an_engine_that_answers_something_else_is_left(model, monkeypatch, caplog):
    if not engines.installed_engines("fp32"):
        pytest.skip("no engine is installed")
    fast = optimize(model)
    monkeypatch.setattr(engines, "prepare_engine", lambda *_: lambda x: torch.zeros(1, 19, *x.shape[-2:]))
    answers = [fast(image(32, 32)) for _ in range(3)]
    assert fast.backend == "torch" and all(torch.equal(a, answers[0]) for a in answers)
    assert "goes on without it" in caplog.text


def test_a_backend_that_is_not_installed_is_named_with_the_way_out(model, monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert optimize(model).backend == "torch"
    with pytest.raises(ConfigError, match=r"openvino is not installed \(pip install 'hrseg\[openvino\]'\)"):
        optimize(model, "openvino")


@pytest.mark.parametrize("wrong", [{"backend": "tensorflow"}, {"precision": "int8"}])
def test_an_unknown_backend_or_precision_is_refused(model, wrong):
    with pytest.raises(ConfigError, match="Known: "):
        optimize(model, **wrong)


def test_bf16_gives_float32_logits_near_those_of_fp32(model):
    expected = optimize(model, "torch")(image(64, 96))
    assert difference(optimize(model, "torch", "bf16")(image(64, 96)), expected) < 0.03


class Operations(TorchDispatchMode):
    """Counts operations that do work, and remembers the shapes that they give."""

    def __init__(self):
        super().__init__()
        self.count, self.shapes = 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view and function is not torch.ops.aten.detach.default:
            self.count += 1
            self.shapes |= {tuple(result.shape)} if isinstance(result, torch.Tensor) else set()
        return result


def test_a_w18_takes_few_steps_and_never_holds_its_widest_features():
    model, x = hrseg.HRNetV2("hrnetv2_w18").eval(), image(32, 32)
    form = fused_graph.fuse_model(model)
    with torch.inference_mode(), Operations() as plain:
        model(x)
    with torch.inference_mode(), Operations() as fast:
        form(x)
    assert fast.count <= 780 and plain.count >= 1000
    steps = [node for node in form.graph.nodes if node.target in fused_graph.FRESH]
    assert len(steps) <= 345
    assert any(shape[1] == 270 for shape in plain.shapes) and not any(shape[1:2] == (270,) for shape in fast.shapes)


def test_weights_keep_an_order_that_serves_every_image_size(model):
    form = fused_graph.in_channels_last(fused_graph.fuse_model(model), torch.float32)
    weights = [weight for weight in form.buffers() if weight.ndim == 4]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not any(weight.is_mkldnn for weight in weights)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_get_each_its_own_answer(model, backend):
    skip_if_missing(backend)
    fast, images = optimize(model, backend), [image(64, 64) * scale for scale in (1, 2, 3, 4)]
    expected = [fast(each) for each in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for answer, right in zip(pool.map(fast, images), expected, strict=True):
                assert difference(answer, right) < 1e-5


def test_a_batch_norm_with_an_activation_inside_keeps_it():
    model = with_sane_weights(hrseg.HRNetV2("tu-mobilenetv3_small_050", encoder_weights=None))
    assert any(type(module).__name__ == "BatchNormAct2d" for module in model.modules())
    assert isinstance(
        optimize(model, "torch")._torch, torch.fx.GraphModule
    )  # it is followed, and was found to be the same
