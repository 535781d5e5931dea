"""The training loop, top to bottom, with one replaceable step."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hrseg import build, distributed
from hrseg.build.tracker import tracker as tracker_of
from hrseg.config import Config
from hrseg.console import counted
from hrseg.data.loader import Batch
from hrseg.errors import HrsegError
from hrseg.evaluate.evaluation import Interrupted, evaluate
from hrseg.evaluate.evidence import write_evidence
from hrseg.evaluate.validation_pictures import ValidationPictures
from hrseg.inference import Inference
from hrseg.report import page, pictures
from hrseg.task import LabelSpace, Normalisation
from hrseg.tracking import NoTracker
from hrseg.train import resume as resumption
from hrseg.train.nonfinite import FiniteWatch
from hrseg.train.run import Run, State, StepResult, training_step
from hrseg.weights import checkpoint

log = logging.getLogger(__name__)


def train(
    config: Config,
    folder: Path,
    *,
    resume: str | None = None,
    step: Callable[..., StepResult] = training_step,
) -> State:
    """Train as the settings say and leave everything in the run folder.

    resume: None begins anew and refuses a folder that holds a run; "auto" goes on where the folder's last checkpoint
    ends, if there is one; a path goes on from that checkpoint. step: what one iteration does.
    """
    device = build.device(config.run)
    with distributed.process_group(device), _told_if_not_written(folder), _Stop(device) as stop:
        try:
            return _train(config, folder, resume, step, device, stop)
        except _NothingToSave:
            if distributed.is_main():
                print("Stopped before an iteration was done. Nothing is lost: start again in the same way.")
            return State()


def _train(
    config: Config,
    folder: Path,
    resume: str | None,
    step: Callable[..., StepResult],
    device: torch.device,
    stop: _Stop,
) -> State:
    point = resumption.find(folder, resume)
    run = Run(config, device, point.saved if point else None)
    state, total, main = run.state, run.total, distributed.is_main()
    val_every = config.train.val_every or run.epoch_length
    checkpoint_every = config.train.checkpoint_every or val_every
    inference = Inference.from_config(config.eval, run.space.task)
    checkpoints = folder / "checkpoints"
    if point and point.path.resolve().parent != checkpoints.resolve():
        state.best = State().best  # another run's best is not in this folder

    def save(name: str) -> None:
        if main:
            tracker.sync()
            checkpoint.save(checkpoints / name, run.checkpoint(), keep_previous=name == "last.pt")
        distributed.barrier()

    def validate() -> None:
        distributed.share_buffers(run.averaged)
        drawn = ValidationPictures(run.val_set, run.normalisation, config.eval.pictures)
        evaluation = evaluate(
            run.averaged,
            run.val_set,
            inference,
            run.normalisation,
            device=device,
            precision=config.eval.precision or config.train.precision,
            definition=config.eval.definition,
            cluster=config.eval.cluster,
            boundary_ratio=config.eval.boundary_ratio,
            short_side=config.eval.short_side,
            batch_size=config.eval.batch_size,
            workers=config.data.workers,
            # Made anew each time: an engine would take longer, and hold the weights once more.
            backend="torch" if config.eval.backend == "auto" else config.eval.backend,
            on_prediction=drawn,
            interrupted=stop.is_asked,
        )
        miou = evaluation.scores.miou
        epoch = state.step / run.epoch_length
        tracker.log({"step": state.step, "epoch": epoch, "kind": "val", **evaluation.headline()})
        tracker.class_table(evaluation.scores.to_plain()["classes"], state.step)
        if main:
            tracker.examples(drawn.examples(), run.space, state.step)
        # Done again after a stop, a validation finds the same score: what was not yet written is.
        if state.best["step"] in (None, state.step) or miou > state.best["miou"]:
            state.best = {"miou": miou, "step": state.step}
            save("best.pt")
            if main:
                best = checkpoints / "best.pt"
                write_evidence(folder, evaluation, config, config.data.val_split, best, state.step)
            drawn.save_examples(evaluation, folder)
        state.validated = state.step

    if main:
        _announce(run, folder, resumption.changed_settings(point.saved, config) if point else [])
    elsewhere = point is not None and point.path.resolve() != (checkpoints / "last.pt").resolve()
    del point  # its tensors are copied: free them
    log_end = {"start_step": state.step, "validated": state.validated}
    with tracker_of(config, folder, **log_end) if main else NoTracker() as tracker:
        bar = tqdm(total=total, initial=state.step, unit="it", disable=not main, dynamic_ncols=True,
                   mininterval=0.5 if sys.stderr.isatty() else 10)  # fmt: skip
        clock, watch = _Clock(config.train.batch_size), FiniteWatch(run, folder)
        stop.postpone()
        try:
            if elsewhere:
                save("last.pt")  # whatever happens next, this is now where the run in this folder goes on
            if state.validated < state.step and (state.step % val_every == 0 or state.step == total):
                validate()
                save("last.pt")
            for batch in clock.timed(run.batches(state.step, total)):
                if state.step == 0 and main:
                    tracker.picture("batch/step_0", _batch_sheet(batch, run.normalisation, run.space), 0)
                lr = run.learning_rate()
                result = run.advance(batch, step)

                due = state.step == total
                log_due = state.step % config.train.log_every == 0 or due
                val_due = state.step % val_every == 0 or due
                save_due = state.step % checkpoint_every == 0 or due
                watch.see(result)
                if (run.reads_each_step or log_due or val_due or save_due) and (skipped := watch.record()):
                    tracker.log(skipped)
                if log_due:
                    epoch = state.step / run.epoch_length
                    figures = {**result.means(), "lr": lr, **clock.read()}
                    record = {"step": state.step, "epoch": epoch, "kind": "train", **figures}
                    tracker.log(record)
                    bar.set_postfix(_postfix(record, state), refresh=False)
                bar.update()
                with clock.paused():
                    if val_due:
                        validate()
                        if log_due:
                            bar.set_postfix(_postfix(record, state))  # with the scores as they are now
                    if save_due:
                        save("last.pt")
                clock.lap()
                if not due and stop.is_agreed(log_due or device.type == "cpu"):
                    raise Interrupted
            tracker.finished(checkpoints / "best.pt", state.best)
        except Interrupted:
            save("last.pt")
            bar.close()
            if main:
                print(f"Stopped after iteration {state.step} of {total}. Go on with --resume.")
        bar.close()
    if main and (folder / "metrics.json").exists():
        page.write_report(folder)
    return state


@contextlib.contextmanager
def _told_if_not_written(folder: Path) -> Iterator[None]:
    """A full disk or a folder that may not be written, wherever it is met, becomes one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        what = f"cannot be written: {error.strerror}."
        way_out = "Make room there, or give leave to write; then go on by --resume."
        raise HrsegError(error.filename or folder, what, way_out) from error


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


class _NothingToSave(BaseException):
    """The run is to stop, and no iteration was done. Not an Exception: nothing on the way catches it."""


class _Stop:
    """SIGTERM and the first Ctrl-C ask the loop to stop after the running iteration, or to abandon its validation.

    Before the loop they end the run at once. A second Ctrl-C interrupts in any case, but not under torchrun, which
    passes on to every process what these were sent already.
    """

    def __init__(self, device: torch.device):
        self._device, self._flag, self._at_once = device, False, True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not the main thread
                self._before[number] = signal.signal(number, self._take_notice)
        return self

    def _take_notice(self, number: int, _frame: object) -> None:
        again, self._flag = self._flag, True
        if self._at_once:
            raise _NothingToSave
        if again and number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt

    def postpone(self) -> None:
        """From now on there is something to save."""
        self._at_once = False
        if self._flag:
            raise _NothingToSave

    def is_asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self._flag

    def is_agreed(self, ask_others: bool) -> bool:
        """Whether to stop. With several processes they agree, at the iterations that log."""
        if distributed.world_size() == 1:
            return self._flag
        return ask_others and distributed.any_rank(self._flag, self._device)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


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


def _announce(run: Run, folder: Path, changed: list[resumption.Change]) -> None:
    """Say what is about to happen, and write config.yaml."""
    config, done, device = run.config, run.state.step, run.device
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise HrsegError(folder, f"cannot be written: {error.strerror}.", "Choose another run.dir.") from error
    parameters = sum(p.numel() for p in run.model.parameters())
    start = config.model.weights or config.model.encoder_weights
    print(f"{config.model.arch} over {config.model.encoder}, {parameters:,} parameters, on {device}")
    if done:
        print(f"going on after iteration {done} of {run.total}")
        if changed:
            print("\n  ".join(["settings that are not as they were:", *map(str, changed)]))
    elif not start:
        print("NO PRETRAINED WEIGHTS: this model starts from random ones (model.encoder_weights, model.weights)")
    images = f"{len(run.train_set)} training and {counted(len(run.val_set), 'validation image')}"
    print(f"{images}, {run.total} iterations, in {folder}")
    if distributed.world_size() > 1 and device.type == "cpu" and config.model.sync_bn:
        print("batch norm: plain, of each process by itself (on the CPU there is no synchronised one)")
