"""Activation checkpointing: less is kept, nothing else changes."""

from __future__ import annotations

import copy

import torch

import hrseg
from hrseg.build.memory import kept_for_backward
from hrseg.models.recompute import recompute_activations
from tests.fast.test_optimize import SMALL, image, with_sane_weights


def test_losses_gradients_and_statistics_are_the_same_over_three_steps():
    plain = with_sane_weights(hrseg.HRNetV2(SMALL)).train()
    plain.encoder.stage3[0].branches[0].eval()  # frozen
    again = copy.deepcopy(plain)
    assert recompute_activations(again) == 4  # one bottleneck, three modules
    losses = []
    for model in (plain, copy.deepcopy(again)):  # as a running average copies it
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses.append([])
        for _ in range(3):
            loss = model(image(32, 64, batch=2)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(loss.item())
        states = [*plain.state_dict().values()], [*model.state_dict().values()]
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_much_less_is_kept_for_the_backward_pass():
    with torch.device("meta"):
        model = hrseg.HRNetV2(SMALL)
    before = kept_for_backward(model, (1, 3, 64, 64))
    assert recompute_activations(model) == 4
    assert kept_for_backward(model, (1, 3, 64, 64)) < 0.6 * before
