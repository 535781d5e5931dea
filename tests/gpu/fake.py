"""A GPU that is not there: tensors without values that know their device, so that two devices in one step fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils.data import DataLoader

from hrseg import runtime
from hrseg.build import memory
from hrseg.fast import optimize as fast_form

CUDA = torch.device("cuda", 0)


def _move(module: nn.Module, function, recurse=True) -> nn.Module:
    """As nn.Module._apply, which cannot exchange tensors without values."""
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                each._parameters[name] = nn.Parameter(function(parameter.detach()), parameter.requires_grad)
        for name, buffer in each._buffers.items():
            if buffer is not None:
                each._buffers[name] = function(buffer)
    return module


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.device.type != "cpu":
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu().")
    return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _copied(tensor: torch.Tensor, memo: dict) -> torch.Tensor:
    """As Tensor.__deepcopy__, after which collecting garbage can end the process."""
    copied = tensor.detach().clone()
    memo[id(tensor)] = nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
    return memo[id(tensor)]


@contextlib.contextmanager
def fake_gpu() -> Iterator[list[nn.Parameter]]:
    """Inside, `cuda` is a device on any machine. Values are zeros once they are in numpy; gradients are not computed.

    Backward passes need the real driver: there the parameters in the list that this gives get a gradient each.
    """
    parameters: list[nn.Parameter] = []
    batches = DataLoader.__iter__

    def read(loader: DataLoader) -> Iterator:
        with unset_fake_temporarily():
            return iter(list(batches(loader)))

    def backward(loss: torch.Tensor, *_, **__) -> None:
        assert loss.device == CUDA
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), mode:
        patch.setattr(nn.Module, "_apply", _move)
        patch.setattr(DataLoader, "__iter__", read)
        patch.setattr(torch.Tensor, "backward", backward)
        patch.setattr(FakeTensor, "numpy", _numpy)
        patch.setattr(FakeTensor, "__deepcopy__", _copied)
        patch.setattr(FakeTensor, "__float__", lambda tensor: 0.0)
        patch.setattr(FakeTensor, "__bool__", lambda tensor: True)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(runtime, "pick_device", lambda name: CUDA)
        patch.setattr(memory, "room", lambda device: 2**40)
        patch.setattr(fast_form, "_same", lambda *_: True)
        patch.setattr(
            torch, "bincount", lambda cells, minlength: torch.empty(minlength, dtype=torch.int64, device=CUDA)
        )
        yield parameters
