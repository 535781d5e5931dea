"""One training step, forward to optimizer, beside timm's HRNet with the textbook head in NCHW."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.benchmark import textbook
from hrseg.benchmark.measure import Case, Options, Row, Side, fp32_rate

STEPS, TOLERANCE = 20, 1e-4
IGNORE = 255


def cases(options: Options) -> Iterator[Case]:
    height, width = (side // 2 for side in options.size)
    theirs, ours = textbook.pair(options.variant)
    batch = _batch(height, width, options.device)
    plain = training(theirs, batch, torch.contiguous_format)
    sides: dict[str, Side | str] = {"textbook": plain, "hrseg": training(ours, batch, torch.channels_last)}
    bf16 = options.device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    sides["hrseg bf16"] = (
        training(ours, batch, torch.channels_last, torch.bfloat16) if bf16 else "the processor does not compute in bf16"
    )
    steps = 3 if options.short else STEPS

    def equal() -> str:
        losses = [
            [float(step()) for _ in range(steps)]
            for step in (training(theirs, batch, torch.contiguous_format), training(ours, batch, torch.channels_last))
        ]
        share = max(abs(a - b) / abs(b) for a, b in zip(*losses, strict=True))
        assert share <= TOLERANCE, f"losses of {steps} steps by {share:.1e}"
        return f"losses of {steps} steps within {share:.0e}"

    # Backwards each convolution is computed twice: towards its input, and towards its weights.
    rate = fp32_rate(3 * textbook.macs(ours, batch[0]))
    what = f"training step, {options.variant}, 2x3x{height}x{width}"
    against = "timm and textbook head, NCHW, fp32"
    yield Case(
        sides,
        [
            Row(f"{what}, fp32", against, ["hrseg"], ["textbook"], 0.69, 0.60, equal, rate),
            Row(f"{what}, bf16", against, ["hrseg bf16"], ["textbook"], 0.45, 0.35),
        ],
    )


def _batch(height: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, height, width, generator=generator)
    target = torch.randint(0, textbook.CLASSES, (2, height, width), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE
    return image.to(device), target.to(device)


def training(
    model: nn.Module, batch: tuple[Tensor, Tensor], layout: torch.memory_format, dtype: torch.dtype = torch.float32
) -> Callable[[], Tensor]:
    """A step of a copy of the model, which gives its loss."""
    model = copy.deepcopy(model).train().to(batch[0].device).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    image, target = batch[0].contiguous(memory_format=layout), batch[1]

    def step() -> Tensor:
        with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(image)
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step
