"""Parameter groups, optimizer, learning rate as a function of the step, running average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hrseg.build import piece
from hrseg.config import OptimConfig, check_options
from hrseg.errors import ConfigError

OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Trainable parameters in groups {params, lr_scale, weight_decay}.

    The encoder learns at lr, everything else at lr x head_lr. Without decay_all, biases and one-dimensional weights
    (normalisation layers) have no weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            lr_scale = 1.0 if name.startswith("encoder.") else config.head_lr
            decay = config.weight_decay if config.decay_all or parameter.ndim > 1 else 0.0
            groups.setdefault((lr_scale, decay), []).append(parameter)
    if not groups:
        raise ConfigError("train.freeze", "no parameter is left to learn.", "Freeze fewer modules.")
    return [{"params": ps, "lr_scale": scale, "weight_decay": decay} for (scale, decay), ps in groups.items()]


def optimizer_class(config: OptimConfig) -> tuple[Any, dict[str, Any]]:
    """The class of `optim.name` and its options. Raises ConfigError for unknown names and options."""
    cls = piece(config.name, OPTIMIZERS, where="optim.name", what="optimizer")
    wired = ("params", "lr", "weight_decay")
    return cls, check_options(cls, config.options, where="optim", wired=wired, also=type(config).model_fields)


def optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer of the `optim` section over the model's trainable parameters."""
    cls, kwargs = optimizer_class(config)
    if cls is torch.optim.SGD:
        kwargs |= {"momentum": config.momentum, "nesterov": config.nesterov}
    chosen = kwargs.keys() & {"foreach", "fused", "differentiable"} or kwargs.get("dampening")
    devices = {parameter.device.type for parameter in model.parameters()}
    if cls in OPTIMIZERS.values() and devices in ({"cpu"}, {"cuda"}) and not chosen:
        kwargs["fused"] = True  # all parameters in one kernel
    made = cls(parameter_groups(model, config), lr=config.lr, **kwargs)
    prepare_state(made)
    return made


def prepare_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring the state, a new one or a checkpoint's, into the form that fused kernels rely on.

    They go through memory, so state has to lie there in the order of its parameter; and SGD's want the momentum of
    every parameter or of none, while some may get their first gradient late. Zeros are what torch begins with.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if isinstance(optimizer, torch.optim.SGD) and group["fused"] and group["momentum"]:
                state = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if (
                    isinstance(value, Tensor)
                    and value.shape == parameter.shape
                    and value.stride() != parameter.stride()
                ):
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def learning_rate(step: int, total: int, config: OptimConfig) -> float:
    """The learning rate of iteration `step`, counted from 0, in a run of `total` iterations.

    poly: lr (1 - t)^power and cosine: lr (1 + cos(pi t)) / 2, both shifted so that they end at min_lr; t runs from 0 to
    1 over the iterations after the linear warm-up.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    t = min(1.0, (step - config.warmup) / max(1, total - config.warmup))
    fall = {"poly": (1 - t) ** config.power, "cosine": (1 + math.cos(math.pi * t)) / 2, "constant": 1.0}[
        config.schedule
    ]
    return config.min_lr + (config.lr - config.min_lr) * fall


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


class Ema:
    """Running average of a model's weights and floating-point buffers (batch norm statistics too).

    After step n (from 1) the decay is min(decay, (1 + n) / (10 + n)), so that the first, random weights fade quickly.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for average, value in zip(_tensors(self.model), _tensors(model), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        get_ema_multi_avg_fn(decay)(averages, values, None)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def freeze(model: nn.Module, names: list[str]) -> None:
    """Stop the modules of these dotted names from learning. Raises ConfigError for a name the model does not have."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            children = [n for n in modules if n.count(".") <= 1 and n]
            raise ConfigError(
                "train.freeze", f"the model has no module '{name}'.", f"It has {', '.join(children)}, ..."
            )
        modules[name].requires_grad_(False)


def training_mode(model: nn.Module, *, freeze_bn: bool, frozen: list[str]) -> None:
    """Set training mode, but evaluation mode for frozen modules and, with freeze_bn, for all batch norms."""
    from hrseg.models.hrnet import BATCH_NORMS

    model.train()
    for name, module in model.named_modules():
        is_bn = isinstance(module, BATCH_NORMS)
        if (freeze_bn and is_bn) or name in frozen:
            module.eval()
