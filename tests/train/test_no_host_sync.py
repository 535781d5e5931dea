"""A training step on a GPU never waits for the device: no value and no copy goes to the host."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hrseg import build
from hrseg.build import optimizer as optim
from hrseg.config import parse
from hrseg.data.loader import Batch, Normalise
from hrseg.task import LabelSpace, Normalisation, SegmentationClass
from hrseg.train.step import LossOfBatch, training_step

SPACE = LabelSpace(tuple(SegmentationClass(f"class {i}", (i, i, i)) for i in range(4)))
NORMALISATION = Normalisation((0.5,) * 3, (0.25,) * 3, ((0.0, 255.0),) * 3)


class NoHost(TorchDispatchMode):
    """Fails where an operation on the device gives a tensor on the host. Values (item, bool) meta tensors refuse."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        on_device = any(isinstance(x, torch.Tensor) and x.is_meta for x in args)
        assert not (on_device and isinstance(result, torch.Tensor) and not result.is_meta), function
        return result


def step(loss: list[dict], **train) -> None:
    """One iteration on the meta device, which stands for any but the CPU."""
    config = parse({"model": {"encoder": "hrnetv2_w18_small_v1", "arch": "ocrnet"}, "loss": loss, "train": train})
    with torch.device("meta"):
        model = build.model(config, SPACE, 3)
        module = LossOfBatch(model, build.criterion(config, SPACE), Normalise(NORMALISATION), config.train)
        image = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
        batch = Batch(image, torch.zeros((2, 64, 64), dtype=torch.uint8), ["a", "b"], [0, 1])
    optimizer, scaler = optim.optimizer(model, config.optim), torch.amp.GradScaler("cpu", enabled=False)
    clip_norm = config.train.clip_norm
    with NoHost():
        training_step(module, optimizer, scaler, batch, accumulate=2, clip_norm=clip_norm, require_finite=False)


@pytest.mark.parametrize("train", [{}, {"clip_norm": 1.0, "recompute": True}], ids=str)
def test_a_step_with_ohem_stays_on_the_device(train, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which knows no meta device
    step([{"name": "ohem"}, {"name": "cross_entropy", "output": "aux", "weight": 0.4}], **train)


def test_a_loss_that_waits_for_the_device_is_caught(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    with pytest.raises(Exception, match="meta"):
        step([{"name": "dice"}])


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_optimizer_is_one_kernel(device):
    with FakeTensorMode(), torch.device(device):
        optimizer = optim.optimizer(torch.nn.Linear(2, 2), parse({}).optim)
    assert [group["fused"] for group in optimizer.param_groups] == [True]
