"""The state of a training run: what changes with each iteration, saved in checkpoints and restored from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrseg import distributed
from hrseg.build import optimizer as optimizers
from hrseg.build.changes import data_identity
from hrseg.build.training import TrainingPlan
from hrseg.data.loader import Batch, Normalise, train_loader
from hrseg.data.unlabelled import unlabelled_loader
from hrseg.errors import ConfigError
from hrseg.inference import forward
from hrseg.train.step import LossOfBatch, Means
from hrseg.train.unlabelled import PseudoLabels
from hrseg.weights import checkpoint


@dataclass
class State:
    """How far a run is: iterations done, the best validation so far, the iteration after which the last one was.

    threshold: of a binary task, the best one in the last validation.
    """

    step: int = 0
    best: dict[str, Any] = field(default_factory=lambda: {"miou": None, "step": None})
    validated: int = 0
    threshold: float | None = None


class Run:
    """A plan that is being carried out. Its state after any iteration is a function of the settings alone.

    saved: a checkpoint whose state is restored.
    """

    def __init__(self, plan: TrainingPlan, saved: Mapping[str, Any] | None = None):
        self.plan, settings = plan, plan.settings
        self.ema = optimizers.Ema(plan.model, settings.ema) if settings.ema else None
        self.pseudo_labels = self._pseudo_labels()
        self.module = LossOfBatch(
            plan.model,
            plan.criterion,
            Normalise(plan.normalisation),
            settings,
            plan.distillation,
            self.pseudo_labels,
        )
        self.module.to(plan.device).to(memory_format=plan.layout)  # type: ignore[call-overload]  # torch's stub lacks it
        self.scaler = torch.amp.GradScaler(plan.device.type, enabled=settings.precision == "fp16")
        self.state, self.means = State(), Means()
        if saved is not None:
            self._restore(saved)
        self.network = _parallel(self.module, plan)

    @property
    def averaged(self) -> nn.Module:
        """The model that is validated: the running average where there is one."""
        return self.ema.model if self.ema else self.plan.model

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.state.step / self.plan.epoch_length

    @property
    def is_complete(self) -> bool:
        """Whether the last iteration is done."""
        return self.state.step == self.plan.iterations

    def is_due(self, every: int) -> bool:
        """Whether what happens every so many iterations, and after the last, happens now."""
        return self.state.step % every == 0 or self.is_complete

    def batches(self, start_step: int, steps: int, workers: int | None = None) -> Iterable[Batch]:
        """This process's batch of each iteration from start_step + 1 to steps."""
        plan = self.plan
        common: dict[str, Any] = {
            "seed": plan.seed,
            "rank": distributed.rank(),
            "world_size": distributed.world_size(),
            "start_step": start_step,
            "steps": steps,
            "workers": plan.workers if workers is None else workers,
            "pin_memory": plan.device.type == "cuda",
        }
        labelled = train_loader(
            plan.train_set, plan.transform, batch_size=plan.batch_size, rare=plan.rare_classes, **common
        )
        if plan.unlabelled is None:
            return labelled
        images, transform, size = plan.unlabelled.images, plan.unlabelled.transform, plan.unlabelled.batch_size
        unlabelled = unlabelled_loader(images, transform, batch_size=size, **common)
        return (batch._replace(unlabelled=views) for batch, views in zip(labelled, unlabelled, strict=True))

    def _pseudo_labels(self) -> PseudoLabels | None:
        """Labels by the teacher where there is one, else by the running average."""
        plan = self.plan
        if plan.unlabelled is None:
            return None
        if plan.distillation is not None:
            logits: Callable[[Tensor], Tensor] = plan.distillation.teacher.logits
        else:
            assert self.ema is not None
            averaged, normalise = self.ema.model, Normalise(plan.normalisation).to(plan.device)

            def logits(image: Tensor) -> Tensor:
                return forward(averaged, normalise(image))

        return PseudoLabels(logits, plan.space, plan.unlabelled.threshold, plan.unlabelled.weight)

    def learning_rate(self) -> float:
        """The learning rate of the next iteration."""
        return optimizers.learning_rate(self.state.step, self.plan.iterations, self.plan.schedule)

    @property
    def reads_each_step(self) -> bool:
        """Whether each iteration asks if loss and gradient are finite: on CUDA that waits for the device."""
        return self.plan.device.type != "cuda" or self.plan.settings.on_nonfinite == "skip"

    def checkpoint(self) -> dict[str, Any]:
        """The state after this iteration, and what it means."""
        plan, state = self.plan, self.state
        return {
            "model": plan.model.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else None,
            "optimizer": plan.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": state.step,
            "epoch": state.step // plan.epoch_length,
            "validated": state.validated,
            "rng": {"seed": plan.seed, "world_size": distributed.world_size()},
            "best": state.best,
            "threshold": state.threshold,
            "means": self.means.to_plain(),
            "config": plan.config.to_plain(),
            "data": data_identity(plan.train_set, plan.val_set),
            "teachers": plan.teachers,
            "normalisation": plan.normalisation.to_plain(),
            **plan.space.to_plain(),
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Put a checkpoint's state into the pieces. Raises ConfigError where they are of another kind."""
        optimizer = self.plan.optimizer
        if not saved.get("optimizer"):
            what = "the checkpoint has no state of an optimizer, so no run can go on from it."
            raise ConfigError("--resume", what, "Start from its weights: model.weights=PATH.")
        groups = [len(group["params"]) for group in optimizer.param_groups]
        before = [len(group["params"]) for group in saved["optimizer"]["param_groups"]]
        if saved["config"]["optim"]["name"] != self.plan.schedule.name or groups != before:
            what = "the optimizer, or which parameters it treats alike, was changed since the checkpoint."
            way_out = "Set optim.name, optim.head_lr, optim.decay_all and train.freeze as they were."
            raise ConfigError("optim", what, way_out)
        checkpoint.load_weights(self.plan.model, saved["model"], "resume")
        if (self.ema is None) != (saved["ema"] is None):
            raise ConfigError("train.ema", "was switched since the checkpoint.", "Set it as it was.")
        if self.ema:
            checkpoint.load_weights(self.ema.model, saved["ema"], "resume")
        as_set = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]
        optimizer.load_state_dict(saved["optimizer"])
        for group, options in zip(optimizer.param_groups, as_set, strict=True):
            group.update(options)  # a changed weight decay or momentum counts from here on
        optimizers.prepare_state(optimizer)
        self.scaler.load_state_dict(saved["scaler"])
        self.means = Means(saved.get("means"), self.plan.device)
        validated = saved.get("validated", saved["step"])
        self.state = State(saved["step"], saved["best"], validated, saved.get("threshold"))


def _parallel(module: nn.Module, plan: TrainingPlan) -> nn.Module:
    """The module compiled, if asked for, and with gradients averaged over the processes where there are several."""
    network: nn.Module = torch.compile(module) if plan.settings.compile else module  # type: ignore[assignment]  # a module
    if distributed.world_size() == 1:
        return network
    devices = [plan.device.index] if plan.device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, find_unused_parameters=plan.find_unused)
