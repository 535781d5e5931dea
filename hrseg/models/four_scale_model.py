"""What the heads share: an smp model over any encoder that gives features at 1/4, 1/8, 1/16 and 1/32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.base import ClassificationHead, SegmentationModel
from segmentation_models_pytorch.base.utils import is_torch_compiling
from torch import Tensor, nn

from hrseg.models.hrnet import HRNet

STRIDES = (4, 8, 16, 32)
ENCODER_DEPTH = 5  # halvings: the coarsest feature lies at 1/32


class TrainOutput(NamedTuple):
    """The outputs that the loss sees: logits, and those of an auxiliary head where the architecture has one."""

    main: Tensor
    aux: Tensor | None = None


class FourScaleModel(SegmentationModel):
    """Base class: image [N, in_channels, H, W] to logits [N, K, H, W], through `decode` and a segmentation head.

    A subclass makes `decoder` and `segmentation_head` (called with the decoded features and a size), then calls
    `add_classification_head` and `initialize`. upsampling: 4 gives logits at the image's size, 1 at the finest
    feature's (1/4). encoder_depth: an argument of every smp architecture; these heads need all four scales, so 5.
    Raises ValueError for another upsampling or depth, and for an encoder without features at 1/4 to 1/32.
    """

    def __init__(
        self,
        architecture: str,
        encoder_name: str,
        encoder_weights: str | None,
        in_channels: int,
        *,
        upsampling: int,
        encoder_depth: int,
    ):
        if upsampling not in (1, 4):
            raise ValueError(f"upsampling must be 4 (the image's size) or 1 (the finest feature's), not {upsampling}")
        if encoder_depth != ENCODER_DEPTH:
            raise ValueError(
                f"encoder_depth must be {ENCODER_DEPTH}, not {encoder_depth}: "
                f"{architecture} needs features at 1/4, 1/8, 1/16 and 1/32"
            )
        super().__init__()
        self.encoder, self._scale_channels = four_scale_encoder(encoder_name, encoder_weights, in_channels)
        self.requires_divisible_input_shape = not encoder_takes_any_size(self.encoder, in_channels)
        self.upsampling = upsampling
        self.name = f"{architecture}-{encoder_name}"

    @property
    def scale_channels(self) -> list[int]:
        """Channels of the four scales, finest first."""
        return self._scale_channels

    def add_classification_head(self, aux_params: dict[str, Any] | None) -> None:
        """As in smp: with aux_params an image-level classifier, and the model returns (logits, labels)."""
        self.classification_head = ClassificationHead(self._scale_channels[-1], **aux_params) if aux_params else None

    def features(self, x: Tensor) -> list[Tensor]:
        """The encoder's features, after smp's check of the image's size."""
        if not (torch.jit.is_scripting() or torch.jit.is_tracing() or is_torch_compiling()):
            self.check_input_shape(x)
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> Tensor:
        """What the segmentation head classifies, at the size of the finest scale."""
        return self.decoder(features)

    def logits_size(self, x: Tensor, features: list[Tensor]) -> list[int]:
        """Height and width of the logits of image x; to TorchScript a size is a list."""
        return x.shape[-2:] if self.upsampling == 4 else features[-4].shape[-2:]  # type: ignore[return-value]

    def forward(self, x):  # untyped: TorchScript infers whether a tensor or a pair is returned
        features = self.features(x)
        logits = self.segmentation_head(self.decode(features), self.logits_size(x, features))
        if self.classification_head is not None:
            return logits, self.classification_head(features[-1])
        return logits

    @torch.jit.unused
    def forward_train(self, x: Tensor) -> TrainOutput:
        """The logits that `forward` returns, by name; architectures with an auxiliary head add its logits."""
        output = self(x)
        return TrainOutput(output[0] if self.classification_head is not None else output)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> str | None:
        """As smp's, with encoder_weights null: the weights are in the file, so loading asks no hub."""
        self.config["encoder_weights"] = None
        return super().save_pretrained(save_directory, *args, **kwargs)


def four_scale_encoder(encoder_name: str, weights: str | None, in_channels: int) -> tuple[nn.Module, list[int]]:
    """The smp encoder of that name, and the channels of its last four features.

    Raises ValueError unless these lie at 1/4, 1/8, 1/16 and 1/32.
    """
    if encoder_name.startswith("tu-"):
        _check_strides(encoder_name, _timm_strides(encoder_name.removeprefix("tu-")))
    encoder = smp.encoders.get_encoder(encoder_name, in_channels=in_channels, depth=ENCODER_DEPTH, weights=weights)
    if not encoder_name.startswith("tu-"):  # by smp's contract each feature has half the size of the one before
        _check_strides(encoder_name, [2**i for i in range(len(encoder.out_channels))])
    return encoder, list(encoder.out_channels[-4:])


def _timm_strides(name: str) -> list[int]:
    with torch.device("meta"):
        model: Any = timm.create_model(name, features_only=True)
    return model.feature_info.reduction()


def _check_strides(encoder_name: str, strides: Sequence[int]) -> None:
    if tuple(strides[-4:]) != STRIDES:
        given = ", ".join(f"1/{stride}" for stride in strides)
        raise ValueError(f"HRNetV2 needs features at 1/4, 1/8, 1/16 and 1/32; encoder '{encoder_name}' gives {given}.")


def encoder_takes_any_size(encoder: nn.Module, in_channels: int) -> bool:
    """Whether an encoder takes sizes that its stride does not divide: an HRNet does, others are tried out."""
    if isinstance(encoder, HRNet):
        return True
    # Tried on the meta device, which computes nothing.
    state = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    encoder.eval()
    try:
        torch.func.functional_call(encoder, on_meta, torch.empty(1, in_channels, 75, 107, device="meta"))
    except Exception:  # whatever an encoder raises for an odd size: smp's own check then asks for a divisible one
        return False
    finally:
        encoder.train()
    return True
