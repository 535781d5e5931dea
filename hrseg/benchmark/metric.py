"""Confusion matrices of predictions and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.benchmark.measure import Case, Options, Row, missing
from hrseg.metrics import confusion_matrix

CLASSES, IGNORE = 19, 255
BLOCK = 40  # coarse pixels on a side of a region: about 5 % of the cells lie between two


def cases(options: Options) -> Iterator[Case]:
    prediction, target = maps()
    wide = prediction.long(), target.long()
    theirs: Callable[..., Tensor] | str = missing("torchmetrics")
    if not theirs:
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        theirs = multiclass_confusion_matrix

    def torchmetrics(predicted: Tensor) -> np.ndarray:
        assert not isinstance(theirs, str)
        return theirs(predicted, wide[1], CLASSES, ignore_index=IGNORE).numpy()

    def stats() -> Tensor:
        import segmentation_models_pytorch as smp

        masked = torch.where(wide[1] == IGNORE, -1, wide[1])[None]
        return torch.stack(
            smp.metrics.get_stats(wide[0][None], masked, "multiclass", ignore_index=-1, num_classes=CLASSES)
        )

    def ours() -> np.ndarray:
        return confusion_matrix(prediction, target, CLASSES)

    def same() -> str:
        assert (ours() == torchmetrics(wide[0])).all(), "counts"
        for bad, where in ((CLASSES, "prediction"), (254, "target")):
            planes = {"prediction": prediction.clone(), "target": target.clone()}
            planes[where][-1, -1] = bad
            planes["target"][-1, -1] = bad if where == "target" else 0
            try:
                confusion_matrix(planes["prediction"], planes["target"], CLASSES)
            except ValueError:
                continue
            raise AssertionError(f"{bad} in the {where} is not reported")
        return "int64, exact; ids out of range raise"

    absent = theirs if isinstance(theirs, str) else ""
    what = f"confusion matrix, {target.shape[1]}x{target.shape[0]} pixels, {CLASSES} classes"
    yield Case(
        {"hrseg": ours, "torchmetrics": absent or (lambda: torchmetrics(wide[0])), "get_stats": stats},
        [
            Row(
                what, "torchmetrics, default", ["hrseg"], ["torchmetrics"], 0.03, equal=same, why=_rate(target.numel())
            ),
            Row(what, "smp.metrics.get_stats", ["hrseg"], ["get_stats"], 0.06, why=_rate(target.numel())),
        ],
    )


def _rate(pixels: int) -> Callable[[float], str]:
    return lambda seconds: f"a pixel takes {1e9 * seconds / pixels:.1f} ns"


def maps() -> tuple[Tensor, Tensor]:
    """A prediction [1024, 2048] of smooth regions, and a target near it, a tenth of it ignored."""
    generator = torch.Generator().manual_seed(0)
    regions = torch.randint(0, CLASSES, (1, 1, -(-256 // BLOCK), -(-512 // BLOCK)), generator=generator)
    coarse = regions.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)[0, 0, :256, :512]
    smooth = F.interpolate(torch.randn(1, CLASSES, 32, 64, generator=generator), (256, 512), mode="bicubic")
    logits = 8 * F.one_hot(coarse, CLASSES).permute(2, 0, 1)[None].float() + smooth
    prediction = F.interpolate(logits, (1024, 2048), mode="bilinear").argmax(1)[0].to(torch.uint8)
    target = prediction.roll(3, 1)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE
    return prediction, target
