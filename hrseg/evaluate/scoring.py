"""A checkpoint, or predictions in files, scored on a data set: what `tools/test.py` does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrseg import build, distributed
from hrseg import config as settings
from hrseg.build import memory
from hrseg.build.changes import other_validation_images
from hrseg.build.evaluation import evaluation_plan
from hrseg.build.trained_model import TrainedModel, chosen_threshold, difference, ensemble, load_trained_models
from hrseg.config import Config
from hrseg.console import counted
from hrseg.data.dataset import Dataset
from hrseg.data.fitted import fitted
from hrseg.data.image_checks import value_warnings
from hrseg.errors import ConfigError, DataError
from hrseg.evaluate.evaluation import answers, evaluate, evaluator_of, progress_of_share
from hrseg.evaluate.evaluator import Evaluation
from hrseg.evaluate.evidence import write_evidence
from hrseg.evaluate.prediction_files import Ids, Predictions, Submission
from hrseg.evaluate.validation_pictures import ValidationPictures, draw
from hrseg.made_files import require_free_names, require_own_folder
from hrseg.metrics import table
from hrseg.report import page
from hrseg.task import LabelSpace, Normalisation
from hrseg.weights.source import find_file

log = logging.getLogger(__name__)


def score_checkpoints(
    checkpoints: Sequence[str],
    config_path: str | None,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    definition: str | None = None,
    submit: Path | None = None,
    threshold: float | None = None,
    trust_code: bool = False,
) -> None:
    """Score a checkpoint, or the mean of several, and leave scores, pictures and the page in a folder.

    config_path: settings to score by; None: the checkpoint's own. overrides: `key=value`. out: the folder; None:
    run.dir where the given settings have it, else where the checkpoint's run is. definition: instead of
    eval.definition. submit: also write what the Cityscapes server wants. threshold: instead of the checkpoint's, for
    binary and multilabel tasks.
    """
    given = settings.override(settings.read_with_base(config_path) if config_path else {}, overrides)

    def as_given() -> tuple[Config, LabelSpace]:
        config = settings.parse(given, where=config_path or checkpoints[0])
        return config, build.dataset(config, config.data.val_split).space

    named = {"arch", "encoder"} & (given.get("model") or {}).keys()
    members = load_trained_models(checkpoints, trust_code=trust_code, fallback=as_given if named else None)
    first, threshold = members[0], chosen_threshold(members, threshold)
    model, normalisation = first.model, first.normalisation
    if len(members) > 1:
        model, normalisation = ensemble(members), Normalisation.none(normalisation.channels)
    plain = settings.read_with_base(config_path) if config_path else first.config.to_plain()
    config = settings.parse(settings.override(plain, overrides), where=config_path or checkpoints[0])
    paths = [find_file(source) for source in checkpoints]
    run_dir = (given.get("run") or {}).get("dir")
    folder = out or (Path(run_dir) if run_dir else None)
    if folder is None:
        folder = _run_folder(paths[0] if Path(checkpoints[0]).exists() else Path("runs") / paths[0].name)
        folder = folder / "ensemble" if len(members) > 1 else folder
        require_free_names(folder)
    else:
        require_own_folder(folder)
        if folder.resolve() != _run_folder(paths[0]).resolve() or len(members) > 1:
            _require_no_other_run(folder)
    device = build.device(config.run)
    with distributed.process_group(device), contextlib.ExitStack() as stack:
        dataset = build.dataset(config, config.data.val_split)
        _require_same_classes(dataset.space, first, config.data.dataset)
        if distributed.is_main() and (doubt := other_validation_images(first.images, config, dataset)):
            log.warning(f"warning: {doubt}")
        dataset = fitted(dataset, first.normalisation, f"images of split '{config.data.val_split}'")
        if config.data.check and distributed.is_main():
            for warning in value_warnings({config.data.val_split: dataset}, first.normalisation):
                log.warning(f"warning: {warning}")
        memory.require_room_for_evaluation(config.eval, dataset, device)
        submission = stack.enter_context(Submission(dataset, submit)) if submit else None
        dataset = build.cached(config, dataset, progress=distributed.is_main())
        plan = evaluation_plan(config, dataset.space.task, definition=definition, threshold=threshold)
        model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        if submission and not dataset.has_targets():
            with progress_of_share(dataset, "predicting") as bar:
                for answer in answers(model, dataset, plan, normalisation, device=device):
                    submission(answer.place, answer.prediction)
                    bar.update()
            _report_submission(submission)
            return
        drawn = ValidationPictures(dataset, first.normalisation, plan.pictures)
        calls = _each(drawn, submission)
        evaluation = evaluate(
            model, dataset, plan, normalisation, device=device, on_prediction=calls, on_sample=drawn.see
        )
        others = [(path, member.step) for path, member in zip(paths[1:], members[1:], strict=True)]
        _finish(folder, evaluation, config, drawn, dataset, paths[0], first.step, others)
        _report_submission(submission)


def _require_same_classes(space: LabelSpace, trained: TrainedModel, dataset: str) -> None:
    """Raise ConfigError where a data set's classes are not a checkpoint's, saying in what they differ."""
    known, own = space, trained.space
    if trained.classes_assumed:
        if (len(known.names), known.outputs) == (len(own.names), own.outputs):
            return
    elif (known.names, known.task) == (own.names, own.task):
        return
    apart = difference(known, "the data set", own, "the checkpoint")
    what = f"its {len(known.names)} classes are not the checkpoint's {len(own.names)}: {apart}."
    renamed = len(known.names) == len(own.names) and known.task == own.task
    way_out = "If the classes mean the same, give them the checkpoint's names and order (classes.yaml); otherwise "
    way_out = (
        f"{way_out if renamed else 'Score it on the data set it was trained for, or '}train on this one: model.weights."
    )
    raise ConfigError(f"data.dataset: {dataset}", what, way_out)


def score_prediction_files(
    predictions_folder: Path,
    config: Config,
    *,
    ids: Ids | None = None,
    out: Path | None = None,
    definition: str | None = None,
    submit: Path | None = None,
) -> None:
    """Score a folder of predicted PNG files and leave scores, pictures and the page in a folder, by default beside it.

    ids: what the files hold; see `Predictions`. The rest as in `score_checkpoints`.
    """
    beside = predictions_folder.with_name(f"{predictions_folder.resolve().name}_scores")
    folder = out or config.run.dir or beside
    require_own_folder(folder)
    _require_no_other_run(folder)
    device = build.device(config.run)
    with distributed.process_group(device), contextlib.ExitStack() as stack:
        dataset = build.dataset(config, config.data.val_split)
        predictions = Predictions(dataset, predictions_folder, ids, check=config.data.check)
        submission = stack.enter_context(Submission(dataset, submit)) if submit else None
        plan = evaluation_plan(config, dataset.space.task, definition=definition)
        drawn = ValidationPictures(dataset, build.normalisation(config, dataset[0]), plan.pictures)
        evaluator = evaluator_of(dataset, plan, void_predictions=True)
        with progress_of_share(dataset, "scoring") as bar:
            predictions.evaluate(evaluator, _each(drawn, submission), bar)
        _finish(folder, evaluator.evaluation(), config, drawn, dataset, None)
        _report_submission(submission)


def _each(*calls: Callable[[int, np.ndarray], None] | None) -> Callable[[int, np.ndarray], None]:
    def call(index: int, prediction: np.ndarray) -> None:
        for one in calls:
            if one is not None:
                one(index, prediction)

    return call


def _finish(
    folder: Path, evaluation: Evaluation, config: Config, drawn: ValidationPictures, dataset: Dataset, *checkpoint: Any
) -> None:
    """Refuse labels that can only be a mistake; else leave everything in the folder and print the table."""
    truth = evaluation.per_image.total().sum(axis=-1)
    pixels = truth[:, 1] if truth.ndim == 2 else truth
    if config.data.check and (doubt := dataset.doubt(pixels)):
        raise DataError("labels", doubt, "With data.check=false they are scored as they are.")
    if distributed.is_main():
        write_evidence(folder, evaluation, config, config.data.val_split, *checkpoint)
    drawn.save_examples(evaluation, folder)
    if distributed.is_main():
        page.write_report(folder)
        print(table(evaluation.scores))
        print(_summary(evaluation, folder, draw(drawn, evaluation, folder)))


def _report_submission(submission: Submission | None) -> None:
    if submission and (archive := submission.finish()):
        print(f"submission: {archive}, {counted(len(submission.dataset), 'image')} checked")


def _summary(evaluation: Evaluation, folder: Path, drawn: list[Path]) -> str:
    """Where everything was left."""
    lines = [
        f"mIoU {evaluation.scores.miou:.4f} ({counted(len(evaluation.per_image), 'image')}, "
        f"definition {evaluation.scores.definition}, {evaluation.seconds:.0f} s)",
        f"scores:   {folder / 'metrics.json'}",
        f"evidence: {folder / 'per_image.npz'}",
    ]
    if drawn:
        lines.append(f"pictures (image, ground truth, prediction, error): {drawn[-1]}")
    lines.append(f"report:   {folder / 'report.html'}")
    return "\n".join(lines)


def _require_no_other_run(folder: Path) -> None:
    """Raise ConfigError where a folder holds a training run, whose own scores would be replaced."""
    if (folder / "log.jsonl").exists():
        what = "holds a training run, whose scores and pictures would be replaced."
        raise ConfigError(folder, what, "Give another folder by --out.")


def _run_folder(checkpoint_path: Path) -> Path:
    folder = checkpoint_path.parent
    return folder.parent if folder.name == "checkpoints" else folder / f"{checkpoint_path.stem}_test"
