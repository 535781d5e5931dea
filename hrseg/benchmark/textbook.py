"""The textbook network and hrseg's with the same weights, and what both are compared by."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hrseg
from hrseg.benchmark.plain_scripts.network import CLASSES, Textbook
from hrseg.models.hrnetv2 import REFERENCE_NAMES


def pair(variant: str) -> tuple[Textbook, hrseg.HRNetV2]:
    """The textbook network and hrseg's with the same weights, chosen so that features keep their magnitude."""
    torch.manual_seed(0)
    theirs, ours = Textbook(variant), hrseg.HRNetV2(f"hrnetv2_{variant}_nearest", classes=CLASSES)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    ours.encoder.load_state_dict(theirs.backbone.state_dict())
    head = {f"last_layer.{name}": tensor for name, tensor in theirs.head.state_dict().items()}
    renamed = {
        mine + k.removeprefix(his): t for his, mine in REFERENCE_NAMES for k, t in head.items() if k.startswith(his)
    }
    missing = ours.load_state_dict(renamed, strict=False).missing_keys
    assert all(name.startswith("encoder.") for name in missing)
    return theirs, ours


def macs(model: nn.Module, *inputs: Tensor) -> float:
    """Multiply-adds of all convolutions and matrix products in a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).to("meta")(*(x.to("meta") for x in inputs))
    return counter.get_total_flops() / 2


def difference(a: Tensor, b: Tensor, tolerance: float) -> str:
    """The largest difference as a share of the largest value. Raises AssertionError above the tolerance."""
    share = float((a - b).abs().max() / b.abs().max())
    assert share <= tolerance, f"{share:.1e} of the maximum"
    return f"{share:.0e} of the maximum"
