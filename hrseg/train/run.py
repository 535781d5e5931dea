"""The pieces of one training run, made from settings or put back by a checkpoint, and its one iteration."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrseg import build, distributed, models, weights
from hrseg.build import memory
from hrseg.build import optimizer as optim
from hrseg.config import Config, TrainConfig
from hrseg.data.checks import find_problems, refuse_problems
from hrseg.data.dataset import Dataset
from hrseg.data.loader import Batch, Loader, Normalise, iterations_per_epoch, train_loader
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.fast.narrow_batch_norm import widen_batch_norm
from hrseg.losses import CombinedLoss, LossValue
from hrseg.models.hrnet import HRNet
from hrseg.models.recompute import recompute_activations
from hrseg.runtime import PRECISIONS
from hrseg.task import Normalisation, Sample
from hrseg.train import resume as resumption
from hrseg.weights import checkpoint

log = logging.getLogger(__name__)


class LossOfBatch(nn.Module):
    """Normalise, predict, compare, as one module, so that DistributedDataParallel sees one forward pass.

    forward(image [N, C, H, W] in its own type, target) -> LossValue. The loss is computed in float32.
    """

    def __init__(self, model: nn.Module, criterion: CombinedLoss, normalise: nn.Module, config: TrainConfig):
        super().__init__()
        self.model, self.criterion, self.normalise, self.precision = model, criterion, normalise, config.precision
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format

    def forward(self, image: Tensor, target: Tensor) -> LossValue:
        with torch.autocast(image.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"):
            predict = getattr(self.model, "forward_train", self.model)
            output = predict(self.normalise(image).contiguous(memory_format=self.layout))
        return self.criterion(output, target)


class StepResult(NamedTuple):
    """Of one iteration, on this process: loss and its terms, share of pixels that OHEM kept, norm of the gradient.

    stepped: False where the optimizer was left alone, because loss or gradient of some process were not finite.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    kept_share: Tensor | None
    grad_norm: Tensor
    stepped: bool = True

    def means(self) -> dict[str, float]:
        """The figures of log.jsonl, means over all processes."""
        values = {"loss": self.loss, **{f"loss_{name}": value for name, value in self.terms.items()}}
        values |= {} if self.kept_share is None else {"kept_share": self.kept_share}
        values["grad_norm"] = self.grad_norm
        stacked = torch.stack([value.float() for value in values.values()])
        means = distributed.sum_over_ranks(stacked) / distributed.world_size()
        return dict(zip(values, means.tolist(), strict=True))


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
    for part, (image, target) in enumerate(_parts(batch, accumulate)):
        more = part < accumulate - 1 and isinstance(loss_of_batch, DistributedDataParallel)
        with loss_of_batch.no_sync() if more else contextlib.nullcontext():  # type: ignore[operator]
            value = loss_of_batch(image, target)
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


def _parts(batch: Batch, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    assert batch.target is not None  # the training set refuses samples without labels
    return zip(batch.image.chunk(count), batch.target.chunk(count), strict=True)


@dataclass
class State:
    """How far a run is: iterations done, the best validation so far, the iteration after which the last one was."""

    step: int = 0
    best: dict[str, Any] = field(default_factory=lambda: {"miou": None, "step": None})
    validated: int = 0


class Run:
    """All that a run is made of; the state after any iteration is a function of the settings alone.

    saved: a checkpoint whose state is put back. check: look at all files of the data sets first.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        saved: dict[str, Any] | None,
        *,
        check: bool = True,
    ):
        self.config, self.device = config, device
        if saved is not None:
            resumption.require_same_meaning(saved, config)
        torch.manual_seed(config.run.seed)
        sets = build.data_sets(config)
        self.train_set, self.val_set = sets[config.data.train_split], sets[config.data.val_split]
        self.space = self.train_set.space
        if saved is not None:
            resumption.require_same_data(saved, self.train_set, self.val_set)
        # What is misspelt or does not fit is told before the files are looked at.
        build.model_class(config)
        optim.optimizer_class(config.optim)
        self.batch_size = _batch_size_of_process(config)
        criterion = build.criterion(config, self.space)
        _require_same_channels(self.train_set, self.val_set)
        check = check and config.data.check and distributed.is_main()

        def require_sound() -> None:
            if check:
                refuse_problems(find_problems(sets, workers=config.data.workers), sets)

        sample = _first_sample(self.train_set, require_sound)
        memory.require_room_for_samples(config.augment, sample)
        self._transform = build.train_transform(
            config.augment, self.space, channels=sample.image.shape[2], dtype=sample.image.dtype
        )
        # The files are looked at, which may take a while, before weights are fetched.
        require_sound()
        distributed.wait_for_main()
        known = start = None
        if saved is not None:
            known = Normalisation.from_plain(saved["normalisation"])
        elif config.model.weights:
            start = weights.read_checkpoint(config.model.weights.removesuffix("#encoder"))
            known = weights.inspect(start).normalisation
        self.normalisation = build.normalisation(config, sample, known)

        self.model = build.model(config, self.space, self.normalisation.channels, pretrained=saved is None)
        if start is not None:
            log.info(str(weights.load(self.model, start, encoder_only=str(config.model.weights).endswith("#encoder"))))
            start = None  # its tensors are copied: free them
        optim.freeze(self.model, config.train.freeze)
        if config.train.recompute and not recompute_activations(self.model):
            raise ConfigError(
                "train.recompute", f"is for HRNet encoders, not {config.model.encoder}.", "Set it to false."
            )
        part = self.batch_size // config.train.accumulate
        memory.require_room_for_step(config, self.model, self.space, sample, part, device)
        self.model = build.convert_sync_bn(self.model, config, device)
        if device.type == "cpu" and config.train.channels_last and not config.train.compile:
            widen_batch_norm(self.model)
        self.module = LossOfBatch(self.model, criterion, Normalise(self.normalisation), config.train)
        self.module.to(device).to(memory_format=self.module.layout)  # type: ignore[call-overload]
        self.optimizer = optim.optimizer(self.model, config.optim)
        memory.require_room_for_evaluation(config.eval, self.val_set, device)
        self.train_set, self.val_set = (
            build.cached(config, dataset, progress=distributed.is_main()) for dataset in (self.train_set, self.val_set)
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
        self.ema = optim.Ema(self.model, config.train.ema) if config.train.ema else None
        self.state = State()
        if saved is not None:
            self._restore(saved)

        self.epoch_length = iterations_per_epoch(len(self.train_set), config.train.batch_size)
        self.total = config.train.iterations or max(1, round((config.train.epochs or 1) * self.epoch_length))
        self.network: nn.Module = torch.compile(self.module) if config.train.compile else self.module  # type: ignore[assignment]
        if distributed.world_size() > 1:
            # Some architectures read only some features, some encoders have layers that feed none: no gradient there.
            devices = [device.index] if device.type == "cuda" else None
            model = self.model
            partial = not isinstance(model.encoder, HRNet) or not isinstance(model, models.HRNetV2 | models.OCRNet)
            # Else gradients are packed anew after the first iteration, and sums over three or more then come in another
            # order than right after a resume.
            partial |= distributed.world_size() > 2 and (device.type == "cpu" or config.run.deterministic)
            self.network = DistributedDataParallel(self.network, device_ids=devices, find_unused_parameters=partial)

    @property
    def averaged(self) -> nn.Module:
        """The model that is validated: the running average where there is one."""
        return self.ema.model if self.ema else self.model

    def batches(self, start_step: int, steps: int, workers: int | None = None) -> Loader:
        """This process's batch of each iteration from start_step + 1 to steps."""
        return train_loader(
            self.train_set,
            self._transform,
            batch_size=self.batch_size,
            seed=self.config.run.seed,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            start_step=start_step,
            steps=steps,
            workers=self.config.data.workers if workers is None else workers,
            pin_memory=self.device.type == "cuda",
        )

    def learning_rate(self) -> float:
        """Of the next iteration."""
        return optim.learning_rate(self.state.step, self.total, self.config.optim)

    def advance(self, batch: Batch, step: Callable[..., StepResult] = training_step) -> StepResult:
        """One iteration. step: what it does between setting the learning rate and updating the running average."""
        settings = self.config.train
        # Nothing random on the device (dropout) depends on what ran before: resume needs no saved state.
        torch.manual_seed(_mix(self.config.run.seed, self.state.step, distributed.rank()))
        optim.training_mode(self.model, freeze_bn=settings.freeze_bn, frozen=settings.freeze)
        optim.set_learning_rate(self.optimizer, self.learning_rate())
        skip = settings.on_nonfinite == "skip"
        statistics = [buffer.clone() for buffer in self.model.buffers()] if skip else []
        result = step(
            self.network,
            self.optimizer,
            self.scaler,
            batch.to(self.device),
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            require_finite=self.reads_each_step,
        )
        self.state.step += 1
        if result.stepped and self.ema:
            self.ema.update(self.model, self.state.step)
        if statistics and not result.stepped:
            for buffer, before in zip(
                self.model.buffers(), statistics, strict=True
            ):  # batch norm has seen the bad batch
                buffer.copy_(before)
        return result

    @property
    def reads_each_step(self) -> bool:
        """Whether each iteration asks if loss and gradient are finite: on CUDA that waits for the device."""
        return self.device.type != "cuda" or self.config.train.on_nonfinite == "skip"

    def checkpoint(self) -> dict[str, Any]:
        """The state after this iteration, and what it means."""
        state = self.state
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": state.step,
            "epoch": state.step // self.epoch_length,
            "validated": state.validated,
            "rng": {"seed": self.config.run.seed, "world_size": distributed.world_size()},
            "best": state.best,
            "config": self.config.to_plain(),
            "data": resumption.data_identity(self.train_set, self.val_set),
            "normalisation": self.normalisation.to_plain(),
            **self.space.to_plain(),
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        """Put a checkpoint's state into the pieces. Raises ConfigError where they are of another kind."""
        optimizer, config = self.optimizer, self.config
        if not saved.get("optimizer"):
            what = "the checkpoint has no state of an optimizer, so no run can go on from it."
            raise ConfigError("--resume", what, "Start from its weights: model.weights=PATH.")
        groups = [len(group["params"]) for group in optimizer.param_groups]
        before = [len(group["params"]) for group in saved["optimizer"]["param_groups"]]
        if saved["config"]["optim"]["name"] != config.optim.name or groups != before:
            what = "the optimizer, or which parameters it treats alike, was changed since the checkpoint."
            way_out = "Set optim.name, optim.head_lr, optim.decay_all and train.freeze as they were."
            raise ConfigError("optim", what, way_out)
        checkpoint.load_weights(self.model, saved["model"], "resume")
        if (self.ema is None) != (saved["ema"] is None):
            raise ConfigError("train.ema", "was switched since the checkpoint.", "Set it as it was.")
        if self.ema:
            checkpoint.load_weights(self.ema.model, saved["ema"], "resume")
        as_set = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]
        optimizer.load_state_dict(saved["optimizer"])
        for group, options in zip(optimizer.param_groups, as_set, strict=True):
            group.update(options)  # a changed weight decay or momentum counts from here on
        optim.prepare_state(optimizer)
        self.scaler.load_state_dict(saved["scaler"])
        self.state = State(saved["step"], saved["best"], saved.get("validated", saved["step"]))


def _batch_size_of_process(config: Config) -> int:
    parts = distributed.world_size() * config.train.accumulate
    if config.train.batch_size % parts:
        raise ConfigError(
            "train.batch_size",
            f"{config.train.batch_size} images cannot be split evenly over {distributed.world_size()} processes "
            f"x train.accumulate={config.train.accumulate}.",
            "It counts the images of all processes together: choose a multiple.",
        )
    return config.train.batch_size // distributed.world_size()


def _first_sample(train_set: Dataset, require_sound: Callable[[], None]) -> Sample:
    """The first image; where it cannot be read, the check tells it together with all else."""
    try:
        return train_set[0]
    except HrsegError:
        require_sound()
        raise


def _require_same_channels(train_set: Dataset, val_set: Dataset) -> None:
    channels = [dataset.in_channels for dataset in (train_set, val_set)]
    if channels[0] != channels[1]:
        what = f"training images have {channels[0]} channels, validation images {channels[1]}."
        raise DataError("data", what, "Bring them to the same kind.")


def _mix(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
