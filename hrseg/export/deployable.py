"""The whole path from stored pixel values to logits or class indices, as one module."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.build.trained_model import TrainedModel
from hrseg.data.loader import Normalise
from hrseg.inference import logit
from hrseg.runtime import PRECISIONS


class Deployed(nn.Module):
    """forward(image [N, C, H, W]) -> float32 logits [N, K, H, W], or class indices, uint8 [N, H, W].

    argmax: class indices, by the model's threshold where it has one;
    for multilabel {0, 1} [N, L, H, W]; int64 for more than 256 classes. normalised: the image is
    float32 and already normalised; otherwise it has its stored values. Inside, the image is padded to a size that the
    network takes, and the result cropped. precision: of the network, "fp32", "fp16" or "bf16".
    """

    def __init__(
        self, loaded: TrainedModel, *, argmax: bool = False, normalised: bool = False, precision: str = "fp32"
    ):
        super().__init__()
        self.precision = PRECISIONS[precision]
        self.normalised = normalised
        normalise = Normalise(loaded.normalisation)
        self.register_buffer("center", normalise.center)
        self.register_buffer("scale", normalise.scale)
        self.model = copy.deepcopy(loaded.model).to(self.precision).eval()
        self.multiple = size_multiple(loaded.model)
        self.argmax, self.task, self.cut = argmax, loaded.space.task.value, logit(loaded.threshold)
        self.label_type = torch.uint8 if len(loaded.space.classes) <= 256 else torch.int64

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2], image.shape[-1]
        x = image if self.normalised else (image.to(torch.float32) - self.center) * self.scale  # type: ignore[operator]
        if self.multiple > 1:
            x = F.pad(x, [0, -width % self.multiple, 0, -height % self.multiple])
        logits = self.model(x.to(self.precision)).float()
        if self.multiple > 1:  # a slice would tell torch.export that the size is, or is not, a multiple
            rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
            logits = logits.index_select(2, rows).index_select(3, columns)
        if not self.argmax:
            return logits
        if self.task == "multiclass":
            return logits.argmax(dim=1).to(self.label_type)
        labels = (logits > self.cut).to(torch.uint8)
        return labels.squeeze(1) if self.task == "binary" else labels


def size_multiple(model: nn.Module) -> int:
    """The number that height and width must be multiples of inside the network; 1 where it takes any size."""
    if not getattr(model, "requires_divisible_input_shape", False):
        return 1
    return int(model.encoder.output_stride)  # type: ignore[union-attr, arg-type]


def input_type(loaded: TrainedModel, normalised: bool = False) -> torch.dtype:
    """The type of an image: uint8 or uint16 where the model takes all of that type's range, else float32."""
    ranges = set(loaded.normalisation.input_range)
    if normalised or len(ranges) > 1:
        return torch.float32
    return {(0.0, 255.0): torch.uint8, (0.0, 65535.0): torch.uint16}.get(ranges.pop(), torch.float32)
