"""HRNetV2: every scale of an encoder brought to the finest, concatenated, mixed by a 1x1 convolution, classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base import ClassificationHead, SegmentationModel
from segmentation_models_pytorch.base.hub_mixin import supports_config_loading
from segmentation_models_pytorch.base.modules import Activation
from segmentation_models_pytorch.base.utils import is_torch_compiling
from torch import Tensor, nn

from hrseg.models.hrnet import HRNet

# The head's parameters in the reference checkpoints, and here.
REFERENCE_NAMES = (
    ("last_layer.0.", "decoder.conv."),
    ("last_layer.1.", "decoder.bn."),
    ("last_layer.3.", "segmentation_head.conv."),
)
STRIDES = (4, 8, 16, 32)


class TrainOutput(NamedTuple):
    """What training looks at: logits, and those of an auxiliary head where the architecture has one."""

    main: Tensor
    aux: Tensor | None = None


class HRNetV2Decoder(nn.Module):
    """Features [N, C_i, H / 2^i, W / 2^i], i = 2 to 5, to [N, sum C_i, H / 4, W / 4]: resized, concatenated, mixed.

    The paper resizes, concatenates, then mixes by a 1x1 convolution. The two commute, conv(cat(up(x_i))) =
    sum_i up(conv_i(x_i)), and x_i has 4^(i-2) times fewer pixels: each scale is mixed first, then resized and added.
    The parameters are those of the one convolution.
    """

    def __init__(self, in_channels: Sequence[int], *, align_corners: bool = False):
        super().__init__()
        width = sum(in_channels)
        self.in_channels = list(in_channels)
        self.align_corners = align_corners
        self.conv = nn.Conv2d(width, width, 1)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        scales = features[-4:]
        size = scales[0].shape[-2:]
        weights = self.conv.weight.split(self.in_channels, dim=1)
        mixed = F.conv2d(scales[0], weights[0], self.conv.bias)
        for coarse, weight in zip(scales[1:], weights[1:]):  # noqa: B905 (TorchScript)
            part = F.conv2d(coarse, weight)
            mixed += F.interpolate(part, size=size, mode="bilinear", align_corners=self.align_corners)
        return self.relu(self.bn(mixed))


class HRNetV2Head(nn.Module):
    """A 1x1 convolution to the classes, bilinear interpolation to `size`, an activation."""

    def __init__(
        self, in_channels: int, classes: int, *, activation: str | Callable | None = None, align_corners: bool = False
    ):
        super().__init__()
        self.align_corners = align_corners
        self.conv = nn.Conv2d(in_channels, classes, 1)
        self.activation = Activation(activation)

    def forward(self, x: Tensor, size: list[int]) -> Tensor:
        logits = F.interpolate(self.conv(x), size=size, mode="bilinear", align_corners=self.align_corners)
        return self.activation(logits)


class HRNetV2(SegmentationModel):
    """HRNetV2 over any smp encoder with features at 1/4 to 1/32: image [N, in_channels, H, W] to logits [N, K, H, W].

    encoder_name: e.g. hrnetv2_w48, resnet50, tu-convnext_tiny. upsampling: 4 gives logits at the image's size, 1 at the
    finest feature's (1/4). align_corners: of every interpolation in the head; fusion inside the encoder goes by its
    name. aux_params: as in smp, an image-level classifier beside; the model then returns (logits, labels).
    Raises ValueError for another upsampling, and for an encoder without these scales.
    Source: HRNet-Semantic-Segmentation, branch pytorch-v1.1.
    """

    @supports_config_loading
    def __init__(
        self,
        encoder_name: str,
        encoder_weights: str | None = None,
        in_channels: int = 3,
        classes: int = 19,
        activation: str | Callable | None = None,
        upsampling: int = 4,
        align_corners: bool = False,
        aux_params: dict[str, Any] | None = None,
    ):
        if upsampling not in (1, 4):
            raise ValueError(f"upsampling must be 4 (the image's size) or 1 (the finest feature's), not {upsampling}")
        super().__init__()
        self.encoder, channels = four_scales(encoder_name, encoder_weights, in_channels)
        self.requires_divisible_input_shape = not takes_any_size(self.encoder, in_channels)
        self.decoder = HRNetV2Decoder(channels, align_corners=align_corners)
        self.segmentation_head = HRNetV2Head(sum(channels), classes, activation=activation, align_corners=align_corners)
        self.classification_head = ClassificationHead(channels[-1], **aux_params) if aux_params else None
        self.upsampling = upsampling
        self.name = f"hrnetv2-{encoder_name}"
        self.initialize()

    def forward(self, x):  # TorchScript finds out by itself whether a tensor or a pair comes back
        if not (torch.jit.is_scripting() or torch.jit.is_tracing() or is_torch_compiling()):
            self.check_input_shape(x)
        features = self.encoder(x)
        size = x.shape[-2:] if self.upsampling == 4 else features[-4].shape[-2:]
        logits = self.segmentation_head(self.decoder(features), size)
        if self.classification_head is not None:
            return logits, self.classification_head(features[-1])
        return logits

    @torch.jit.unused
    def forward_train(self, x: Tensor) -> TrainOutput:
        """The logits that `forward` returns, by name; architectures with an auxiliary head add its own."""
        output = self(x)
        return TrainOutput(output[0] if self.classification_head is not None else output)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> str | None:
        """As smp's, with encoder_weights null: the weights are in the file, so that loading asks no hub."""
        self.config["encoder_weights"] = None
        return super().save_pretrained(save_directory, *args, **kwargs)


def four_scales(encoder_name: str, weights: str | None, in_channels: int) -> tuple[nn.Module, list[int]]:
    """The smp encoder of that name, and the channels of its last four features.

    Raises ValueError unless these lie at 1/4, 1/8, 1/16 and 1/32.
    """
    if encoder_name.startswith("tu-"):
        _check_scales(encoder_name, _timm_strides(encoder_name.removeprefix("tu-")))
    encoder = smp.encoders.get_encoder(encoder_name, in_channels=in_channels, depth=5, weights=weights)
    if not encoder_name.startswith("tu-"):  # by smp's contract each feature has half the size of the one before
        _check_scales(encoder_name, [2**i for i in range(len(encoder.out_channels))])
    return encoder, list(encoder.out_channels[-4:])


def _timm_strides(name: str) -> list[int]:
    with torch.device("meta"):
        model: Any = timm.create_model(name, features_only=True)
    return model.feature_info.reduction()


def _check_scales(encoder_name: str, strides: Sequence[int]) -> None:
    if tuple(strides[-4:]) != STRIDES:
        given = ", ".join(f"1/{stride}" for stride in strides)
        raise ValueError(f"HRNetV2 needs features at 1/4, 1/8, 1/16 and 1/32; encoder '{encoder_name}' gives {given}.")


def takes_any_size(encoder: nn.Module, in_channels: int) -> bool:
    """Whether an encoder takes sizes that its stride does not divide: known of HRNet, tried on the meta device else."""
    if isinstance(encoder, HRNet):
        return True
    state = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    encoder.eval()
    try:
        torch.func.functional_call(encoder, on_meta, torch.empty(1, in_channels, 75, 107, device="meta"))
    except Exception:  # whatever an encoder says about an odd size: smp's own check then asks for a divisible one
        return False
    finally:
        encoder.train()
    return True
