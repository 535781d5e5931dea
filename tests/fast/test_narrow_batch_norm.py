"""Batch norm over several pixels at once is batch norm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hrseg
from hrseg.fast import narrow_batch_norm as batch_norm
from hrseg.fast.fused_graph import fuse_model
from hrseg.fast.narrow_batch_norm import WideBatchNorm2d, pixels_at_once, widen_batch_norm
from tests.fast.test_optimize import with_sane_weights


def both(channels):
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(channels, momentum=0.03)
    nn.init.uniform_(plain.weight, -1, 1), nn.init.normal_(plain.bias)
    model = nn.Sequential(copy.deepcopy(plain))
    assert widen_batch_norm(model) == 1
    return plain, model[0]


@pytest.mark.parametrize("shape", [(2, 18, 64, 64), (2, 36, 33, 62), (2, 270, 25, 39), (1, 7, 160, 121)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_gradients_and_statistics_are_those_of_torch(shape, dtype):
    plain, wide = both(shape[1])
    scale, offset = torch.rand(1, shape[1], 1, 1) + 0.5, torch.randn(1, shape[1], 1, 1)
    image = (torch.randn(shape) * scale + offset).to(dtype).contiguous(memory_format=torch.channels_last)
    assert pixels_at_once(image) == {18: 16, 36: 4, 270: 2, 7: 16}[shape[1]]
    direction = torch.randn(shape).to(dtype)  # in another layout
    exact, seen = copy.deepcopy(plain).double(), []
    for norm in (exact, plain, wide):
        kind = torch.float64 if norm is exact else dtype
        x = image.to(kind, memory_format=torch.preserve_format).detach().requires_grad_()
        y = norm(x)
        assert y.dtype == kind and y.is_contiguous(memory_format=torch.channels_last)
        y.backward(direction.to(kind))
        seen.append([y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
    assert plain.num_batches_tracked == wide.num_batches_tracked == 1
    rounding = 2e-6 if dtype == torch.float32 else 2**-8  # of the maximum
    for place, (truth, theirs, ours) in enumerate(zip(*seen, strict=True)):
        # Parameters and statistics see sums of up to half a million values.
        errors = [float((each - truth).abs().max() / truth.abs().max()) for each in (theirs, ours)]
        assert errors[1] <= max(2 * errors[0], rounding if place < 2 else 1e-5), errors


def test_few_values_full_vectors_and_other_layouts_are_left_to_torch():
    def count(*shape, layout=torch.channels_last):
        return pixels_at_once(torch.empty(shape).contiguous(memory_format=layout))

    assert count(2, 18, 64, 64) == 16
    assert count(2, 16, 64, 64) == count(2, 18, 16, 16) == 1
    assert count(2, 18, 64, 64, layout=torch.contiguous_format) == 1
    assert count(2, 1, 512, 512) == 1  # both layouts at once
    model = nn.Sequential(nn.BatchNorm2d(16), nn.BatchNorm2d(18), nn.BatchNorm1d(18))
    assert widen_batch_norm(model) == 1 and type(model[1]) is WideBatchNorm2d


def test_a_network_trains_alike_and_its_fast_form_stays_the_same(monkeypatch):
    monkeypatch.setattr(batch_norm, "WORTH_IT", 0)
    plain = with_sane_weights(hrseg.HRNetV2("hrnetv2_w18_small_v2")).train().to(memory_format=torch.channels_last)
    wide = copy.deepcopy(plain)
    assert widen_batch_norm(wide) > 50 and list(wide.state_dict()) == list(plain.state_dict())
    image = torch.randn(2, 3, 128, 160).contiguous(memory_format=torch.channels_last)
    losses = []
    for model in (plain, wide):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        losses.append([])
        for _ in range(3):
            loss = model(image).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0] != losses[1]
    kinds = [[node.target for node in fuse_model(model.eval()).graph.nodes] for model in (plain, wide)]
    assert len(kinds[0]) == len(kinds[1])
