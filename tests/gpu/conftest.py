"""Tests on a GPU: skipped where there is none. HRSEG_TEST_DEVICE=cpu runs what of them runs there, to try the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

DEVICE = os.environ.get("HRSEG_TEST_DEVICE", "cuda")


@pytest.fixture(autouse=True)
def _needs_gpu(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") and DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def device() -> torch.device:
    return torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device(DEVICE)


@pytest.fixture
def cuda(device) -> torch.device:
    if device.type != "cuda":
        pytest.skip("of CUDA alone")
    return device


@pytest.fixture
def strict(monkeypatch) -> Iterator[None]:
    """float32 without TF32, as on the CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)
