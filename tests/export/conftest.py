"""A small network in the form that a checkpoint is loaded to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hrseg.build.trained_model import TrainedModel
from hrseg.config import parse
from hrseg.models.hrnetv2 import HRNetV2Decoder, HRNetV2Head
from hrseg.task import LabelSpace, Normalisation, SegmentationClass, Task


class Small(nn.Module):
    """Four scales under the head of HRNetV2. multiple: of the sizes that it takes."""

    def __init__(self, channels: int, outputs: int, multiple: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.ModuleList(nn.Conv2d(8, 8, 3, stride=2, padding=1) for _ in range(3))
        self.decoder = HRNetV2Decoder([8, 8, 8, 8])
        self.segmentation_head = HRNetV2Head(32, outputs)
        self.requires_divisible_input_shape = multiple > 1
        if multiple > 1:
            self.encoder = SimpleNamespace(output_stride=multiple)

    def forward(self, x):
        features = [self.stem(x)]
        for down in self.down:
            features.append(down(features[-1]))
        return self.segmentation_head(self.decoder(features), x.shape[-2:])


@pytest.fixture
def loaded():
    """Makes a model of a task, with 3 classes or labels (binary: 2)."""

    def make(task=Task.MULTICLASS, channels=3, highest=255.0, multiple=1, root="nowhere"):
        torch.manual_seed(0)
        colors = ((90, 90, 90), (220, 40, 40), (40, 60, 220))[: 2 if task is Task.BINARY else 3]
        classes = (SegmentationClass(n, c) for n, c in zip(("ground", "box", "disc"), colors, strict=False))
        space = LabelSpace(tuple(classes), task)
        normalisation = Normalisation((0.5,) * channels, (0.25,) * channels, ((0.0, highest),) * channels)
        model = Small(channels, space.outputs, multiple).eval()
        config = parse({"data": {"root": str(root)}, "augment": {"crop": [64, 96]}})
        return TrainedModel(model, space, normalisation, config, 7)

    return make
