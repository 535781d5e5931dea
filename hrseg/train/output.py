"""What a run leaves in its folder: settings, log, checkpoints, validations with their evidence and pictures."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hrseg import distributed
from hrseg.build.changes import Change
from hrseg.console import counted
from hrseg.data.loader import Batch
from hrseg.distillation import Teacher
from hrseg.errors import HrsegError
from hrseg.evaluate.evaluation import evaluate, loss_of_main_output
from hrseg.evaluate.evidence import write_evidence
from hrseg.evaluate.validation_pictures import ValidationPictures
from hrseg.files import write_text
from hrseg.made_files import CONFIG_MARK
from hrseg.report import page, pictures
from hrseg.task import LabelSpace, Normalisation
from hrseg.tracking import NoTracker, Tracker, read_log
from hrseg.train.run import Run
from hrseg.weights import checkpoint

log = logging.getLogger(__name__)


class RunOutput:
    """The folder of a run, and the trackers that follow it. Every process calls it; the first one writes."""

    def __init__(self, run: Run, folder: Path, tracker: Tracker | NoTracker):
        self._run, self._folder, self._tracker = run, folder, tracker
        self.checkpoints = folder / "checkpoints"
        self._teacher_miou: float | None = None

    def log(self, record: dict[str, Any]) -> None:
        """Write a line of log.jsonl."""
        self._tracker.log(record)

    def save_checkpoint(self, name: str) -> None:
        """Save the state after this iteration. The last checkpoint before last.pt stays beside it."""
        self._run.means.share()
        if distributed.is_main():
            self._tracker.sync()
            checkpoint.save(self.checkpoints / name, self._run.checkpoint(), keep_previous=name == "last.pt")
        distributed.barrier()

    def validate(self, interrupted: Callable[[], bool]) -> None:
        """Score the model on the validation set; where it is the best so far, save it with its evidence.

        Raises Interrupted where `interrupted` says so on some process.
        """
        run, plan, state = self._run, self._run.plan, self._run.state
        distributed.share_buffers(run.averaged)
        drawn = ValidationPictures(plan.val_set, plan.normalisation, plan.evaluation.pictures)
        evaluation = evaluate(
            run.averaged,
            plan.val_set,
            plan.validation,
            plan.normalisation,
            device=plan.device,
            on_prediction=drawn,
            on_sample=drawn.see,
            criterion=loss_of_main_output(plan.criterion),
            interrupted=interrupted,
        )
        miou = evaluation.scores.miou
        record = {"step": state.step, "epoch": run.epoch, "kind": "val", **evaluation.headline()}
        if plan.distillation:
            record["teacher_miou"] = self._compare_with_teacher(plan.distillation.teacher, miou, interrupted)
        self.log(record)
        self._tracker.class_table(evaluation.scores.to_plain()["classes"], state.step)
        if distributed.is_main():
            self._tracker.examples(drawn.examples(), plan.space, state.step)
        # Done again after a stop, a validation finds the same score: what was not yet written is.
        foreground, key, score = evaluation.scores.foreground, "miou", miou
        if foreground is not None:
            key, score = "foreground_iou", foreground.used.iou
            state.threshold = foreground.best and foreground.best.threshold
        before = state.best.get(key)
        if state.best["step"] in (None, state.step) or before is None or score > before or np.isnan(before):
            state.best = {"miou": miou, "step": state.step, key: score}
            self.save_checkpoint("best.pt")
            if distributed.is_main():
                split, best = plan.config.data.val_split, self.checkpoints / "best.pt"
                write_evidence(self._folder, evaluation, plan.config, split, best, state.step)
            drawn.save_examples(evaluation, self._folder)
        state.validated = state.step
        if distributed.is_main():
            write_results(self._folder)
            page.write_report(self._folder, progress=(state.step, plan.iterations))

    def _compare_with_teacher(self, teacher: Teacher, miou: float, interrupted: Callable[[], bool]) -> float:
        """The teacher's mean IoU on the validation set, evaluated once; says so where the student's is above it."""
        plan = self._run.plan
        if self._teacher_miou is None:
            as_built = replace(plan.validation, backend="none", precision=teacher.precision)
            raw = Normalisation.none(plan.normalisation.channels)
            found = evaluate(teacher.model, plan.val_set, as_built, raw, device=plan.device, interrupted=interrupted)
            self._teacher_miou = found.scores.miou
        if distributed.is_main() and self._teacher_miou < miou:
            split = plan.config.data.val_split
            log.warning(
                f"the teacher's mean IoU on {split}, {self._teacher_miou:.4f}, is below the student's, {miou:.4f}: "
                "it may hold the student back (distill.teacher)"
            )
        return self._teacher_miou

    def draw_first_batch(self, batch: Batch) -> None:
        """Draw the first batch of a run as the network meets it."""
        if distributed.is_main():
            plan = self._run.plan
            self._tracker.picture("batch/step_0", _batch_sheet(batch, plan.normalisation, plan.space), 0)

    def finish(self) -> None:
        """Tell the trackers that the run is complete."""
        self._tracker.finished(self.checkpoints / "best.pt", self._run.state.best)

    def write_report(self) -> None:
        """Write report.html, if there was a validation."""
        if distributed.is_main() and (self._folder / "metrics.json").exists():
            page.write_report(self._folder)


def write_results(folder: Path) -> None:
    """Write results.csv: a row per validation of log.jsonl, with the training loss before it and each class's IoU."""
    rows: list[dict[str, Any]] = []
    loss = None
    for record in read_log(folder / "log.jsonl"):
        if record["kind"] == "train":
            loss = record["loss"]
        elif record["kind"] == "val":
            scores = {k: record.get(k) for k in ("loss", "miou", "pixel_accuracy", "class_accuracy")}
            own = {f"val_{name}": value for name, value in scores.items()}
            ious = {f"iou_{name}": value for name, value in record.get("class_iou", {}).items()}
            rows.append({"step": record["step"], "epoch": record["epoch"], "train_loss": loss} | own | ious)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.csv", text.getvalue())


def announce(run: Run, folder: Path, changed: list[Change]) -> None:
    """Say what is about to happen, and write config.yaml. changed: settings that differ from the resumed checkpoint."""
    plan, done = run.plan, run.state.step
    config = plan.config
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = f"{CONFIG_MARK}: all settings of this run.\n{config.to_yaml()}"
        (folder / "config.yaml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise HrsegError(folder, f"cannot be written: {error.strerror}.", "Choose another run.dir.") from error
    parameters = sum(p.numel() for p in plan.model.parameters())
    start = config.model.weights or config.model.encoder_weights
    print(f"{config.model.arch} over {config.model.encoder}, {parameters:,} parameters, on {plan.device}")
    if done:
        print(f"continuing after iteration {done} of {plan.iterations}")
        if changed:
            print("\n  ".join(["settings that are not as they were:", *map(str, changed)]))
    elif not start:
        print("NO PRETRAINED WEIGHTS: this model starts from random ones (model.encoder_weights, model.weights)")
    images = f"{len(plan.train_set)} training and {counted(len(plan.val_set), 'validation image')}"
    print(f"{images}, {plan.iterations} iterations, in {folder}")
    if distributed.world_size() > 1 and plan.device.type == "cpu" and config.model.sync_bn:
        print("batch norm: plain, per process (on the CPU there is no synchronised batch norm)")


def _batch_sheet(batch: Batch, normalisation: Normalisation, space: LabelSpace) -> np.ndarray:
    """The batch as the network meets it: each image beside its labels."""
    pairs = []
    assert batch.target is not None
    for image, target in list(zip(batch.image, batch.target, strict=True))[:8]:
        rgb = pictures.displayable(image.permute(1, 2, 0).numpy(), normalisation)
        pairs.append(pictures.beside([rgb, pictures.overlay(rgb, target.numpy(), space)]))
    return pictures.sheet(pairs, columns=2)
