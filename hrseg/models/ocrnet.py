"""OCRNet: every pixel attends to the object regions it belongs to, over any smp encoder's concatenated features.

Source: Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV 2020 (arXiv 1909.11065).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.hub_mixin import supports_config_loading
from segmentation_models_pytorch.base.initialization import initialize_head
from torch import Tensor, nn

from hrseg.models.four_scale_model import FourScaleModel, TrainOutput
from hrseg.models.hrnetv2 import HRNetV2Head

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

    A region is represented by the weighted mean of its pixels; each pixel attends to the K regions, and the context it
    gathers is concatenated with its own features, context first.
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


class OCRNet(FourScaleModel):
    """Object-contextual representations: image [N, in_channels, H, W] to logits [N, K, H, W].

    The arguments are those of HRNetV2. Training uses both outputs of `forward_train`; the reference weights the
    auxiliary one by 0.4. Raises ValueError as HRNetV2 does.
    Source: HRNet-Semantic-Segmentation, branch HRNet-OCR, where align_corners is True.
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
        encoder_depth: int = 5,
    ):
        super().__init__(
            "ocrnet", encoder_name, encoder_weights, in_channels, upsampling=upsampling, encoder_depth=encoder_depth
        )
        width = sum(self.scale_channels)
        self.aux_head = nn.Sequential(*conv_bn_relu(width, width, bias=True), nn.Conv2d(width, classes, 1))
        self.decoder = OCRDecoder(width)
        self.segmentation_head = HRNetV2Head(
            PIXEL_CHANNELS, classes, activation=activation, align_corners=align_corners
        )
        self.add_classification_head(aux_params)
        self.align_corners = align_corners
        self.initialize()

    def initialize(self) -> None:
        """As smp's, except that both segmentation heads keep torch's own start values, as in the reference code."""
        if self.classification_head is not None:
            initialize_head(self.classification_head)

    def decode(self, features: list[Tensor]) -> Tensor:
        scales = concatenate(features[-4:], self.align_corners)
        return self.decoder(scales, self.aux_head(scales))

    @torch.jit.unused
    def forward_train(self, x: Tensor) -> TrainOutput:
        """Main and auxiliary logits, both of the size that `forward` gives."""
        features = self.features(x)
        scales = concatenate(features[-4:], self.align_corners)
        regions = self.aux_head(scales)
        size = self.logits_size(x, features)
        logits = self.segmentation_head(self.decoder(scales, regions), size)
        aux = F.interpolate(regions, size=size, mode="bilinear", align_corners=self.align_corners)
        return TrainOutput(logits, self.segmentation_head.activation(aux))
