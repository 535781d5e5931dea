"""Models whose every tensor matters, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hrseg import weights
from hrseg.models.c1 import C1
from hrseg.models.classifier import HRNetClassifier, IncreasedHRNet
from hrseg.models.detection import HRNetV2p
from hrseg.models.hrnetv2 import HRNetV2
from hrseg.models.ocrnet import OCRNet
from hrseg.models.pose import PoseHRNet

SMALL = "hrnetv2_w18_small_v1"
ODD = (75, 107)


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with statistics, biases and gammas (negative ones too) that are not those it starts with."""
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", ".bias")):
            tensor.normal_(0, 0.1)
        elif tensor.ndim == 1:
            tensor.uniform_(-1.5, 1.5)
    return model.eval()


def built(architecture: str, encoder: str = SMALL) -> nn.Module:
    """An architecture with tensors that are always the same ones."""
    torch.manual_seed(0)
    nearest = f"{encoder}_nearest"
    return shaken(
        {
            "hrnetv2": lambda: HRNetV2(encoder, classes=19),
            "ocrnet": lambda: OCRNet(f"{encoder}_ac", classes=19, align_corners=True),
            "ocrnet_bilinear": lambda: OCRNet(encoder, classes=19),
            "c1": lambda: C1(encoder, classes=150),
            "classifier": lambda: HRNetClassifier(nearest),
            "increased": lambda: IncreasedHRNet(nearest),
            "pose": lambda: PoseHRNet(nearest),
            "detection": lambda: HRNetV2p(nearest),
        }[architecture]()
    )


def outputs(model: nn.Module, size: tuple[int, int] = ODD, channels: int = 3) -> list[Tensor]:
    """All that a model gives for one image."""
    image = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = model.forward_train(image) if hasattr(model, "forward_train") else model(image)
    if isinstance(given, Mapping):
        given = list(given.values())
    return [given] if isinstance(given, Tensor) else [t for t in given if t is not None]


def assert_same(one: nn.Module, other: nn.Module, size: tuple[int, int] = ODD) -> None:
    pairs = list(zip(outputs(one, size), outputs(other, size), strict=True))
    assert pairs
    for a, b in pairs:
        assert (a - b).abs().max() <= 2e-5 * b.abs().max()


def official(model: nn.Module, tmp_path: Path, **beside: Any) -> Path:
    """A model's file as the official training script leaves it."""
    path = tmp_path / "best.pth"
    weights.save(model, path, "official")
    tensors = torch.load(path, weights_only=True) | {"loss.criterion.weight": torch.ones(19)}
    torch.save({"state_dict": tensors, **beside} if beside else tensors, path)
    return path
