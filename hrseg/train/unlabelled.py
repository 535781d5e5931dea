"""Learning from images without labels: the weak view is labelled where the answer is sure, the strong view learns it.

Source: Sohn et al., FixMatch, NeurIPS 2020; CutMix between strong views as in Yang et al., UniMatch, CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hrseg.data.unlabelled import Views
from hrseg.losses import pixel_losses
from hrseg.task import LabelSpace, Task

MIX_SHARE = 0.5  # of the images get a rectangle of another one
MIX_AREA, MIX_RATIO = (0.02, 0.4), (0.3, 1 / 0.3)  # of the rectangle: share of the image; height over width


class SureLabels(NamedTuple):
    """What is learned from images without labels.

    image: the strong views, mixed, [N, C, H, W]. target: class indices [N, H, W] ({0, 1, ignore} [N, L, H, W]), ignored
    where the answer was not sure and beyond the image. pixels: how many of each lie in its image, [N].
    """

    image: Tensor
    target: Tensor
    pixels: Tensor


@dataclass(frozen=True)
class PseudoLabels:
    """Labels images by a model that is not trained meanwhile.

    logits: raw images [N, C, H, W] to float logits [N, K, H, W]. threshold: of a label's probability.
    """

    logits: Callable[[Tensor], Tensor]
    space: LabelSpace
    threshold: float
    weight: float

    @torch.no_grad()
    def label(self, views: Views, rng: np.random.Generator) -> SureLabels:
        """Label the weak views and mix the strong ones. rng: decides which rectangles are exchanged."""
        logits = self.logits(views.weak)
        if self.space.task is Task.MULTICLASS:
            confidence, target = logits.softmax(1).max(1)
        else:
            yes = logits.sigmoid()
            confidence, target = torch.maximum(yes, 1 - yes), (yes > 0.5).long()
        by_label = target.ndim == 4
        outside = views.padding[:, None] if by_label else views.padding
        target = target.masked_fill((confidence < self.threshold) | outside, self.space.ignore_index)
        exchanged = torch.zeros(views.padding.shape, dtype=torch.bool)
        for i, box in enumerate(rectangles(len(target), views.padding.shape[-2:], rng)):
            if box is not None:
                exchanged[i, box[0] : box[2], box[1] : box[3]] = True
        exchanged = exchanged.to(target.device, non_blocking=True)
        image = torch.where(exchanged[:, None], views.strong.roll(1, 0), views.strong)
        target = torch.where(exchanged[:, None] if by_label else exchanged, target.roll(1, 0), target)
        padding = torch.where(exchanged, views.padding.roll(1, 0), views.padding)
        return SureLabels(image, target, (~padding).sum((1, 2)))

    def loss(self, logits: Tensor, labels: SureLabels) -> Tensor:
        """Cross entropy of the sure pixels, averaged over all pixels of the images; the others count as zero."""
        return pixel_losses(logits, labels.target, self.space).sum() / labels.pixels.sum().clamp(min=1)

    def sure_share(self, labels: SureLabels) -> Tensor:
        """The share of the pixels (of all labels) that are learned from."""
        of_one = labels.target.shape[1] if labels.target.ndim == 4 else 1
        sure = (labels.target != self.space.ignore_index).sum()
        return sure / (of_one * labels.pixels.sum()).clamp(min=1)


def rectangles(count: int, size: tuple[int, ...], rng: np.random.Generator) -> list[tuple[int, int, int, int] | None]:
    """For each image the rectangle (top, left, bottom, right) that it takes from another one, or None."""
    found: list[tuple[int, int, int, int] | None] = []
    for _ in range(count):
        if rng.random() >= MIX_SHARE:
            found.append(None)
            continue
        area = rng.uniform(*MIX_AREA) * size[0] * size[1]
        ratio = np.exp(rng.uniform(*np.log(MIX_RATIO)))
        height = int(np.clip(round(np.sqrt(area * ratio)), 1, size[0]))
        width = int(np.clip(round(np.sqrt(area / ratio)), 1, size[1]))
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        found.append((top, left, top + height, left + width))
    return found
