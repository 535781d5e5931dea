"""OHEM, forward and backward, against plain cross entropy and the usual softmax, gather and sort."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.benchmark.measure import Case, Options, Row
from hrseg.losses import ohem_cross_entropy

CLASSES, IGNORE = 19, 255
THRESH, MIN_KEPT = 0.9, 131072
Loss = Callable[[Tensor, Tensor], Tensor]


def cases(options: Options) -> Iterator[Case]:
    for when, margin in (("early", 0.0), ("late", 16.0)):
        logits, target = outputs(options, margin)
        losses: dict[str, Loss] = {"hrseg": ours, "cross entropy": cross_entropy, "textbook": textbook_ohem}

        def side(loss: Loss, logits: Tensor = logits, target: Tensor = target) -> Callable[[], Tensor]:
            return lambda: gradient(loss, logits, target)

        sides = {name: side(loss) for name, loss in losses.items()}

        def equal(sides: dict[str, Callable[[], Tensor]] = sides) -> str:
            assert torch.equal(sides["hrseg"](), sides["textbook"]()), "gradients"
            return "gradients, bit for bit"

        what = f"OHEM forward + backward, 2x{CLASSES}x{options.size[0]}x{options.size[1]}, {when} in training"
        yield Case(
            sides,
            [
                Row(what, "plain cross entropy", ["hrseg"], ["cross entropy"], 1.2),
                Row(what, "softmax, gather, sort", ["hrseg"], ["textbook"], 0.55, equal=equal),
            ],
        )


def ours(logits: Tensor, target: Tensor) -> Tensor:
    return ohem_cross_entropy(logits, target, thresh=THRESH, min_kept=MIN_KEPT, ignore_index=IGNORE)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, ignore_index=IGNORE)


def textbook_ohem(
    logits: Tensor, target: Tensor, thresh: float = THRESH, min_kept: int = MIN_KEPT, weight: Tensor | None = None
) -> Tensor:
    """Softmax, gather, a full sort, boolean indexing."""
    losses = F.cross_entropy(logits, target, weight, ignore_index=IGNORE, reduction="none").flatten()
    valid = target.flatten() != IGNORE
    index = target.masked_fill(target == IGNORE, 0)[:, None]
    probability = logits.softmax(1).gather(1, index).flatten()[valid]
    ascending = probability.sort().values
    threshold = max(thresh, ascending[min(max(min_kept, 1), len(ascending) - 1)].item())
    return losses[valid][probability < threshold].mean()


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    return torch.autograd.grad(loss(logits, target), logits)[0]


def outputs(options: Options, margin: float) -> tuple[Tensor, Tensor]:
    """Logits and a target, a tenth of it ignored. margin: by how much the true class leads the others."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, *options.size, generator=generator)
    target = torch.randint(0, CLASSES, (2, *options.size), generator=generator)
    logits.scatter_add_(1, target[:, None], torch.full((2, 1, *options.size), margin))
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE
    return logits.to(options.device).requires_grad_(), target.to(options.device)
