"""The training loop, top to bottom, with one replaceable step."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hrseg import build, distributed
from hrseg.build.changes import changed_settings
from hrseg.build.tracker import tracker as build_tracker
from hrseg.build.training import training_plan
from hrseg.config import Config
from hrseg.console import progress, resume_command
from hrseg.data.reading_stopped import ReadingStopped
from hrseg.errors import HrsegError
from hrseg.evaluate.evaluation import Interrupted
from hrseg.made_files import require_own_folder
from hrseg.tracking import NoTracker
from hrseg.train.clock import Clock
from hrseg.train.nonfinite import FiniteWatch
from hrseg.train.output import RunOutput, announce
from hrseg.train.resume import ResumePoint, find_resume_point
from hrseg.train.run import Run, State
from hrseg.train.run_lock import RunLock
from hrseg.train.step import StepResult, iterate, training_step
from hrseg.train.stopping import NothingToSave, StopRequest


def train(
    config: Config,
    folder: Path,
    *,
    resume: str | None = None,
    step: Callable[..., StepResult] = training_step,
) -> State:
    """Train as the settings say and leave everything in the run folder.

    resume: None starts afresh and refuses a folder that contains a run; "auto" continues from the folder's last
    checkpoint, if there is one; a path continues from that checkpoint. step: what one iteration does.
    """
    device = build.device(config.run)
    with distributed.process_group(device), write_errors_as_messages(folder), StopRequest(device) as stop:
        try:
            _require_free(folder)
            point = find_resume_point(folder, resume)
            found = _contents(folder)
            run = Run(training_plan(config, device, point and point.saved), point and point.saved)
            changed = changed_settings(point.saved, config) if point else []
            with _alone_in(folder, found):
                elsewhere = _leave_other_folder(run, folder, point)
                del point  # its tensors are copied: free them
                return _follow(run, folder, changed, step, stop, save_first=elsewhere)
        except NothingToSave:
            if distributed.is_main():
                print("Stopped before an iteration was done. Nothing is lost: start again in the same way.")
            return State()


def _require_free(folder: Path) -> None:
    """Raise HrsegError, on all processes, where another training runs in the folder or it is not for runs."""

    def ask() -> None:
        require_own_folder(folder, "Set run.dir to another folder.")
        RunLock(folder).require_free()

    _main_decides(ask)


@contextlib.contextmanager
def _alone_in(folder: Path, found: list[tuple[str, int]]) -> Iterator[None]:
    """Hold the run folder, from the moment on when something is written. found: its `_contents` at the start."""
    with contextlib.ExitStack() as held:

        def hold() -> None:
            held.enter_context(RunLock(folder))
            if _contents(folder) != found:
                what = "another training has written into this folder while this one was prepared."
                raise HrsegError(folder, what, "Start again, with --resume or in another run.dir.")

        _main_decides(hold)
        yield


def _contents(folder: Path) -> list[tuple[str, int]]:
    """Names and times of the files that a training writes."""
    paths = [folder / "log.jsonl", *(folder / "checkpoints").glob("*.pt")]
    return sorted((path.name, path.stat().st_mtime_ns) for path in paths if path.exists())


def _main_decides(action: Callable[[], None]) -> None:
    """Do something in the first process; its HrsegError is raised in all."""
    problem = None
    if distributed.is_main():
        try:
            action()
        except HrsegError as error:
            problem = error
    if found := distributed.gather(problem)[0]:
        raise found


def _leave_other_folder(run: Run, folder: Path, point: ResumePoint | None) -> bool:
    """Whether the run goes on from another checkpoint than this folder's last. Another run's best is not in it."""
    if point is None:
        return False
    if point.path.resolve().parent != (folder / "checkpoints").resolve():
        run.state.best = State().best
    return point.path.resolve() != (folder / "checkpoints" / "last.pt").resolve()


def _follow(
    run: Run,
    folder: Path,
    changed: list[Any],
    step: Callable[..., StepResult],
    stop: StopRequest,
    *,
    save_first: bool,
) -> State:
    """Do what is left of the run, with its log, checkpoints and validations."""
    state, plan, main = run.state, run.plan, distributed.is_main()
    if main:
        announce(run, folder, changed)
    log_end = {"start_step": state.step, "validated": state.validated}
    with build_tracker(plan.config, folder, **log_end) if main else NoTracker() as tracker:
        output = RunOutput(run, folder, tracker)
        bar = progress(plan.iterations, "", "it", start=state.step, shown=main, leave=True)
        stop.postpone()
        try:
            if save_first:
                output.save_checkpoint("last.pt")  # whatever happens next, this is where the run in this folder goes on
            if state.validated < state.step and run.is_due(plan.val_every):
                output.validate(stop.is_asked)
                output.save_checkpoint("last.pt")
            _iterations(run, output, FiniteWatch(run, folder), bar, step, stop)
            output.finish()
        except ReadingStopped:
            if distributed.world_size() == 1 and state.step:
                output.save_checkpoint("last.pt")  # the iterations so far are sound
            raise
        except Interrupted:
            output.save_checkpoint("last.pt")
            bar.close()
            if main:
                print(f"Stopped after iteration {state.step} of {plan.iterations}. Continue with: {resume_command()}")
        bar.close()
    output.write_report()
    return state


def _iterations(
    run: Run, output: RunOutput, watch: FiniteWatch, bar: tqdm, step: Callable[..., StepResult], stop: StopRequest
) -> None:
    """All iterations that are left. Raises Interrupted where the run was asked to stop."""
    plan, state = run.plan, run.state
    clock, record = Clock(plan.settings.batch_size), {}
    for batch in clock.timed(run.batches(state.step, plan.iterations)):
        if state.step == 0:
            output.draw_first_batch(batch)
        lr = run.learning_rate()
        result = iterate(run, batch, step)

        log_due, val_due = run.is_due(plan.settings.log_every), run.is_due(plan.val_every)
        save_due = run.is_due(plan.checkpoint_every)
        watch.see(result)
        if result.stepped:
            run.means.add(result)
        if (run.reads_each_step or log_due or val_due or save_due) and (skipped := watch.record()):
            output.log(skipped)
        if log_due:
            figures = {**run.means.read(), "lr": lr, **clock.read()}
            if plan.distillation:
                figures["teacher_s"] = plan.distillation.teacher.seconds_per_call() * plan.settings.accumulate
            record = {"step": state.step, "epoch": run.epoch, "kind": "train", **figures}
            output.log(record)
            bar.set_postfix(_postfix(record, state), refresh=False)
        bar.update()
        with clock.paused():
            if val_due:
                output.validate(stop.is_asked)
                if log_due:
                    bar.set_postfix(_postfix(record, state))  # with the current scores
            if save_due:
                output.save_checkpoint("last.pt")
        clock.lap()
        if not run.is_complete and stop.is_agreed(log_due or plan.device.type == "cpu"):
            raise Interrupted


@contextlib.contextmanager
def write_errors_as_messages(folder: Path) -> Iterator[None]:
    """A full disk or a folder that may not be written, wherever it is met, becomes one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        what = f"cannot be written: {error.strerror}."
        way_out = "Make room there, or allow writing; then continue with --resume."
        raise HrsegError(error.filename or folder, what, way_out) from error


def _postfix(record: dict[str, Any], state: State) -> dict[str, str]:
    shown = {"loss": f"{record['loss']:.3f}"}
    if "kept_share" in record:
        shown["kept"] = f"{record['kept_share']:.0%}"
    if state.best["miou"] is not None:
        shown["mIoU"] = f"{state.best['miou']:.3f}"
    return shown | {"img/s": f"{record['images_per_s']:.1f}", "waiting": f"{record['data_wait']:.0%}"}
