"""Whole image, sliding window, flips, right-angle turns and scales around any model; several models as one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.config import EvalConfig
from hrseg.fast.optimize import optimize
from hrseg.metrics import THRESHOLDS
from hrseg.task import Task

Size = tuple[int, int]
FEW_IMAGES = 16  # of a process, below which the fast form of a model takes longer to make than it saves


@dataclass(frozen=True)
class Inference:
    """How an image is answered. Call it with a model and a normalised image.

    With one scale, no flip and no turns the answer is the model's logits. Otherwise it is the logarithm of the mean of
    the probabilities of all these views (softmax; sigmoid for binary and multilabel), as logits, so that both are read
    alike. Flips and turns together are the eight views of a square. threshold: of binary and multilabel tasks, the
    probability above which a pixel is foreground, or has a label.
    """

    task: Task
    window: Size | None = None  # None: the whole image at once
    stride: Size | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    turns: bool = False  # by 0, 90, 180 and 270 degrees
    threshold: float = 0.5

    @classmethod
    def from_config(cls, config: EvalConfig, task: Task, threshold: float = 0.5) -> Inference:
        window = config.window if config.mode == "slide" else None
        stride = config.stride or (window and (max(1, window[0] * 2 // 3), max(1, window[1] * 2 // 3)))
        return cls(task, window, stride if window else None, tuple(config.scales), config.flip, config.turns, threshold)

    def __call__(self, model: nn.Module, image: Tensor, size: Size | None = None) -> Tensor:
        """Float logits [N, K, *size] of a normalised image [N, C, H, W]; size: (height, width), default the image's."""
        size = size or (image.shape[-2], image.shape[-1])
        if self.scales == (1.0,) and not self.flip and not self.turns:
            return resize(self._logits(model, image), size)
        total, views = torch.zeros(()), 0
        for scale in self.scales:
            scaled = resize(image, (max(1, round(image.shape[-2] * scale)), max(1, round(image.shape[-1] * scale))))
            for flipped, turn in itertools.product((False, True) if self.flip else (False,), self._turns()):
                view = torch.rot90(scaled.flip(-1) if flipped else scaled, turn, (-2, -1))
                logits = torch.rot90(self._logits(model, view), -turn, (-2, -1))
                probabilities = self.probabilities(resize(logits.flip(-1) if flipped else logits, size))
                total, views = total.to(probabilities) + probabilities, views + 1
        mean = total / views
        return torch.log(mean) if self.task is Task.MULTICLASS else torch.logit(mean)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities [N, K, H, W] of logits of that shape."""
        return logits.softmax(dim=1) if self.task is Task.MULTICLASS else logits.sigmoid()

    def labels(self, logits: Tensor) -> Tensor:
        """Class indices [N, H, W], uint8 up to 256 classes; for multilabel uint8 {0, 1} [N, L, H, W]."""
        if self.task is Task.MULTICLASS:
            labels = logits.max(dim=1).indices  # as argmax, which takes up to four times as long on a CPU
            return labels.to(torch.uint8 if logits.shape[1] <= 256 else torch.int64)
        labels = (logits > logit(self.threshold)).to(torch.uint8)
        return labels.squeeze(1) if self.task is Task.BINARY else labels

    def confidence(self, logits: Tensor) -> Tensor:
        """The probability of what `labels` says, float [N, H, W]; for multilabel [N, L, H, W]."""
        probabilities = self.probabilities(logits)
        if self.task is Task.MULTICLASS:
            return probabilities.amax(dim=1)
        confidence = torch.where(logits > logit(self.threshold), probabilities, 1 - probabilities)
        return confidence.squeeze(1) if self.task is Task.BINARY else confidence

    def passed(self, logits: Tensor) -> Tensor | None:
        """How many of `THRESHOLDS` each probability is above, uint8 as the logits; None for a multiclass task."""
        if self.task is Task.MULTICLASS:
            return None
        cuts = torch.tensor([logit(float(t)) for t in THRESHOLDS], device=logits.device)
        return torch.bucketize(logits.float(), cuts).to(torch.uint8)

    def _turns(self) -> range:
        return range(4 if self.turns else 1)

    def _logits(self, model: nn.Module, image: Tensor) -> Tensor:
        if self.window is None:
            return forward(model, image)
        assert self.stride is not None
        return slide(model, image, self.window, self.stride)


def logit(probability: float) -> float:
    """The logit of a probability between 0 and 1."""
    return math.log(probability / (1 - probability))


class Ensemble(nn.Module):
    """Several models as one: images [N, C, H, W] in their own number type to logits of the mean of the probabilities.

    Each model sees the image normalised by its own module of `normalise`, so what comes in is not normalised.
    """

    def __init__(self, models: Sequence[nn.Module], normalise: Sequence[nn.Module], task: Task):
        super().__init__()
        self.models, self.normalise, self.task = nn.ModuleList(models), nn.ModuleList(normalise), task

    def forward(self, image: Tensor) -> Tensor:
        pairs = zip(self.models, self.normalise, strict=True)
        return mean_logits([forward(model, normalise(image)) for model, normalise in pairs], self.task)


def fast_form(model: nn.Module, backend: str, precision: str) -> nn.Module:
    """A model, or each of an ensemble, as `hrseg.optimize` makes it. It computes in its own precision: no autocast."""
    if isinstance(model, Ensemble):
        members = [fast_form(member, backend, precision) for member in model.models]
        return Ensemble(members, list(model.normalise), model.task)
    return optimize(model, backend, precision)


def mean_logits(logits: Sequence[Tensor], task: Task) -> Tensor:
    """The logits [N, K, H, W] whose probabilities are the mean of those of several; a single one is returned unchanged.

    In logarithms throughout, so that a probability too small for float32 gives no infinity.
    """
    if len(logits) == 1:
        return logits[0]
    if task is Task.MULTICLASS:
        return torch.stack([one.log_softmax(dim=1) for one in logits]).logsumexp(dim=0) - math.log(len(logits))
    yes = torch.stack([F.logsigmoid(one) for one in logits]).logsumexp(dim=0)
    no = torch.stack([F.logsigmoid(-one) for one in logits]).logsumexp(dim=0)
    return yes - no


def forward(model: nn.Module, image: Tensor) -> Tensor:
    """Float32 logits of the whole image at its own size.

    A model that needs sides divisible by its stride sees the image padded at the bottom and right with zeros, the mean.
    """
    height, width = image.shape[-2:]
    if getattr(model, "requires_divisible_input_shape", False):
        stride = int(model.encoder.output_stride)  # type: ignore[union-attr, arg-type]
        image = F.pad(image, (0, -width % stride, 0, -height % stride))
    return model(image)[..., :height, :width].float()


def slide(model: nn.Module, image: Tensor, window: Size, stride: Size) -> Tensor:
    """Logits of an image [N, C, H, W] seen through overlapping windows, averaged where they overlap.

    The last window of a row or column is moved back to end at the border; a smaller image is one window. Each pixel is
    covered. Sizes are (height, width).
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    count = image.new_zeros((1, 1, height, width))
    for top in starts(height, window[0], stride[0]):
        for left in starts(width, window[1], stride[1]):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            logits = forward(model, image[..., rows, columns])
            if total is None:
                total = logits.new_zeros((*logits.shape[:2], height, width))
            total[..., rows, columns] += logits
            count[..., rows, columns] += 1
    assert total is not None
    return total / count


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side, so that all of it is covered and none reaches beyond it."""
    last = max(0, length - window)
    return [*range(0, last, min(stride, window)), last]


def resize(x: Tensor, size: Size) -> Tensor:
    """[N, C, *size], bilinear, align_corners False; x itself if it has that size."""
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size, mode="bilinear", align_corners=False)
