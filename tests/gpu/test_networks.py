"""Networks on a GPU, forward and backward, in each precision and layout, and their fast form with its recordings."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import hrseg
from hrseg.fast.optimize import MAX_SIZES, optimize
from hrseg.runtime import PRECISIONS
from tests.fast.test_optimize import image, with_sane_weights

pytestmark = pytest.mark.gpu
SMALL = "hrnetv2_w18_small_v1"
NETWORKS = {
    "bilinear": lambda: hrseg.HRNetV2(SMALL, classes=7),
    "nearest": lambda: hrseg.HRNetV2(f"{SMALL}_nearest", classes=7),
    "ocr": lambda: hrseg.OCRNet(f"{SMALL}_ac", classes=7, align_corners=True),
    "psa parallel": lambda: hrseg.HRNetV2(f"{SMALL}_psa_p", classes=7),
    "psa sequential": lambda: hrseg.HRNetV2(f"{SMALL}_psa_s", classes=7),
}
SIZES = ((64, 96), (75, 107))  # the second is odd at every scale
# The share of the norm by which logits and gradients may differ from float64: rounding to 24, 11, 8 and 11 bits.
BOUNDS = {"fp32": (1e-4, 1e-3), "tf32": (1e-2, 5e-2), "bf16": (5e-2, 0.3), "fp16": (1e-2, 5e-2)}


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The norm of the difference as a share of the norm."""
    return float((a.double().cpu() - b.double().cpu()).norm() / b.double().cpu().norm())


def logits_and_gradient(model: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(x)
    parameters = [p for p in model.parameters() if p.requires_grad]
    weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).reshape(logits.shape).to(logits)
    gradients = torch.autograd.grad((logits * weights).mean(), parameters, allow_unused=True)
    return logits.detach(), torch.cat([g.detach().double().cpu().flatten() for g in gradients if g is not None])


@functools.cache
def exact(network: str, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    model = with_sane_weights(NETWORKS[network]()).double()
    return logits_and_gradient(model, image(*size, batch=2).double())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_forward_and_backward(network, size, precision, layout, device, strict, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", precision == "tf32")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    model = with_sane_weights(NETWORKS[network]()).to(device).to(memory_format=layout)
    x = image(*size, batch=2).to(device).contiguous(memory_format=layout)
    autocast = PRECISIONS.get(precision, torch.float32)
    with torch.autocast(device.type, autocast, enabled=precision in ("bf16", "fp16")):
        logits, gradient = logits_and_gradient(model, x)
    expected, wanted = exact(network, size)
    of_logits, of_gradient = BOUNDS[precision]
    assert apart(logits, expected) < of_logits
    assert apart(gradient, wanted) < of_gradient


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_fast_form_and_its_recordings(network, precision, cuda, strict):
    model = with_sane_weights(NETWORKS[network]()).to(cuda)
    fast = optimize(model, "torch", precision)
    for size in SIZES:
        images = [image(*size, batch=2).to(cuda) * scale for scale in (1, 2, 3, 4)]
        answers = [fast(x) for x in images]  # from the third on replayed; none may overwrite an earlier one
        for x, answer in zip(images, answers, strict=True):
            with torch.inference_mode():
                assert apart(answer, model(x)) < {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}[precision]
    assert len(fast._engines) == len(SIZES), "not recorded"


def test_at_most_eight_sizes_are_recorded_and_others_answered(cuda):
    model = with_sane_weights(hrseg.HRNetV2(SMALL)).to(cuda)
    fast = optimize(model, "torch")
    for _ in range(3):
        for n in range(MAX_SIZES + 2):
            x = image(32, 32 + 16 * n).to(cuda)
            with torch.inference_mode():
                assert apart(fast(x), model(x)) < 1e-2
    assert len(fast._engines) == MAX_SIZES


def test_threads_get_each_its_own_answer(cuda):
    fast = optimize(with_sane_weights(hrseg.HRNetV2(SMALL)).to(cuda), "torch")
    images = [image(64, 64).to(cuda) * scale for scale in (1, 2, 3, 4)]
    expected = [fast(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            assert all(apart(a, b) < 1e-2 for a, b in zip(pool.map(fast, images), expected, strict=True))
