"""One iteration of training, all of it: learning rate, forward, backward, clipping, optimizer step, running average."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrseg import distributed
from hrseg.build import optimizer as optimizers
from hrseg.config import TrainConfig
from hrseg.data.loader import Batch
from hrseg.data.sampling import UNLABELLED, keyed_generator
from hrseg.distillation import Distillation
from hrseg.losses import CombinedLoss, LossValue
from hrseg.runtime import PRECISIONS
from hrseg.train.unlabelled import PseudoLabels, SureLabels

if TYPE_CHECKING:
    from hrseg.train.run import Run


class LossOfBatch(nn.Module):
    """Normalise, predict, compare, as one module, so that DistributedDataParallel sees one forward pass.

    forward(image [N, C, H, W] in its own type, target, unlabelled) -> LossValue. The loss is computed in float32.
    distillation: a teacher whose logits are compared too. pseudo_labels: how images without labels are learned.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: CombinedLoss,
        normalise: nn.Module,
        config: TrainConfig,
        distillation: Distillation | None = None,
        pseudo_labels: PseudoLabels | None = None,
    ):
        super().__init__()
        self.distillation, self.pseudo_labels = distillation, pseudo_labels
        self.model, self.criterion, self.normalise, self.precision = model, criterion, normalise, config.precision
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format

    def forward(self, image: Tensor, target: Tensor, unlabelled: SureLabels | None = None) -> LossValue:
        images = image if unlabelled is None else torch.cat([image, unlabelled.image])
        with torch.autocast(image.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"):
            predict = getattr(self.model, "forward_train", self.model)
            output = predict(self.normalise(images).contiguous(memory_format=self.layout))
        logits = output[0] if isinstance(output, tuple) else output
        labelled = output if unlabelled is None else _first(output, len(image))
        value = self.criterion(labelled, target)
        if self.distillation is not None:
            value = value.plus("distill", self.distillation(images, logits), self.distillation.weight)
        if self.pseudo_labels is not None and unlabelled is not None:
            learned = self.pseudo_labels.loss(logits[len(image) :], unlabelled)
            value = value.plus("unlabelled", learned, self.pseudo_labels.weight)
        return value


def _first(output: Any, count: int) -> Any:
    """The answers for the first images: logits, or the pair (main, aux), of which aux may be None."""
    if isinstance(output, tuple):
        return tuple(None if each is None else each[:count] for each in output)
    return output[:count]


class StepResult(NamedTuple):
    """Of one iteration, on this process: loss and its terms, share of pixels that OHEM kept, norm of the gradient.

    stepped: False where the optimizer was left alone, because loss or gradient of some process were not finite.
    sure_share: of the pixels without labels, those that were learned from; None without such images.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    kept_share: Tensor | None
    grad_norm: Tensor
    stepped: bool = True
    sure_share: Tensor | None = None

    def figures(self) -> dict[str, Tensor]:
        """What log.jsonl tells of an iteration, scalars on the device."""
        values = {"loss": self.loss, **{f"loss_{name}": value for name, value in self.terms.items()}}
        values |= {} if self.kept_share is None else {"kept_share": self.kept_share}
        values |= {} if self.sure_share is None else {"sure_share": self.sure_share}
        return values | {"grad_norm": self.grad_norm}


class Means:
    """The figures of the iterations since the last record of log.jsonl. They are added up on the device: no waiting."""

    def __init__(self, saved: tuple[list[str], list[float], int] | None = None, device: torch.device | None = None):
        self.names, total, self.count = saved or ([], None, 0)
        self.total = None if total is None else torch.tensor(total, dtype=torch.float32, device=device)

    def share(self) -> None:
        """Give every process the mean of their sums, which is what a checkpoint holds. All processes call it."""
        if self.total is not None:
            self.total = distributed.sum_over_ranks(self.total) / distributed.world_size()

    def to_plain(self) -> tuple[list[str], list[float], int] | None:
        """For a checkpoint; None where nothing was added."""
        return None if self.total is None else (self.names, self.total.tolist(), self.count)

    def add(self, result: StepResult) -> None:
        """Add an iteration."""
        figures = result.figures()
        stacked = torch.stack([value.detach().float() for value in figures.values()])
        self.names, self.count = list(figures), self.count + 1
        self.total = stacked if self.total is None else self.total + stacked

    def read(self) -> dict[str, float]:
        """Their means, over all processes too, and start anew. NaN if every iteration was skipped."""
        total, count, names = self.total, self.count, self.names
        self.total, self.count = None, 0
        if total is None:
            return dict.fromkeys(names or ["loss"], float("nan"))
        means = distributed.sum_over_ranks(total / count) / distributed.world_size()
        return dict(zip(names, means.tolist(), strict=True))


def training_step(
    loss_of_batch: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    *,
    accumulate: int,
    clip_norm: float | None,
    require_finite: bool,
) -> StepResult:
    """One iteration: forward and backward over the batch in `accumulate` parts, then one step of the optimizer.

    require_finite: ask, on the CPU side, whether loss and gradient are finite, and do not step where they are not.
    """
    values = []
    for part, inputs in enumerate(_parts(batch, accumulate)):
        more = part < accumulate - 1 and isinstance(loss_of_batch, DistributedDataParallel)
        with loss_of_batch.no_sync() if more else contextlib.nullcontext():  # type: ignore[operator]
            value = loss_of_batch(*inputs)
            scaler.scale(value.total / accumulate).backward()
        values.append(value)
    loss = torch.stack([v.total.detach() for v in values]).mean()
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if clip_norm is not None:
        grad_norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    else:
        grad_norm = total_norm([p.grad for p in parameters if p.grad is not None])
    stepped = not require_finite or not distributed.any_rank(not bool(is_finite(loss, grad_norm, scaler)), loss.device)
    if stepped:
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    terms = {name: torch.stack([v.terms[name] for v in values]).mean() for name in values[0].terms}
    kept = [v.kept_share for v in values if v.kept_share is not None]
    return StepResult(loss, terms, torch.stack(kept).mean() if kept else None, grad_norm, stepped)


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients as one vector, a scalar."""
    if hasattr(nn.utils, "get_total_norm"):  # from torch 2.6 on
        return nn.utils.get_total_norm(gradients)
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))


def is_finite(loss: Tensor, grad_norm: Tensor, scaler: torch.amp.GradScaler) -> Tensor:
    """Whether loss and gradient are finite; with fp16 the loss alone: there the scaler looks after the gradient."""
    return torch.isfinite(loss) if scaler.is_enabled() else torch.isfinite(loss) & torch.isfinite(grad_norm)


def _parts(batch: Batch, count: int) -> Iterator[tuple[Any, ...]]:
    """The arguments of `LossOfBatch`, part by part."""
    assert batch.target is not None  # the training set refuses samples without labels
    labelled = batch.image.chunk(count), batch.target.chunk(count)
    if batch.unlabelled is None:
        return zip(*labelled, strict=True)
    return zip(*labelled, map(SureLabels, *(each.chunk(count) for each in batch.unlabelled)), strict=True)


def iterate(run: Run, batch: Batch, step: Callable[..., StepResult] = training_step) -> StepResult:
    """One iteration of a run. step: what it does between setting the learning rate and updating the running average."""
    settings, model = run.plan.settings, run.plan.model
    # Nothing random on the device (dropout) depends on earlier iterations, so that resuming needs no saved state.
    torch.manual_seed(_mixed_seed(run.plan.seed, run.state.step, distributed.rank()))
    optimizers.training_mode(model, freeze_bn=settings.freeze_bn, frozen=settings.freeze)
    optimizers.set_learning_rate(run.plan.optimizer, run.learning_rate())
    may_skip = settings.on_nonfinite == "skip"
    statistics = [buffer.clone() for buffer in model.buffers()] if may_skip else []
    batch, sure_share = batch.to(run.plan.device), None
    if run.pseudo_labels is not None:
        rng = keyed_generator(UNLABELLED, run.plan.seed, run.state.step, distributed.rank())
        labels = run.pseudo_labels.label(batch.unlabelled, rng)
        batch, sure_share = batch._replace(unlabelled=labels), run.pseudo_labels.sure_share(labels)
    result = step(
        run.network,
        run.plan.optimizer,
        run.scaler,
        batch,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        require_finite=run.reads_each_step,
    )
    run.state.step += 1
    if result.stepped and run.ema:
        run.ema.update(model, run.state.step)
    if not result.stepped:  # batch norm has seen the bad batch
        for buffer, before in zip(model.buffers(), statistics, strict=False):
            buffer.copy_(before)
    return result if sure_share is None else result._replace(sure_share=sure_share)


def _mixed_seed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
