"""Learning from a teacher: its logits on the student's own images, and losses that compare both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.runtime import PRECISIONS
from hrseg.task import Task


def channel_wise_loss(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Kullback-Leibler divergence between the maps of each class, seen as distributions over the pixels.

    student, teacher: float [N, K, H, W]; no gradient reaches the teacher. Returns a scalar, the mean over images and
    classes, times the squared temperature. Source: Shu et al., Channel-wise Knowledge Distillation for Dense
    Prediction, ICCV 2021.
    """
    maps = [logits.float().flatten(2) / temperature for logits in (student, teacher.detach())]
    log_student, log_teacher = (F.log_softmax(each, dim=2) for each in maps)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(2)
    return divergence.mean() * temperature**2


def kl_loss(student: Tensor, teacher: Tensor, *, task: Task = Task.MULTICLASS, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence between the class probabilities of each pixel; of each label where labels overlap.

    student, teacher: float [N, K, H, W]; no gradient reaches the teacher. Returns a scalar, the mean over pixels (and
    labels), times the squared temperature. Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """
    ours, theirs = student.float() / temperature, teacher.detach().float() / temperature
    if task is Task.MULTICLASS:
        log_ours, log_theirs = ours.log_softmax(1), theirs.log_softmax(1)
        divergence = F.kl_div(log_ours, log_theirs, reduction="none", log_target=True).sum(1)
    else:
        p = theirs.sigmoid()
        divergence = p * (F.logsigmoid(theirs) - F.logsigmoid(ours))
        divergence = divergence + (1 - p) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return divergence.mean() * temperature**2


@dataclass
class Teacher:
    """A frozen model that the student learns from. It is no module: a run neither trains nor saves it.

    model: images [N, C, H, W] in their own number type to logits of that size, in the student's order of classes.
    precision: that it computes in on the device. files: path and SHA-256 of each checkpoint it was read from.
    """

    model: nn.Module
    precision: str
    files: Sequence[dict[str, str]]
    _seconds: float = 0.0
    _calls: int = 0
    _events: list[tuple[Any, Any]] = field(default_factory=list)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's stub has no types for it
    def logits(self, image: Tensor) -> Tensor:
        """Float logits [N, K, H, W] of raw images."""
        on_cuda = image.device.type == "cuda"
        begin = _event() if on_cuda else time.perf_counter()
        with (
            torch.no_grad(),
            torch.autocast(image.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"),
        ):
            logits = self.model(image).float()
        self._calls += 1
        if on_cuda:
            self._events.append((begin, _event()))
        else:
            self._seconds += time.perf_counter() - begin
        return logits

    def seconds_per_call(self) -> float:
        """The mean since this was last asked. On CUDA this waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
            self._events.clear()
        mean = self._seconds / max(1, self._calls)
        self._seconds, self._calls = 0.0, 0
        return mean


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class InClassOrder(nn.Module):
    """A model whose output channels are put into another order."""

    def __init__(self, model: nn.Module, order: Sequence[int]):
        super().__init__()
        self.model, self.order = model, list(order)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)[:, self.order]


@dataclass(frozen=True)
class Distillation:
    """What is added to the loss: how far the student's logits are from the teacher's. compare: both to a scalar."""

    teacher: Teacher
    compare: Callable[[Tensor, Tensor], Tensor]
    weight: float

    def __call__(self, image: Tensor, logits: Tensor) -> Tensor:
        """The unweighted loss of a batch. image: raw [N, C, H, W]. logits: the student's, [N, K, H, W]."""
        return self.compare(logits, self.teacher.logits(image))
