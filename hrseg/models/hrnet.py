"""The high-resolution network: streams at 1/4, 1/8, 1/16 and 1/32 that run side by side and exchange what they know.

Source: Wang et al., Deep High-Resolution Representation Learning for Visual Recognition, TPAMI 2020 (arXiv 1908.07919).
The names of the parameters are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Variant(NamedTuple):
    """One row of the paper's table of architectures."""

    width: int  # C: the streams have C, 2C, 4C and 8C channels
    bottlenecks: int = 4  # of stage 1
    bottleneck_width: int = 64  # their inner channels; they give four times as many
    modules: tuple[int, int, int] = (1, 4, 3)  # of stages 2, 3 and 4, with two, three and four streams
    blocks: int = 4  # basic blocks of one stream of one module


VARIANTS = {
    "w18_small_v1": Variant(16, bottlenecks=1, bottleneck_width=32, modules=(1, 1, 1), blocks=2),
    "w18_small_v2": Variant(18, bottlenecks=2, modules=(1, 3, 2), blocks=2),
    "w18": Variant(18),
    "w30": Variant(30),
    "w32": Variant(32),
    "w40": Variant(40),
    "w44": Variant(44),
    "w48": Variant(48),
    "w64": Variant(64),
}
STEM_CHANNELS = 64

# How fusion enlarges a coarse stream: mode and align_corners of torch's interpolate. It is a property of the weights:
# swapped, it moves the features by 5 to 14 % of their size.
FUSIONS: dict[str, tuple[str, bool | None]] = {
    "bilinear": ("bilinear", False),  # reference segmentation code, branch pytorch-v1.1; mmsegmentation
    "nearest": ("nearest", None),  # ImageNet classification, timm, human pose, object detection
    "bilinear_ac": ("bilinear", True),  # reference segmentation code, branch HRNet-OCR
}

# What ImageNet and segmentation checkpoints hold beside the network itself.
HEADS = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "last_layer.")

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
Attention = Callable[[int], nn.Module]


def conv_bn(in_channels: int, out_channels: int, *, stride: int = 1, relu: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    layers = [conv, nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, C, H, W] to the same shape.

    attention: makes a module for C channels, between the first ReLU and the second convolution; nothing by default.
    """

    def __init__(self, channels: int, attention: Attention = nn.Identity):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.deattn = attention(channels)  # its name in the checkpoints
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(self.deattn(y)))
        y += x
        return self.relu(y)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut: [N, in_channels, H, W] to [N, 4 width, H, W]."""

    expansion = 4

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()  # its name in the checkpoints; it changes channels, not the size
        if in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu(y)


class Transition(nn.ModuleList):
    """Into the next stage: the streams that are there, and one more at half the size of the last."""

    def __init__(self, before: Sequence[int], after: Sequence[int]):
        kept = [nn.Identity() if a == b else conv_bn(b, a) for b, a in zip(before, after, strict=False)]
        super().__init__([*kept, nn.Sequential(conv_bn(before[-1], after[-1], stride=2))])

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        last = len(streams) - 1
        outputs: list[Tensor] = []
        for r, step in enumerate(self):
            outputs.append(step(streams[min(r, last)]))
        return outputs


class IntoStream(nn.ModuleList):
    """R_r^o = relu(sum_x resize(f_xr(R_x))), one output stream r of a fusion.

    f_xr: from a finer stream x < r, r - x 3x3 convolutions of stride 2; from itself, nothing; from a coarser one, a 1x1
    convolution, then interpolation to the size of stream r, so that every size of image works.
    """

    def __init__(self, channels: Sequence[int], r: int, mode: str, align_corners: bool | None):
        super().__init__(self._f(channels, x, r) for x in range(len(channels)))
        self.r, self.mode, self.align_corners = r, mode, align_corners

    @staticmethod
    def _f(channels: Sequence[int], x: int, r: int) -> nn.Module:
        if x == r:
            return nn.Identity()
        if x > r:
            projection = nn.Conv2d(channels[x], channels[r], 1, bias=False)
            return nn.Sequential(projection, nn.BatchNorm2d(channels[r]))
        halvings = [conv_bn(channels[x], channels[x], stride=2) for _ in range(r - x - 1)]
        return nn.Sequential(*halvings, conv_bn(channels[x], channels[r], stride=2, relu=False))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        size = inputs[self.r].shape[-2:]
        terms: list[Tensor] = []
        for x, f_xr in enumerate(self):
            term = f_xr(inputs[x])
            if x > self.r:
                term = F.interpolate(term, size=size, mode=self.mode, align_corners=self.align_corners)
            terms.append(term)
        total = terms[0] + terms[1]  # anew: the first may be an input
        for term in terms[2:]:
            total += term
        return F.relu(total, inplace=True)


class Fusion(nn.ModuleList):
    """Every stream hears from every other: inputs [N, channels[r], H_r, W_r], outputs of the same shapes.

    outputs: how many streams come out, the finest first; all by default. fusion: a name of FUSIONS.
    """

    def __init__(self, channels: Sequence[int], fusion: str = "bilinear", outputs: int | None = None):
        streams = range(len(channels) if outputs is None else outputs)
        super().__init__(IntoStream(channels, r, *FUSIONS[fusion]) for r in streams)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = []
        for into_r in self:
            outputs.append(into_r(inputs))
        return outputs


class HighResolutionModule(nn.Module):
    """Streams side by side, `blocks` basic blocks each, then a fusion."""

    def __init__(
        self,
        channels: Sequence[int],
        blocks: int,
        fusion: str,
        outputs: int | None = None,
        attention: Attention = nn.Identity,
    ):
        super().__init__()
        branches = (nn.Sequential(*(BasicBlock(c, attention) for _ in range(blocks))) for c in channels)
        self.branches = nn.ModuleList(branches)
        self.fuse_layers = Fusion(channels, fusion, outputs)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        streams: list[Tensor] = []
        for r, branch in enumerate(self.branches):
            streams.append(branch(inputs[r]))
        return self.fuse_layers(streams)


class HRNet(nn.Module):
    """The network: image [N, 3, H, W] to its first `depth` features, each half the size of the one before, rounded up.

    variant: a name of VARIANTS. fusion: a name of FUSIONS. depth: 1 is the stem's feature (64 channels, 1/2); 2 to 5
    add the streams (C, 2C, 4C, 8C channels, 1/4 to 1/32). Modules that feed only absent features do not exist, and
    their entries in a state dict are passed over, like the heads of published checkpoints. attention: of the blocks.
    Raises ValueError for a depth outside 1 to 5. In evaluation any size works, 1x1 included.
    """

    __constants__ = ["stem_only"]  # TorchScript then leaves out what a stem alone does not have

    def __init__(self, variant: str, *, fusion: str = "bilinear", depth: int = 5, attention: Attention = nn.Identity):
        if not 1 <= depth <= 5:
            raise ValueError(f"depth must be from 1 to 5, not {depth}")
        super().__init__()
        shape = VARIANTS[variant]
        widths = [shape.width * 2**r for r in range(4)]
        self.channels = [STEM_CHANNELS, *widths][:depth]
        self.stem_only = depth == 1
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        if self.stem_only:
            return
        self.conv2 = nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        out_of_1 = shape.bottleneck_width * Bottleneck.expansion
        inputs = [STEM_CHANNELS] + [out_of_1] * (shape.bottlenecks - 1)
        self.layer1 = nn.Sequential(*(Bottleneck(channels, shape.bottleneck_width) for channels in inputs))

        def stage(streams: int, modules: int, outputs: int | None = None) -> nn.ModuleList:
            """outputs: of the stage's last module."""
            kept = [None] * (modules - 1) + [outputs]
            channels = widths[:streams]
            return nn.ModuleList(HighResolutionModule(channels, shape.blocks, fusion, k, attention) for k in kept)

        self.transition1 = Transition([out_of_1], widths[:2])
        self.stage2 = stage(2, shape.modules[0])
        self.transition2 = Transition(widths[:2], widths[:3])
        self.stage3 = stage(3, shape.modules[1])
        self.transition3 = Transition(widths[:3], widths)
        self.stage4 = stage(4, shape.modules[2], outputs=depth - 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """The stem's feature and the streams, finest first."""
        stem = self.relu(self.bn1(self.conv1(x)))
        if self.stem_only:
            return [stem]
        x = self.relu(self.bn2(self.conv2(stem)))
        streams = self.transition1([self.layer1(x)])
        for module in self.stage2:
            streams = module(streams)
        streams = self.transition2(streams)
        for module in self.stage3:
            streams = module(streams)
        streams = self.transition3(streams)
        for module in self.stage4:
            streams = module(streams)
        return [stem] + streams  # noqa: RUF005 (TorchScript knows no [stem, *streams])

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.features(x)

    def absent_names(self) -> tuple[str, ...]:
        """How the names of entries begin that a complete checkpoint has and this network does without."""
        if self.stem_only:
            return (*HEADS, "conv2.", "bn2.", "layer1.", "transition", "stage")
        last, outputs = len(self.stage4) - 1, len(self.channels) - 1
        return (*HEADS, *(f"stage4.{last}.fuse_layers.{r}." for r in range(outputs, 4)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Here and not in load_state_dict, which torch does not call for a network inside a model.
        absent = tuple(prefix + name for name in self.absent_names())
        for key in [k for k in state_dict if k.startswith(absent)]:
            del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)


def initialize(model: nn.Module, init: Literal["default", "reference"], *, pretrained_encoder: bool = False) -> None:
    """Start values of a model that is to be trained.

    default: as its modules were built. reference: convolution weights from N(0, 0.001), batch norm weight 1 and bias 0.
    pretrained_encoder: leaves `model.encoder` as it is. Source: HRNet-Semantic-Segmentation, all branches.
    """
    if init == "default":
        return
    spared = set(model.get_submodule("encoder").modules()) if pretrained_encoder else set()
    for module in model.modules():
        if module in spared:
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.001)
        elif isinstance(module, BATCH_NORMS):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def set_bn_momentum(model: nn.Module, momentum: float) -> None:
    """The share of a batch in the running statistics, for every batch norm of a model (torch's own default is 0.1)."""
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.momentum = momentum
