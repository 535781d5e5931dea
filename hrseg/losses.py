"""OHEM cross entropy, cross entropy, binary cross entropy; the rest comes from smp.losses. Terms add up by weight."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.config import as_type, check_options, import_piece, is_dotted_path
from hrseg.errors import ConfigError, nearest
from hrseg.task import IGNORE_INDEX, LabelSpace, Task


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    thresh: float = 0.9,
    min_kept: int | float = 131072,
    ignore_index: int = IGNORE_INDEX,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross entropy averaged over the hard pixels: those whose true class has a probability below the threshold.

    The threshold is `thresh`, or as much higher as it takes to keep `min_kept` pixels: the probability at rank
    min(min_kept, valid - 1) in ascending order. Kept is what lies strictly below it.
    logits: float [N, K, H, W]. target: integer [N, H, W]. min_kept: an int is pixels, a float in (0, 1] a share of the
    N x H x W pixels, ignored ones included; both count over the batch of this process. weight: [K], on the losses
    only; the selection and the divisor (the number of kept pixels) do not see it.
    Returns a scalar; zero, with a gradient graph, where no pixel is kept. Raises ValueError for values out of range.
    Source: HRNet-Semantic-Segmentation, pytorch-v1.1, with the cases mended in which it raises or gives NaN.
    """
    loss, _ = _ohem(logits, target, thresh, min_kept, ignore_index, weight)
    return loss


class OhemCrossEntropyLoss(nn.Module):
    """`ohem_cross_entropy` as a module; after a call `kept_share` holds kept / valid pixels, a detached scalar."""

    weight: Tensor | None

    def __init__(
        self,
        thresh: float = 0.9,
        min_kept: int | float = 131072,
        ignore_index: int = IGNORE_INDEX,
        weight: Tensor | Sequence[float] | None = None,
    ):
        super().__init__()
        _check_ohem(thresh, min_kept)
        self.thresh, self.min_kept, self.ignore_index = thresh, min_kept, ignore_index
        self.register_buffer("weight", _float_tensor(weight), persistent=False)
        self.kept_share: Tensor | None = None

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss, self.kept_share = _ohem(logits, target, self.thresh, self.min_kept, self.ignore_index, self.weight)
        return loss

    def kept(self, logits: Tensor, target: Tensor) -> Tensor:
        """bool [N, H, W]: the pixels that the loss of these logits and this target is averaged over."""
        losses = F.cross_entropy(
            _at_least_fp32(logits), target.long(), ignore_index=self.ignore_index, reduction="none"
        )
        return _kept(losses, target.long() == self.ignore_index, self.thresh, self.min_kept)


def _ohem(
    logits: Tensor, target: Tensor, thresh: float, min_kept: int | float, ignore_index: int, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The loss and the kept share, both scalars."""
    _check_ohem(thresh, min_kept)
    target = target.long()
    losses = F.cross_entropy(_at_least_fp32(logits), target, ignore_index=ignore_index, reduction="none")
    with torch.no_grad():
        ignored = target == ignore_index
        kept = _kept(losses, ignored, thresh, min_kept)
        count = torch.count_nonzero(kept)  # of booleans a twentieth of the time of sum
        share = count / torch.count_nonzero(~ignored).clamp(min=1)
    if weight is not None:
        losses = losses * weight.to(losses)[target.masked_fill(ignored, 0)]
    return losses.masked_fill(~kept, 0.0).sum() / count.clamp(min=1), share


def _kept(losses: Tensor, ignored: Tensor, thresh: float, min_kept: int | float) -> Tensor:
    hardness = losses.masked_fill(ignored, -1.0)  # below every loss
    # `not below or equal` rather than `above`: a NaN is kept, and so seen in the loss.
    return ~(hardness <= _easiest_kept(hardness, ignored, thresh, min_kept))


def _easiest_kept(hardness: Tensor, ignored: Tensor, thresh: float, min_kept: int | float) -> Tensor | float:
    """The loss above which a pixel is kept. A probability below p is a loss above -log p: no softmax, no sort."""
    bound = -math.log(thresh) if thresh > 0 else math.inf
    pixels = hardness.numel()
    wanted = round(min_kept * pixels) if isinstance(min_kept, float) else min_kept
    rank = min(max(wanted, 1), pixels - 1)
    # On a GPU the question would wait for all work in the queue; there the selection itself costs less.
    if hardness.device.type == "cpu" and int(torch.count_nonzero(hardness > bound)) > rank:
        return bound
    at_rank = _largest(hardness.flatten(), rank)
    easiest = hardness.masked_fill(ignored, math.inf).amin()  # holds where fewer are valid than wanted
    return torch.maximum(at_rank, easiest).clamp(max=bound)


def _largest(values: Tensor, rank: int) -> Tensor:
    """The value of a rank in descending order, 0 for the largest."""
    if values.device.type != "cpu":
        return values.topk(rank + 1, sorted=False).values.amin()
    place = len(values) - 1 - rank  # numpy selects in an eighth of the time of topk
    return torch.tensor(np.partition(values.numpy(), place)[place], dtype=values.dtype)


def _check_ohem(thresh: float, min_kept: int | float) -> None:
    if not 0 <= thresh <= 1:
        raise ValueError(f"thresh is a probability in [0, 1], not {thresh}")
    if isinstance(min_kept, float) and not 0 < min_kept <= 1:
        raise ValueError(f"min_kept as a float is a share in (0, 1], not {min_kept}; pixels are an int")
    if min_kept < 0:
        raise ValueError(f"min_kept cannot be negative, as {min_kept} is")


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = IGNORE_INDEX,
    weight: Tensor | None = None,
    average: Literal["valid", "all"] = "valid",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy averaged over pixels.

    logits: float [N, K, H, W]. target: integer [N, H, W]. weight: [K].
    average: "valid" divides by the weights of the pixels that are not ignored, as F.cross_entropy does; "all" divides
    by the number of pixels, ignored ones included, as HRNet-OCR does under OHEM with its auxiliary output, and
    mmsegmentation by default.
    Returns a scalar; zero, with a gradient graph, where no pixel is valid.
    """
    target = target.long()
    logits = _at_least_fp32(logits)
    weight = None if weight is None else weight.to(logits)
    # On CUDA the sum inside cross_entropy adds up in changing order, and is refused where that is not wanted.
    reduction = "none" if torch.are_deterministic_algorithms_enabled() else "sum"
    total = F.cross_entropy(
        logits, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    ).sum()
    if average == "all":
        return total / target.numel()
    ignored = target == ignore_index
    if weight is None:
        divisor = (~ignored).sum()
    else:
        divisor = weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0.0).sum()
    return total / torch.where(divisor > 0, divisor, 1)


def bce(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = IGNORE_INDEX,
    pos_weight: float | Sequence[float] | None = None,
) -> Tensor:
    """Binary cross entropy with logits, averaged over what is not ignored, for binary and multilabel tasks.

    logits: float [N, L, H, W]. target: {0, 1, ignore} [N, L, H, W], or [N, H, W] where L is 1.
    pos_weight: factor on the losses of the ones, one for all or one per label.
    Returns a scalar; zero, with a gradient graph, where nothing is valid. Raises ValueError if pos_weight does not fit.
    """
    logits = _at_least_fp32(logits)
    target = _like_logits(target, logits)
    ignored = target == ignore_index
    factors = None
    if pos_weight is not None:
        factors = torch.as_tensor(pos_weight, dtype=logits.dtype, device=logits.device).reshape(-1, 1, 1)
        if len(factors) not in (1, logits.shape[1]):
            raise ValueError(f"pos_weight has {len(factors)} entries for {logits.shape[1]} labels")
    ones = target.masked_fill(ignored, 0).to(logits)
    losses = F.binary_cross_entropy_with_logits(logits, ones, pos_weight=factors, reduction="none")
    return losses.masked_fill(ignored, 0.0).sum() / torch.count_nonzero(~ignored).clamp(min=1)


def mcc(logits: Tensor, target: Tensor, *, ignore_index: int = IGNORE_INDEX, eps: float = 1e-5) -> Tensor:
    """1 - Matthews correlation coefficient of the pixels that are not ignored, for a binary task.

    logits: float [N, 1, H, W]. target: {0, 1, ignore} [N, H, W]. Returns a scalar. Source: smp.losses.MCCLoss, which
    takes probabilities and has no ignore index.
    """
    target = _like_logits(target, logits)
    valid = target != ignore_index
    if not valid.any():
        return _zero(logits)
    ones = target[valid].to(logits)
    return smp.losses.MCCLoss(eps)(logits[valid].sigmoid()[None], ones[None])


def soft_ce(logits: Tensor, target: Tensor, *, ignore_index: int = IGNORE_INDEX, smooth_factor: float = 0.1) -> Tensor:
    """smp's cross entropy with smoothed labels: averaged over all pixels, the smooth part summed over classes / K.

    logits: float [N, K, H, W]. target: integer [N, H, W]. Returns a scalar.
    """
    return smp.losses.SoftCrossEntropyLoss(smooth_factor=smooth_factor, ignore_index=ignore_index)(logits, target)


LOSSES: dict[str, Callable] = {
    "ohem": ohem_cross_entropy,
    "cross_entropy": cross_entropy,
    "bce": bce,
    "soft_ce": soft_ce,
    "dice": smp.losses.DiceLoss,
    "jaccard": smp.losses.JaccardLoss,
    "tversky": smp.losses.TverskyLoss,
    "focal": smp.losses.FocalLoss,
    "lovasz": smp.losses.LovaszLoss,
    "mcc": mcc,
}

# Losses that are not here fit every task.
TASKS: dict[str, tuple[Task, ...]] = {
    "ohem": (Task.MULTICLASS,),
    "cross_entropy": (Task.MULTICLASS,),
    "soft_ce": (Task.MULTICLASS,),
    "bce": (Task.BINARY, Task.MULTILABEL),
    "mcc": (Task.BINARY,),
}


class FunctionLoss(nn.Module):
    """A loss function `(logits, target, *, ...) -> scalar` with its options, and class weights as `weight`."""

    weight: Tensor | None

    def __init__(self, function: Callable[..., Tensor], weight: Sequence[float] | None = None, **options: Any):
        super().__init__()
        self.function = partial(function, **options)
        self.register_buffer("weight", _float_tensor(weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.weight is None:
            return self.function(logits, target)
        return self.function(logits, target, weight=self.weight)


class SmpLoss(nn.Module):
    """One of smp's losses; images without a valid pixel, of which some of them make NaN or no scalar, are left out."""

    def __init__(self, cls: Callable[..., nn.Module], space: LabelSpace, **options: Any):
        super().__init__()
        mode = space.task.value
        if cls is smp.losses.FocalLoss and space.task is Task.MULTILABEL:
            mode = (
                "binary"  # its multilabel mode fails with an ignore index; over all labels at once it is the same sum
            )
        self.ignore_index = space.ignore_index
        self.loss = cls(mode=mode, ignore_index=space.ignore_index, **options)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        usable = (target != self.ignore_index).flatten(1).any(1).cpu()
        if not usable.any():
            return _zero(logits)
        if not usable.all():
            usable = usable.to(logits.device)
            logits, target = logits[usable], target[usable]
        return self.loss(logits, target)


def make_term(name: str, space: LabelSpace, options: Mapping[str, Any]) -> nn.Module:
    """One term of the loss from its settings: a module (logits, target) -> scalar.

    name: a key of LOSSES or a dotted path to a function `(logits, target, *, ...) -> scalar`. options: what follows the
    star in the function's signature; besides, `class_weights`, one per class, where it takes `weight`.
    Raises ConfigError for unknown names and options, wrong types, and losses that do not fit the task.
    """
    where = "loss"
    piece: Any
    if is_dotted_path(name):
        piece = import_piece(name, f"{where}.name")
        if not inspect.isroutine(piece):
            raise ConfigError(f"{where}.name", f"'{name}' is not a function (logits, target, *, ...) -> scalar.")
    elif name in LOSSES:
        piece = LOSSES[name]
        if space.task not in TASKS.get(name, tuple(Task)):
            fitting = [n for n in LOSSES if space.task in TASKS.get(n, tuple(Task))]
            raise ConfigError(
                f"{where}.name", f"{name} is not for a {space.task.value} task.", f"Fit: {', '.join(fitting)}."
            )
    else:
        raise ConfigError(f"{where}.name", f"no loss '{name}'.", nearest(name, LOSSES))

    options = dict(options)
    parameters = inspect.signature(piece).parameters
    weighted = "weight" in parameters
    weight = options.pop("class_weights", None) if weighted else None
    wired = ("logits", "target", "weight", "ignore_index", "mode", "from_logits", "reduction")
    also = ("name", "weight", "output", *(("class_weights",) if weighted else ()))
    options = check_options(piece, options, where=where, wired=wired, also=also)
    if weight is not None:
        weight = as_type(list[float], weight, f"{where}.class_weights")
    given = weight or options.get("class_weights")
    if given and len(given) != len(space.classes):
        raise ConfigError(
            f"{where}.class_weights", f"has {len(given)} entries, but there are {len(space.classes)} classes."
        )
    try:
        if inspect.isclass(piece):
            return SmpLoss(LOSSES[name], space, **options)
        if "ignore_index" in parameters:
            options["ignore_index"] = space.ignore_index
        if piece is ohem_cross_entropy:
            return OhemCrossEntropyLoss(weight=weight, **options)
        return FunctionLoss(piece, weight, **options)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"{where}.name", f"{name}: {error}.") from error


class LossValue(NamedTuple):
    """total: scalar to go backward from. terms: the detached value of each term before its weight, by name.

    kept_share: of the first OHEM term on the main output, or None.
    """

    total: Tensor
    terms: dict[str, Tensor]
    kept_share: Tensor | None

    def plus(self, name: str, loss: Tensor, weight: float) -> LossValue:
        return self._replace(total=self.total + weight * loss, terms={**self.terms, name: loss.detach()})


def pixel_losses(logits: Tensor, target: Tensor, space: LabelSpace) -> Tensor:
    """Cross entropy of each pixel, float [N, H, W]; of a binary or multilabel task the mean over labels; ignored: 0.

    logits: float [N, K, H, W]. target: integer [N, H, W], or {0, 1, ignore} [N, L, H, W].
    """
    logits = _at_least_fp32(logits)
    if space.task is Task.MULTICLASS:
        return F.cross_entropy(logits, target.long(), ignore_index=space.ignore_index, reduction="none")
    target = _like_logits(target, logits)
    ignored = target == space.ignore_index
    losses = F.binary_cross_entropy_with_logits(logits, target.masked_fill(ignored, 0).to(logits), reduction="none")
    return losses.masked_fill(ignored, 0.0).sum(1) / (~ignored).sum(1).clamp(min=1)


class CombinedLoss(nn.Module):
    """The weighted sum of terms (name, module, weight, output), each looking at the main or the auxiliary output."""

    def __init__(self, terms: Sequence[tuple[str, nn.Module, float, str]]):
        super().__init__()
        self.terms = nn.ModuleList(module for _, module, _, _ in terms)
        self.weights = [weight for _, _, weight, _ in terms]
        self.outputs = [output for _, _, _, output in terms]
        self.names: list[str] = []
        for name, _, _, output in terms:
            name = name if output == "main" else f"{name}_{output}"
            again = sum(other.partition("#")[0] == name for other in self.names)
            self.names.append(f"{name}#{again + 1}" if again else name)

    def forward(self, output: Tensor | tuple[Tensor, Tensor], target: Tensor) -> LossValue:
        """output: logits [N, K, H, W], or the pair (main, aux) of them. target: any integer type.

        Raises ConfigError if a term looks at an auxiliary output that the model does not have.
        """
        main, aux = output if isinstance(output, tuple) else (output, None)
        target = target.long()
        logits = {"main": _at_least_fp32(main), "aux": None if aux is None else _at_least_fp32(aux)}
        total, values, kept_share = _zero(main), {}, None
        for name, module, weight, of in zip(self.names, self.terms, self.weights, self.outputs, strict=True):
            if logits[of] is None:
                raise ConfigError("loss.output", f"'{name}' needs an auxiliary output, and the model has none.")
            value = module(logits[of], target)
            total = total + weight * value
            values[name] = value.detach()
            if of == "main" and kept_share is None:
                kept_share = getattr(module, "kept_share", None)
        return LossValue(total, values, kept_share)


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _like_logits(target: Tensor, logits: Tensor) -> Tensor:
    """A binary target [N, H, W] as [N, 1, H, W]; any other as it is."""
    return target[:, None] if target.ndim == logits.ndim - 1 else target


def _float_tensor(values: Tensor | Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.as_tensor(values, dtype=torch.float32)


def _zero(logits: Tensor) -> Tensor:
    """Zero with a gradient graph, whatever the logits hold: the sum of none of them."""
    return logits[:0].sum()
