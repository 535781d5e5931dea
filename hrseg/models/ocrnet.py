"""OCRNet: every pixel is told about the object regions it belongs to, over any smp encoder's concatenated features.

Source: Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV 2020 (arXiv 1909.11065).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base import ClassificationHead, SegmentationModel
from segmentation_models_pytorch.base.hub_mixin import supports_config_loading
from segmentation_models_pytorch.base.initialization import initialize_head
from segmentation_models_pytorch.base.utils import is_torch_compiling
from torch import Tensor, nn

from hrseg.models.hrnetv2 import HRNetV2Head, TrainOutput, four_scales, takes_any_size

# How the names of the heads' parameters begin in the reference checkpoints, and here; one to one.
REFERENCE_NAMES = (
    ("aux_head.0.", "aux_head.0."),
    ("aux_head.1.", "aux_head.1."),
    ("aux_head.3.", "aux_head.3."),
    ("conv3x3_ocr.0.", "decoder.pixel.0."),
    ("conv3x3_ocr.1.", "decoder.pixel.1."),
    ("ocr_distri_head.object_context_block.f_pixel.0.", "decoder.query.0."),
    ("ocr_distri_head.object_context_block.f_pixel.1.0.", "decoder.query.1."),
    ("ocr_distri_head.object_context_block.f_pixel.2.", "decoder.query.3."),
    ("ocr_distri_head.object_context_block.f_pixel.3.0.", "decoder.query.4."),
    ("ocr_distri_head.object_context_block.f_object.0.", "decoder.key.0."),
    ("ocr_distri_head.object_context_block.f_object.1.0.", "decoder.key.1."),
    ("ocr_distri_head.object_context_block.f_object.2.", "decoder.key.3."),
    ("ocr_distri_head.object_context_block.f_object.3.0.", "decoder.key.4."),
    ("ocr_distri_head.object_context_block.f_down.0.", "decoder.value.0."),
    ("ocr_distri_head.object_context_block.f_down.1.0.", "decoder.value.1."),
    ("ocr_distri_head.object_context_block.f_up.0.", "decoder.context.0."),
    ("ocr_distri_head.object_context_block.f_up.1.0.", "decoder.context.1."),
    ("ocr_distri_head.conv_bn_dropout.0.", "decoder.mix.0."),
    ("ocr_distri_head.conv_bn_dropout.1.0.", "decoder.mix.1."),
    ("cls_head.", "segmentation_head.conv."),
)
PIXEL_CHANNELS, KEY_CHANNELS, DROPOUT = 512, 256, 0.05


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 1, *, bias: bool = False) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def concatenate(scales: list[Tensor], align_corners: bool) -> Tensor:
    """Features of several scales, finest first, to [N, sum C_i, H, W] at the size of the finest, bilinearly."""
    size = scales[0].shape[-2:]
    resized = scales[:1]
    for coarse in scales[1:]:
        resized.append(F.interpolate(coarse, size=size, mode="bilinear", align_corners=align_corners))
    return torch.cat(resized, dim=1)


class OCRDecoder(nn.Module):
    """Features [N, in_channels, h, w] and coarse logits of the regions [N, K, h, w] to [N, 512, h, w].

    A region is represented by the mean of its pixels; each pixel attends to the K regions, and what it hears is
    concatenated before what it is.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        pixel, key = PIXEL_CHANNELS, KEY_CHANNELS
        self.pixel = nn.Sequential(*conv_bn_relu(in_channels, pixel, 3, bias=True))
        self.query = nn.Sequential(*conv_bn_relu(pixel, key), *conv_bn_relu(key, key))
        self.key = nn.Sequential(*conv_bn_relu(pixel, key), *conv_bn_relu(key, key))
        self.value = nn.Sequential(*conv_bn_relu(pixel, key))
        self.context = nn.Sequential(*conv_bn_relu(key, pixel))
        self.mix = nn.Sequential(*conv_bn_relu(2 * pixel, pixel), nn.Dropout2d(DROPOUT))

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        pixels = self.pixel(x)
        n, _, h, w = pixels.shape
        membership = regions.flatten(2).softmax(dim=2)  # [N, K, h w]: of a region, over the positions
        objects = (pixels.flatten(2) @ membership.transpose(1, 2)).unsqueeze(3)  # [N, 512, K, 1]
        query = self.query(pixels).flatten(2).transpose(1, 2)  # [N, h w, 256]
        key = self.key(objects).flatten(2)  # [N, 256, K]
        value = self.value(objects).flatten(2).transpose(1, 2)  # [N, K, 256]
        attention = (query @ key * key.shape[1] ** -0.5).softmax(dim=2)  # [N, h w, K]
        context = (attention @ value).transpose(1, 2).reshape(n, -1, h, w)
        return self.mix(torch.cat([self.context(context), pixels], dim=1))


class OCRNet(SegmentationModel):
    """Object-contextual representations: image [N, in_channels, H, W] to logits [N, K, H, W].

    The arguments are those of HRNetV2. Training looks at both outputs of `forward_train`; the reference weighs the
    auxiliary one by 0.4. Raises ValueError for another upsampling than 4 or 1, and for an encoder without features at
    1/4 to 1/32. Source: HRNet-Semantic-Segmentation, branch HRNet-OCR, where align_corners is True.
    """

    @supports_config_loading
    def __init__(
        self,
        encoder_name: str = "hrnetv2_w18",
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
        width = sum(channels)
        self.aux_head = nn.Sequential(*conv_bn_relu(width, width, bias=True), nn.Conv2d(width, classes, 1))
        self.decoder = OCRDecoder(width)
        self.segmentation_head = HRNetV2Head(
            PIXEL_CHANNELS, classes, activation=activation, align_corners=align_corners
        )
        self.classification_head = ClassificationHead(channels[-1], **aux_params) if aux_params else None
        self.upsampling = upsampling
        self.align_corners = align_corners
        self.name = f"ocrnet-{encoder_name}"
        self.initialize()

    def initialize(self) -> None:
        """As smp's, except that both segmentation heads keep torch's own start values, as in the reference code."""
        if self.classification_head is not None:
            initialize_head(self.classification_head)

    def forward(self, x):  # TorchScript finds out by itself whether a tensor or a pair comes back
        logits, _, coarsest = self._outputs(x)
        if self.classification_head is not None:
            return logits, self.classification_head(coarsest)
        return logits

    @torch.jit.unused
    def forward_train(self, x: Tensor) -> TrainOutput:
        """Main and auxiliary logits, both of the size that `forward` gives."""
        logits, regions, _ = self._outputs(x)
        size = logits.shape[-2:]
        aux = F.interpolate(regions, size=size, mode="bilinear", align_corners=self.align_corners)
        return TrainOutput(logits, self.segmentation_head.activation(aux))

    def _outputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, the coarse logits of the regions at 1/4, and the encoder's coarsest feature."""
        if not (torch.jit.is_scripting() or torch.jit.is_tracing() or is_torch_compiling()):
            self.check_input_shape(x)
        features = self.encoder(x)
        scales = concatenate(features[-4:], self.align_corners)
        regions = self.aux_head(scales)
        size = x.shape[-2:] if self.upsampling == 4 else scales.shape[-2:]
        return self.segmentation_head(self.decoder(scales, regions), size), regions, features[-1]

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> str | None:
        """As smp's, with encoder_weights null: the weights are in the file, so that loading asks no hub."""
        self.config["encoder_weights"] = None
        return super().save_pretrained(save_directory, *args, **kwargs)
