"""Learning rate, parameter groups, running average, freezing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hrseg.build import optimizer as optim
from hrseg.config import OptimConfig
from hrseg.errors import ConfigError


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


def test_poly_starts_at_the_base_rate_and_falls_to_the_least():
    config = OptimConfig(lr=0.01, schedule="poly", power=0.9, min_lr=1e-4)
    assert optim.learning_rate(0, 1000, config) == pytest.approx(0.01)
    assert optim.learning_rate(500, 1000, config) == pytest.approx(1e-4 + (0.01 - 1e-4) * 0.5**0.9)
    assert optim.learning_rate(1000, 1000, config) == pytest.approx(1e-4)


def test_a_run_that_goes_on_too_long_keeps_a_real_rate():
    assert optim.learning_rate(1001, 1000, OptimConfig(schedule="poly")) == 0.0


def test_cosine_is_halfway_in_the_middle():
    assert optim.learning_rate(50, 100, OptimConfig(lr=1, schedule="cosine")) == pytest.approx(0.5)


def test_warmup_rises_linearly_to_the_base_rate():
    config = OptimConfig(lr=1, schedule="constant", warmup=4)
    assert [optim.learning_rate(step, 100, config) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_the_head_learns_faster_and_norms_do_not_decay():
    groups = optim.parameter_groups(Small(), OptimConfig(head_lr=10, weight_decay=0.1, decay_all=False))
    found = {(g["lr_scale"], g["weight_decay"]): len(g["params"]) for g in groups}
    assert found == {(1.0, 0.1): 1, (1.0, 0.0): 3, (10.0, 0.1): 1, (10.0, 0.0): 1}


def test_by_default_everything_decays_alike():
    assert len(optim.parameter_groups(Small(), OptimConfig())) == 1


def test_options_of_the_optimizer_are_checked():
    with pytest.raises(ConfigError, match=r"optim\.beta: no such setting\. Did you mean 'betas'"):
        optim.optimizer(Small(), OptimConfig(name="adamw", beta=(0.9, 0.99)))


def test_running_average_follows_weights_and_statistics():
    model = Small()
    ema = optim.Ema(model, decay=0.5)
    before = ema.model.head.weight.clone()
    with torch.no_grad():
        model.head.weight += 1
        model.encoder[1].running_mean += 1
    ema.update(model, step=100)
    assert torch.allclose(ema.model.head.weight, before + 0.5)
    assert torch.allclose(ema.model.encoder[1].running_mean, torch.full((4,), 0.5))


def test_early_steps_are_forgotten_quickly():
    model = Small()
    ema = optim.Ema(model, decay=0.999)
    with torch.no_grad():
        model.head.bias.fill_(1)
        ema.model.head.bias.fill_(0)
    ema.update(model, step=1)
    assert torch.allclose(ema.model.head.bias, torch.full((2,), 1 - 2 / 11))


def test_frozen_modules_neither_learn_nor_change_their_statistics():
    model = Small()
    optim.freeze(model, ["encoder"])
    optim.training_mode(model, freeze_bn=False, frozen=["encoder"])
    before = model.encoder[1].running_mean.clone()
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    assert model.encoder[0].weight.grad is None and model.head.weight.grad is not None
    assert torch.equal(model.encoder[1].running_mean, before)


def test_freezing_a_module_that_is_not_there_names_those_that_are():
    with pytest.raises(ConfigError, match=r"no module 'encoder\.layer9'.*encoder"):
        optim.freeze(Small(), ["encoder.layer9"])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_first_gradient_that_comes_late_and_state_in_another_order_of_memory_change_nothing(name):
    """Both are beyond what torch's fused kernels do by themselves."""

    def steps(fused):
        torch.manual_seed(0)
        model = nn.ModuleDict({"encoder": nn.Conv2d(4, 4, 3), "head": nn.Conv2d(4, 4, 3)})
        config = OptimConfig(name=name, lr=0.1, weight_decay=0.01, **{} if fused else {"fused": False})
        optimizer = optim.optimizer(model, config)
        assert bool(optimizer.param_groups[0]["fused"]) == fused
        for step in range(4):
            if step == 2:  # as a run that goes on with another train.channels_last
                saved = optimizer.state_dict()
                model = model.to(memory_format=torch.channels_last)
                optimizer = optim.optimizer(model, config)
                optimizer.load_state_dict(saved)
                optim.prepare_state(optimizer)
            for part in ("encoder", "head")[: step + 1]:
                for parameter in model[part].parameters():
                    gradient = torch.randn(parameter.shape)
                    parameter.grad = torch.empty_like(parameter).copy_(gradient)
            optimizer.step()
            optimizer.zero_grad()
        return [parameter.detach().contiguous() for parameter in model.parameters()]

    for fused, plain in zip(steps(True), steps(False), strict=True):
        assert torch.allclose(fused, plain, rtol=1e-5, atol=1e-6)
