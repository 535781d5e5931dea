"""One training step, from forward to optimizer, against timm's HRNet with the textbook head in NCHW."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.benchmark import textbook
from hrseg.benchmark.measure import Case, Options, Row, Side, computed
from hrseg.benchmark.plain_scripts.network import CLASSES
from hrseg.fast import torch_private
from hrseg.fast.narrow_batch_norm import widen_batch_norm

STEPS, TOLERANCE = 20, 1e-4
IGNORE = 255


def cases(options: Options) -> Iterator[Case]:
    height, width = (side // 2 for side in options.size)
    theirs, ours = textbook.pair(options.variant)
    if options.device == "cpu":
        widen_batch_norm(ours)  # as hrseg's training does
    batch = _batch(height, width, options.device)
    textbooks = partial(training, theirs, layout=torch.contiguous_format)
    hrsegs = partial(training, ours, layout=torch.channels_last, fused=True)
    sides: dict[str, Side | str] = {"textbook": textbooks(batch), "hrseg": hrsegs(batch)}
    bf16 = options.device != "cpu" or torch_private.cpu_computes_bf16()
    sides["hrseg bf16"] = hrsegs(batch, autocast=torch.bfloat16) if bf16 else "the processor does not compute in bf16"
    # In float32 both sides drift apart by 1e-4 in five steps, as the textbook does in two layouts: rounding grows.
    lengths = {torch.float64: 3 if options.short else STEPS, torch.float32: 2}

    def equal() -> str:
        evidence = []
        for kind, steps in lengths.items():
            precise = batch[0].to(kind), batch[1]
            losses = [[float(run()) for _ in range(steps)] for run in (textbooks(precise), hrsegs(precise))]
            share = max(abs(a - b) / abs(b) for a, b in zip(*losses, strict=True))
            name = str(kind).removeprefix("torch.")
            assert share <= TOLERANCE, f"losses of {steps} steps in {name} by {share:.1e}"
            evidence.append(f"losses of {steps} steps in {name} within {share:.0e}")
        return ", ".join(evidence)

    # The backward pass computes each convolution twice: for the gradients of its input and of its weights.
    macs = 3 * textbook.macs(ours, batch[0])
    what = f"training step, {options.variant}, 2x3x{height}x{width}"
    against = "timm and textbook head, NCHW, fp32"
    yield Case(
        sides,
        [
            Row(f"{what}, fp32", against, ["hrseg"], ["textbook"], 0.69, 0.60, equal, computed(macs)),
            Row(f"{what}, bf16", against, ["hrseg bf16"], ["textbook"], 0.45, 0.35, why=computed(macs, torch.bfloat16)),
        ],
    )


def _batch(height: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, height, width, generator=generator)
    target = torch.randint(0, CLASSES, (2, height, width), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE
    return image.to(device), target.to(device)


def training(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    layout: torch.memory_format,
    *,
    autocast: torch.dtype | None = None,
    fused: bool | None = None,
) -> Callable[[], Tensor]:
    """A training step on a copy of the model in the image's type; it returns the loss. fused: as in torch.optim."""
    model = copy.deepcopy(model).train().to(batch[0]).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=fused)
    image, target = batch[0].contiguous(memory_format=layout), batch[1]
    kind = torch.promote_types(image.dtype, torch.float32)

    def step() -> Tensor:
        with torch.autocast(image.device.type, autocast, enabled=autocast is not None):
            logits = model(image)
        loss = F.cross_entropy(logits.to(kind), target, ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step
