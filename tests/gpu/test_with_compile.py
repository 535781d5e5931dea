"""torch.compile on a GPU. The last file: what it compiles takes minutes."""

from __future__ import annotations

import pytest
import torch

import hrseg
from tests.fast.test_optimize import image, with_sane_weights
from tests.gpu.test_networks import SMALL, apart
from tests.gpu.test_training import losses_of, run_on

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def afresh():
    torch.compiler.reset()


@pytest.mark.parametrize("train", [{}, {"ema": 0.9, "accumulate": 2, "clip_norm": 100.0}], ids=str)
def test_compiled_training_loses_as_much(shapes, device, strict, train):
    expected, found = (losses_of(run_on(device, shapes, compile=compile, **train), 4) for compile in (False, True))
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    assert found[-1] == pytest.approx(expected[-1], rel=0.05)


def test_a_compiled_network_computes_the_same(device, strict):
    model = with_sane_weights(hrseg.HRNetV2(SMALL, classes=7)).to(device)
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        assert apart(compiled(image(64, 96).to(device)), model(image(64, 96).to(device))) < 1e-4
