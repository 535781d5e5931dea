"""The training loop, top to bottom, with one replaceable step; the command `tools/train.py`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from hrseg import build, distributed, models, weights
from hrseg import config as settings
from hrseg.cli import command, parser
from hrseg.config import Config, TrainConfig
from hrseg.data.checks import require_sound
from hrseg.data.loader import Batch, Normalise, iterations_per_epoch, train_loader
from hrseg.data.transforms import train_transform
from hrseg.engine import checkpoint, memory, optim
from hrseg.engine.evaluate import PRECISIONS, ValidationPictures, evaluate, set_up, write_evidence
from hrseg.engine.infer import Inference
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.losses import CombinedLoss, LossValue
from hrseg.models.hrnet import HRNet
from hrseg.report import pictures
from hrseg.task import LabelSpace, Normalisation, Sample
from hrseg.tracking import NoTracker, Tracker

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
    """Of one iteration, on this process: loss and its terms, share of pixels that OHEM kept, norm of the gradient."""

    loss: Tensor
    terms: dict[str, Tensor]
    kept_share: Tensor | None
    grad_norm: Tensor | None


def training_step(
    loss_of_batch: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    *,
    accumulate: int,
    clip_norm: float | None,
) -> StepResult:
    """One iteration: forward and backward over the batch in `accumulate` parts, then one step of the optimizer."""
    values = []
    for part, (image, target) in enumerate(_parts(batch, accumulate)):
        more = part < accumulate - 1 and isinstance(loss_of_batch, DistributedDataParallel)
        with loss_of_batch.no_sync() if more else contextlib.nullcontext():  # type: ignore[operator]
            value = loss_of_batch(image, target)
            scaler.scale(value.total / accumulate).backward()
        values.append(value)
    grad_norm = None
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        grad_norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    terms = {name: torch.stack([v.terms[name] for v in values]).mean() for name in values[0].terms}
    kept = [v.kept_share for v in values if v.kept_share is not None]
    loss = torch.stack([v.total.detach() for v in values]).mean()
    return StepResult(loss, terms, torch.stack(kept).mean() if kept else None, grad_norm)


def _parts(batch: Batch, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    assert batch.target is not None  # the training set refuses samples without labels
    return zip(batch.image.chunk(count), batch.target.chunk(count), strict=True)


@dataclass
class State:
    """How far a run is: iterations done, and the best validation so far."""

    step: int = 0
    best: dict[str, Any] = field(default_factory=lambda: {"miou": None, "step": None})


def train(
    config: Config, folder: Path, *, resume: str | None = None, step: Callable[..., StepResult] = training_step
) -> State:
    """Train as the settings say and leave everything in the run folder.

    resume: None begins anew and refuses a folder that holds a run; "auto" goes on where the folder's last checkpoint
    ends, if there is one; a path goes on from that checkpoint. step: what one iteration does.
    """
    device = set_up(config.run)
    with distributed.process_group(device):
        resumed = _resume_point(folder, resume)
        torch.manual_seed(config.run.seed)
        train_set = build.dataset(config, config.data.train_split)
        val_set = build.dataset(config, config.data.val_split)
        # What is misspelt or does not fit is told before the files are looked at.
        build.model_class(config)
        optim.optimizer_class(config.optim)
        batch_size = _batch_size_of_process(config)
        criterion = build.criterion(config, train_set.space)
        _require_same_channels(train_set, val_set)
        sets = {config.data.train_split: train_set, config.data.val_split: val_set}
        space, sample = train_set.space, _first_sample(train_set, sets, config)
        memory.require_room_for_samples(config.augment, sample)
        transform = train_transform(config.augment, space, channels=sample.image.shape[2], dtype=sample.image.dtype)
        known = start = None
        if resumed is not None:
            known = Normalisation.from_plain(resumed["normalisation"])
        elif config.model.weights:
            start = weights.read(config.model.weights.removesuffix("#encoder"))
            known = weights.inspect(start).normalisation
        normalisation = build.normalisation(config, sample, known)

        model = build.model(config, space, normalisation.channels, pretrained=resumed is None)
        if start is not None:
            log.info(str(weights.load(model, start, encoder_only=str(config.model.weights).endswith("#encoder"))))
            start = None  # its tensors are copied: free them
        optim.freeze(model, config.train.freeze)
        part = batch_size // config.train.accumulate
        memory.require_room_for_step(config, model, space, sample, part, device)
        model = build.convert_sync_bn(model, config, device)
        module = LossOfBatch(model, criterion, Normalise(normalisation), config.train)
        module.to(device).to(memory_format=module.layout)  # type: ignore[call-overload]
        optimizer = optim.optimizer(model, config.optim)
        # The settings are sound: now all files are looked at, which may take minutes.
        if config.data.check and distributed.is_main():
            require_sound(sets, workers=config.data.workers)
        distributed.barrier()
        memory.require_room_for_evaluation(config.eval, val_set, device)
        scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
        ema = optim.Ema(model, config.train.ema) if config.train.ema else None
        state = State()
        if resumed is not None:
            state = _restore(resumed, config, model, ema, optimizer, scaler)
            if resume not in (None, "auto") and Path(resume).resolve().parent.parent != folder.resolve():
                state.best = State().best  # another run's best is not in this folder
            resumed = None  # its tensors are copied: free them

        epoch_length = iterations_per_epoch(len(train_set), config.train.batch_size)
        total = config.train.iterations or max(1, round((config.train.epochs or 1) * epoch_length))
        val_every = config.train.val_every or epoch_length
        checkpoint_every = config.train.checkpoint_every or val_every
        loader = train_loader(
            train_set,
            transform,
            batch_size=batch_size,
            seed=config.run.seed,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            start_step=state.step,
            steps=total,
            workers=config.data.workers,
            pin_memory=device.type == "cuda",
        )
        network: nn.Module = torch.compile(module) if config.train.compile else module  # type: ignore[assignment]
        if distributed.world_size() > 1:
            # Some architectures read only some features, some encoders have layers that feed none: no gradient there.
            devices = [device.index] if device.type == "cuda" else None
            partial = not isinstance(model.encoder, HRNet) or not isinstance(model, models.HRNetV2 | models.OCRNet)
            network = DistributedDataParallel(network, device_ids=devices, find_unused_parameters=partial)
        averaged = ema.model if ema else model
        inference = Inference.from_config(config.eval, space.task)

        def save(name: str) -> None:
            if distributed.is_main():
                epoch = state.step // epoch_length
                tensors = {"model": model.state_dict(), "ema": ema.model.state_dict() if ema else None}
                training = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
                progress = {"step": state.step, "epoch": epoch, "rng": {"seed": config.run.seed}, "best": state.best}
                meaning = {"config": config.to_plain(), "normalisation": normalisation.to_plain(), **space.to_plain()}
                checkpoint.save(folder / "checkpoints" / name, tensors | training | progress | meaning)
            distributed.barrier()

        def validate() -> None:
            distributed.share_buffers(averaged)
            drawn = ValidationPictures(val_set, normalisation, config.eval.pictures)
            evaluation = evaluate(
                averaged,
                val_set,
                inference,
                normalisation,
                device=device,
                precision=config.eval.precision or config.train.precision,
                definition=config.eval.definition,
                short_side=config.eval.short_side,
                batch_size=config.eval.batch_size,
                workers=config.data.workers,
                on_prediction=drawn,
            )
            miou = evaluation.scores.miou
            tracker.log(
                {"step": state.step, "epoch": state.step / epoch_length, "kind": "val", **evaluation.headline()}
            )
            tracker.class_table(evaluation.scores.to_plain()["classes"], state.step)
            for name, panel in drawn.panels().items() if main else ():
                tracker.picture(f"val/{name}", panel, state.step)
            if state.best["miou"] is None or miou > state.best["miou"]:
                state.best = {"miou": miou, "step": state.step}
                save("best.pt")
                if distributed.is_main():
                    best = folder / "checkpoints" / "best.pt"
                    write_evidence(folder, evaluation, config, config.data.val_split, best, state.step)

        main = distributed.is_main()
        if main:
            _announce(config, folder, model, (len(train_set), len(val_set)), total, state.step, device)
        with Tracker(folder, config, start_step=state.step) if main else NoTracker() as tracker, _Stop(device) as stop:
            bar = tqdm(total=total, initial=state.step, unit="it", disable=not main, dynamic_ncols=True,
                       mininterval=0.5 if sys.stderr.isatty() else 10)  # fmt: skip
            clock = _Clock(config.train.batch_size)
            for batch in clock.timed(loader):
                if state.step == 0 and main:
                    tracker.picture("batch/step_0", _batch_sheet(batch, normalisation, space), 0)
                # Nothing random on the device (dropout) depends on what ran before: resume needs no saved state.
                torch.manual_seed(_mix(config.run.seed, state.step, distributed.rank()))
                batch = batch.to(device)
                optim.training_mode(model, freeze_bn=config.train.freeze_bn, frozen=config.train.freeze)
                lr = optim.learning_rate(state.step, total, config.optim)
                optim.set_learning_rate(optimizer, lr)
                result = step(network, optimizer, scaler, batch,
                              accumulate=config.train.accumulate, clip_norm=config.train.clip_norm)  # fmt: skip
                state.step += 1
                if ema:
                    ema.update(model, state.step)

                due = state.step == total
                log_due = state.step % config.train.log_every == 0 or due
                val_due = state.step % val_every == 0 or due
                save_due = state.step % checkpoint_every == 0 or due
                if log_due or val_due or save_due:
                    _require_finite(result.loss, state.step, batch)
                if log_due:
                    record = _record(result, state.step, epoch_length, lr, clock)
                    tracker.log(record)
                    bar.set_postfix(_postfix(record, state), refresh=False)
                bar.update()
                with clock.paused():
                    if val_due:
                        validate()
                    if save_due:
                        save("last.pt")
                clock.lap()
                if stop.asked(log_due or device.type == "cpu") and not due:
                    save("last.pt")
                    bar.close()
                    if main:
                        print(f"Stopped after iteration {state.step} of {total}. Go on with --resume.")
                    return state
            bar.close()
    return state


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


def _resume_point(folder: Path, resume: str | None) -> dict[str, Any] | None:
    """The checkpoint to go on from; None to begin anew."""
    last = folder / "checkpoints" / "last.pt"
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and (resume is None or last.exists()):
        resume = "auto"
    if resume is None:
        if last.exists() or (folder / "log.jsonl").exists():
            raise HrsegError(folder, "holds a run already.", "Go on with it by --resume, or choose run.dir=OTHER.")
        return None
    if resume == "auto":
        return checkpoint.load(last) if last.exists() else None
    return checkpoint.load(resume)


def _restore(
    saved: dict[str, Any],
    config: Config,
    model: nn.Module,
    ema: optim.Ema | None,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> State:
    """Put a checkpoint's state into the pieces of a run. Raises ConfigError where they are of another kind."""
    if not saved.get("optimizer"):
        what = "the checkpoint has no state of an optimizer, so no run can go on from it."
        raise ConfigError("--resume", what, "Start from its weights: model.weights=PATH.")
    groups = [len(group["params"]) for group in optimizer.param_groups]
    before = [len(group["params"]) for group in saved["optimizer"]["param_groups"]]
    if saved["config"]["optim"]["name"] != config.optim.name or groups != before:
        what = "the optimizer, or which parameters it treats alike, was changed since the checkpoint."
        way_out = "Set optim.name, optim.head_lr, optim.decay_all and train.freeze as they were."
        raise ConfigError("optim", what, way_out)
    checkpoint.load_weights(model, saved["model"], "resume")
    if (ema is None) != (saved["ema"] is None):
        raise ConfigError("train.ema", "was switched since the checkpoint.", "Set it as it was.")
    if ema:
        checkpoint.load_weights(ema.model, saved["ema"], "resume")
    as_set = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved["optimizer"])
    for group, options in zip(optimizer.param_groups, as_set, strict=True):
        group.update(options)  # a changed weight decay or momentum counts from here on
    scaler.load_state_dict(saved["scaler"])
    return State(saved["step"], saved["best"])


def _first_sample(train_set: Any, sets: dict[str, Any], config: Config) -> Sample:
    try:
        return train_set[0]
    except HrsegError:
        if config.data.check and distributed.is_main():
            require_sound(sets, workers=config.data.workers)  # tells it together with all else that is wrong
        raise


def _require_same_channels(train_set: Any, val_set: Any) -> None:
    channels = [getattr(dataset, "in_channels", None) for dataset in (train_set, val_set)]
    if channels[0] != channels[1]:
        what = f"training images have {channels[0]} channels, validation images {channels[1]}."
        raise DataError("data", what, "Bring them to the same kind.")


def _mix(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


class _Clock:
    """Images a second and the share of time spent waiting for data, since the last record."""

    def __init__(self, images_per_step: int):
        self._images, self.began = images_per_step, time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self._since, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def timed(self, loader: Any) -> Iterator[Batch]:
        iterator = iter(loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - start
            yield batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not training and does not count for the rate."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def lap(self) -> None:
        self._steps += 1

    def read(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self._since
        rate = (self._steps + 1) * self._images / elapsed
        values = {"images_per_s": rate, "data_wait": self._waited / elapsed, "time_s": time.perf_counter() - self.began}
        self._reset()
        self._steps = -1  # the iteration that reads counts for the record it writes
        return values


class _Stop:
    """SIGTERM and the first Ctrl-C ask the loop to stop after the running iteration; a second Ctrl-C interrupts it."""

    def __init__(self, device: torch.device):
        self._device, self._flag = device, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not the main thread
                self._before[number] = signal.signal(number, self._raise_flag)
        return self

    def _raise_flag(self, number: int, _frame: object) -> None:
        self._flag = True
        signal.signal(number, self._before[number])

    def asked(self, ask_others: bool) -> bool:
        """Whether to stop. With several processes they agree, at the iterations that log."""
        if distributed.world_size() == 1:
            return self._flag
        return ask_others and distributed.any_rank(self._flag, self._device)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _record(result: StepResult, step: int, epoch_length: int, lr: float, clock: _Clock) -> dict[str, Any]:
    """The line of log.jsonl for one iteration; loss and kept share are means over all processes."""
    optional = {"kept_share": result.kept_share, "grad_norm": result.grad_norm}
    values = {"loss": result.loss, **{f"loss_{k}": v for k, v in result.terms.items()}}
    values |= {k: v for k, v in optional.items() if v is not None}
    means = distributed.sum_over_ranks(torch.stack([v.float() for v in values.values()])) / distributed.world_size()
    numbers = dict(zip(values, means.tolist(), strict=True))
    return {"step": step, "epoch": step / epoch_length, "kind": "train", **numbers, "lr": lr, **clock.read()}


def _require_finite(loss: Tensor, step: int, batch: Batch) -> None:
    """End the run on every process if the loss of one is NaN or infinite, before anything is scored or saved."""
    finite = bool(torch.isfinite(loss))
    if distributed.any_rank(not finite, loss.device):
        where = f" on images {', '.join(batch.names)}" if not finite else " on another process"
        raise HrsegError(
            f"iteration {step}",
            f"the loss is {loss.item()}{where}.",
            "A lower optim.lr, optim.warmup, train.clip_norm or train.precision=fp32 usually helps.",
        )


def _postfix(record: dict[str, Any], state: State) -> dict[str, str]:
    shown = {"loss": f"{record['loss']:.3f}"}
    if "kept_share" in record:
        shown["kept"] = f"{record['kept_share']:.0%}"
    if state.best["miou"] is not None:
        shown["mIoU"] = f"{state.best['miou']:.3f}"
    return shown | {"img/s": f"{record['images_per_s']:.1f}", "waiting": f"{record['data_wait']:.0%}"}


def _batch_sheet(batch: Batch, normalisation: Normalisation, space: LabelSpace) -> np.ndarray:
    """The batch as the network meets it: each image beside its labels."""
    pairs = []
    assert batch.target is not None
    for image, target in list(zip(batch.image, batch.target, strict=True))[:8]:
        rgb = pictures.displayable(image.permute(1, 2, 0).numpy(), normalisation)
        pairs.append(pictures.beside([rgb, pictures.overlay(rgb, target.numpy(), space)]))
    return pictures.sheet(pairs, columns=2)


def _announce(
    config: Config, folder: Path, model: nn.Module, sizes: tuple[int, int], total: int, done: int, device: torch.device
) -> None:
    """Say what is about to happen, and write config.yaml."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise HrsegError(folder, f"cannot be written: {error.strerror}.", "Choose another run.dir.") from error
    parameters = sum(p.numel() for p in model.parameters())
    start = config.model.weights or config.model.encoder_weights
    print(f"{config.model.arch} over {config.model.encoder}, {parameters:,} parameters, on {device}")
    if done:
        print(f"going on after iteration {done} of {total}")
    elif not start:
        print("NO PRETRAINED WEIGHTS: this model starts from random ones (model.encoder_weights, model.weights)")
    print(f"{sizes[0]} training and {sizes[1]} validation images, {total} iterations, in {folder}")
    if distributed.world_size() > 1 and device.type == "cpu" and config.model.sync_bn:
        print("batch norm: plain, of each process by itself (on the CPU there is no synchronised one)")


@command
def main(argv: Sequence[str]) -> int:
    """tools/train.py: train as a config says."""
    arguments = parser(
        "Train a model. Everything of the run is left in runs/<name of the config>/.",
        "examples:\n"
        "  tools/train.py configs/demo.yaml\n"
        "  tools/train.py configs/cityscapes.yaml data.root=/data/cityscapes train.batch_size=8 optim.lr=0.007\n"
        "  tools/train.py configs/cityscapes.yaml --resume\n"
        "  torchrun --nproc-per-node=4 tools/train.py configs/cityscapes.yaml",
    )
    arguments.add_argument("config", metavar="CONFIG", help="a YAML file; configs/ has some")
    arguments.add_argument(
        "settings", nargs="*", metavar="key=value",
        help="change single settings, e.g. train.iterations=200 model.encoder=hrnetv2_w18",
    )  # fmt: skip
    arguments.add_argument(
        "--resume", nargs="?", const="auto", metavar="auto|PATH",
        help="go on where the run folder's last checkpoint, or the one at PATH, ends",
    )  # fmt: skip
    args = arguments.parse_intermixed_args(argv)
    if args.resume and "=" in args.resume and not Path(args.resume).exists():  # --resume key=value
        args.settings, args.resume = [args.resume, *args.settings], "auto"
    config = settings.load(args.config, args.settings)
    folder = config.run.dir or Path("runs") / Path(args.config).stem
    state = train(config, folder, resume=args.resume)
    if distributed.rank_from_environment() == 0 and state.best["miou"] is not None:
        print(f"best mIoU {state.best['miou']:.4f} at iteration {state.best['step']}: {folder}/checkpoints/best.pt")
        print(f"pictures (image, truth, prediction, error): {folder}/images/val/")
    return 0
