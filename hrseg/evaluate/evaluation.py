"""A model and a data set to scores; the command `tools/test.py`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hrseg import build, distributed
from hrseg import config as settings
from hrseg import runtime as cpu
from hrseg.build import memory
from hrseg.build.trained_model import ensemble, load_checkpoints
from hrseg.commands import arguments
from hrseg.config import Config, RunConfig
from hrseg.console import command, counted
from hrseg.data.dataset import Dataset
from hrseg.data.loader import Normalise, eval_loader
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.evaluate.evaluator import CALIBRATION_STEP, Evaluation, Judge
from hrseg.evaluate.prediction_files import Predictions, Submission
from hrseg.files import write_json
from hrseg.inference import Inference, fast_form
from hrseg.metrics import table
from hrseg.report import examples, page, pictures
from hrseg.report.run_folder import image_ious
from hrseg.task import LabelSpace, Normalisation, Task
from hrseg.tracking import Example
from hrseg.weights.source import find_file, sha256

log = logging.getLogger(__name__)

FEW = 16  # images of a process, below which the fast form of a model takes longer to make than it saves
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Interrupted(Exception):
    """An evaluation, or what it is part of, was asked to stop."""


def set_up(config: RunConfig) -> torch.device:
    """The device of a run, and the CPU threads and settings for it."""
    device = distributed.pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if device.type == "cpu":
        cpu.keep_freed_memory()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    else:
        torch.backends.cudnn.benchmark = True
    return device


class Answer(NamedTuple):
    """What a model says of one image: class indices [H, W] ({0, 1} [L, H, W] for multilabel), and how sure it is.

    confidence: the probability of what is said, at every third pixel of every third row. target: None without labels.
    """

    place: int  # in the data set
    prediction: np.ndarray
    confidence: np.ndarray
    target: np.ndarray | None


@torch.inference_mode()
def predict(
    model: nn.Module, image: Tensor, inference: Inference, normalise: nn.Module, precision: str, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Class indices [N, *size] (multilabel: [N, L, *size]) of images [N, C, H, W] in their own type.

    And the probability of each, at every third pixel of every third row.
    """
    with torch.autocast(image.device.type, PRECISIONS[precision], enabled=precision != "fp32"):
        logits = inference(model, normalise(image), size)
        sampled = logits[..., ::CALIBRATION_STEP, ::CALIBRATION_STEP].float()
        return inference.labels(logits), inference.confidence(sampled)


def answers(
    model: nn.Module,
    dataset: Dataset,
    inference: Inference,
    normalisation: Normalisation,
    *,
    device: torch.device,
    precision: str = "fp32",
    short_side: int | None = None,
    batch_size: int = 1,
    workers: int = 0,
    backend: str = "none",
) -> Iterator[Answer]:
    """What a model says of this process's share of a data set, at the size of the labels.

    Without labels at the size of the image's file. short_side: images are brought to it first, labels are not.
    backend: of `fast_form`, for data sets that are worth it.
    """
    was_training = model.training
    model.eval()
    run = model
    if backend != "none" and precision != "fp16" and len(dataset) >= FEW * distributed.world_size():
        run, precision = fast_form(model, backend, precision), "fp32"
    normalise = Normalise(normalisation).to(device)
    loader = eval_loader(
        dataset,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        batch_size=batch_size,
        workers=workers,
        short_side=short_side,
        pin_memory=device.type == "cuda",
    )
    try:
        for batch in loader:
            if batch.target is not None:
                size = (batch.target.shape[-2], batch.target.shape[-1])
            else:
                size = dataset.image_size(batch.indices[0])
            labels, confidence = predict(run, batch.image.to(device), inference, normalise, precision, size)
            targets = [None] * len(batch.names) if batch.target is None else batch.target.numpy()
            yield from map(Answer, batch.indices, labels.cpu().numpy(), confidence.cpu().numpy(), targets)
    finally:
        model.train(was_training)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    inference: Inference,
    normalisation: Normalisation,
    *,
    definition: str | None = None,
    cluster: str | None = None,
    boundary_ratio: float | None = None,
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    device: torch.device,
    **how: Any,
) -> Evaluation:
    """Score a model on a data set, at the size of the labels. Each image counts once, however many processes there are.

    definition, cluster, boundary_ratio: of `Judge`. how: of `answers`. on_prediction is called with each index and its
    class indices. interrupted is asked after each image; where it is true on some process, all raise Interrupted.
    """
    judge = Judge(dataset, definition=definition, cluster=cluster, boundary_ratio=boundary_ratio)
    with progress(dataset, "evaluating") as bar:
        for index, prediction, confidence, target in answers(
            model, dataset, inference, normalisation, device=device, **how
        ):
            if target is None:
                what = "has no labels to score against."
                raise DataError(dataset.names[index], what, "Choose a split that has them.")
            judge.add(index, judge.count(index, prediction, target, confidence=confidence))
            if on_prediction:
                on_prediction(index, prediction)
            bar.update()
            bar.set_postfix({"mIoU": f"{judge.miou():.3f}"}, refresh=False)
            if interrupted():
                break
    if distributed.any_rank(interrupted(), device):
        raise Interrupted
    evaluation = judge.evaluation()
    if distributed.is_main() and (only := only_answer(evaluation.per_image.total(), dataset.space)):
        log.warning("The model answers '%s' for every pixel of %s.", only, counted(len(evaluation.per_image), "image"))
    return evaluation


def only_answer(confusion: np.ndarray, space: LabelSpace) -> str | None:
    """What a model says of every pixel, if it is always the same while the truth is not; else None.

    confusion: int64 [K, K], row = truth, column = prediction; multilabel [L, 2, 2].
    """
    if space.task is Task.MULTILABEL:
        answers = ["no label", "all labels"]
        confusion = confusion.sum(0)
    else:
        answers = list(space.names)
    said = confusion.sum(0).nonzero()[0]
    return answers[said[0]] if len(said) == 1 and np.count_nonzero(confusion.sum(1)) > 1 else None


def progress(dataset: Dataset, what: str) -> Any:
    """A progress bar over this process's share of a data set."""
    images = len(range(distributed.rank(), len(dataset), distributed.world_size()))
    return tqdm(total=images, unit="image", desc=what, leave=False, dynamic_ncols=True,
                mininterval=0.2 if sys.stderr.isatty() else 10, disable=not distributed.is_main())  # fmt: skip


class ValidationPictures:
    """Draws predictions of a few images, evenly spread over a data set, and keeps what the report needs of all.

    Pass it as on_prediction.
    """

    def __init__(self, dataset: Dataset, normalisation: Normalisation, count: int):
        mine = range(0, len(dataset), distributed.world_size())
        self._dataset, self._normalisation = dataset, normalisation
        count = min(count, len(mine))
        self._chosen = {mine[i * len(mine) // count] for i in range(count)}
        self._predictions: dict[int, np.ndarray] = {}
        self._small = examples.PredictionCollector(len(dataset))

    def __call__(self, index: int, prediction: np.ndarray) -> None:
        self._small(index, prediction)
        if index in self._chosen:
            self._predictions[index] = prediction

    @property
    def colors(self) -> dict[str, tuple[int, int, int]]:
        """The colour of each class in the pictures."""
        return {c.name: c.color for c in self._dataset.space.classes}

    def examples(self) -> list[Example]:
        """The images with truth and prediction; labels and image are reduced, the panels are not."""
        found = []
        for index, prediction in sorted(self._predictions.items()):
            image, target, name = self._dataset[index]
            assert target is not None  # it was scored
            rgb = pictures.displayable(image, self._normalisation)
            panel = pictures.panel(rgb, target, prediction, self._dataset.space)
            safe = re.sub(r"[^\w.-]", "_", name.replace("/", "__"))
            truth = examples.reduced_indices(target)
            small = examples.resized_image(rgb, truth.shape[-2:])
            found.append(Example(safe, panel, small, truth, examples.reduced_indices(prediction)))
        return found

    def save_examples(self, evaluation: Evaluation, folder: Path) -> None:
        """Write examples.npz, from which the report draws. All processes call it, the first writes."""
        kept = self._small.gather()
        if distributed.is_main():
            indices, ious = evaluation.per_image.indices, image_ious(evaluation.per_image)
            shown = examples.collect_examples(self._dataset, self._normalisation, kept, indices, ious)
            shown.save(folder / "examples.npz")


def write_evidence(
    folder: Path,
    evaluation: Evaluation,
    config: Config,
    split: str,
    checkpoint_path: Path | None,
    step: int | None = None,
    averaged_with: Sequence[tuple[Path, int]] = (),
) -> dict[str, Any]:
    """Write metrics.json and per_image.npz into a run folder and return the content of the first.

    checkpoint_path: None for predictions that came as files. averaged_with: path and step of the other checkpoints of
    an ensemble.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HrsegError(folder, f"cannot be made: {error.strerror}.", "Choose another folder by --out.") from error
    metrics = {
        **evaluation.scores.to_plain(),
        "split": split,
        "images": len(evaluation.per_image),
        "checkpoint": None if checkpoint_path is None else _identity(checkpoint_path, step),
        "averaged_with": [_identity(*other) for other in averaged_with] or None,
        "config": config.to_plain(),
        "versions": versions(),
        "command": shlex.join(sys.argv),
    }
    write_json(folder / "metrics.json", metrics)
    evaluation.per_image.save(folder / "per_image.npz")
    return metrics


def _identity(path: Path, step: int | None) -> dict[str, Any]:
    return {"path": str(path), "sha256": sha256(path), "step": step}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a score may depend on."""
    packages = ("hrseg", "torch", "segmentation-models-pytorch", "timm", "albumentations", "numpy", "pillow")
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}


@command
def main(argv: Sequence[str]) -> int:
    """tools/test.py: score a checkpoint, or predictions that came as files, and print the class table."""
    args, files, overrides = arguments.test(argv)
    return (_test_files if args.predictions else _test_checkpoint)(args, files, overrides)


def _test_checkpoint(args: argparse.Namespace, files: list[str], overrides: list[str]) -> int:
    members = load_checkpoints(args.checkpoint, trust_code=args.trust_code)
    loaded = members[0]
    model, normalisation = loaded.model, loaded.normalisation
    if len(members) > 1:
        model, normalisation = ensemble(members), Normalisation.none(normalisation.channels)
    plain = settings.read_with_base(files[0]) if files else loaded.config.to_plain()
    config = settings.parse(settings.override(plain, overrides), where=files[0] if files else args.checkpoint[0])
    paths = [find_file(source) for source in args.checkpoint]
    folder = args.out or _run_folder(paths[0] if paths[0] == Path(args.checkpoint[0]) else Path("runs") / paths[0].name)
    if len(members) > 1 and not args.out:
        folder = folder / "ensemble"
    device = set_up(config.run)
    with distributed.process_group(device), contextlib.ExitStack() as stack:
        dataset = build.dataset(config, config.data.val_split)
        known, own = dataset.space.names, loaded.space.names
        if len(known) != len(own) if loaded.classes_assumed else known != own:
            raise ConfigError(
                f"data.dataset: {config.data.dataset}",
                f"its {len(dataset.space.names)} classes are not the checkpoint's {len(loaded.space.names)}.",
                "Score it on the data set it was trained for.",
            )
        channels, wanted = dataset.in_channels, loaded.normalisation.channels
        if channels is not None and channels != wanted:
            raise DataError("data", f"the images have {channels} channels, the model takes {wanted}.")
        memory.require_room_for_evaluation(config.eval, dataset, device)
        submission = stack.enter_context(Submission(dataset, args.submit)) if args.submit else None
        dataset = build.cached(config, dataset, progress=distributed.is_main())
        how: dict[str, Any] = {
            "model": model.to(device).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            "dataset": dataset,
            "inference": Inference.from_config(config.eval, loaded.space.task),
            "normalisation": normalisation,
            "device": device,
            "precision": config.eval.precision or config.train.precision,
            "short_side": config.eval.short_side,
            "batch_size": config.eval.batch_size,
            "workers": config.data.workers,
            "backend": config.eval.backend,
        }
        if submission and not dataset.has_targets():
            with progress(dataset, "predicting") as bar:
                for answer in answers(**how):
                    submission(answer.place, answer.prediction)
                    bar.update()
            return _submitted(submission)
        drawn = ValidationPictures(dataset, loaded.normalisation, config.eval.pictures)
        evaluation = evaluate(
            **how,
            definition=args.definition or config.eval.definition,
            cluster=config.eval.cluster,
            boundary_ratio=config.eval.boundary_ratio,
            on_prediction=_each(drawn, submission),
        )
        others = [(path, member.step) for path, member in zip(paths[1:], members[1:], strict=True)]
        _finish(folder, evaluation, config, drawn, dataset, paths[0], loaded.step, others)
        return _submitted(submission)


def _test_files(args: argparse.Namespace, files: list[str], overrides: list[str]) -> int:
    if not files:
        raise ConfigError("tools/test.py", "--predictions needs to know the data set.", "Give a CONFIG.")
    config = settings.load(files[0], overrides)
    device = set_up(config.run)
    with distributed.process_group(device), contextlib.ExitStack() as stack:
        dataset = build.dataset(config, config.data.val_split)
        predictions = Predictions(dataset, args.predictions, args.ids, check=config.data.check)
        submission = stack.enter_context(Submission(dataset, args.submit)) if args.submit else None
        drawn = ValidationPictures(dataset, build.normalisation(config, dataset[0]), config.eval.pictures)
        judge = Judge(
            dataset,
            definition=args.definition or config.eval.definition,
            cluster=config.eval.cluster,
            boundary_ratio=config.eval.boundary_ratio,
            void_predictions=True,
        )
        with progress(dataset, "scoring") as bar:
            predictions.evaluate(judge, _each(drawn, submission), bar)
        folder = args.out or args.predictions.with_name(f"{args.predictions.resolve().name}_scores")
        _finish(folder, judge.evaluation(), config, drawn, dataset, None)
        return _submitted(submission)


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
        print(summary(evaluation, folder, draw(drawn, folder)))


def _submitted(submission: Submission | None) -> int:
    if submission and (archive := submission.finish()):
        print(f"submission: {archive}, {counted(len(submission.dataset), 'image')} checked")
    return 0


def draw(drawn: ValidationPictures, folder: Path) -> list[Path]:
    """Save the pictures in a run folder's images/val/, one an image, and all above a legend as images/val.png."""
    found = drawn.examples()
    paths = [pictures.save(example.panel, folder / "images" / "val" / f"{example.name}.png") for example in found]
    if len({example.panel.shape for example in found}) == 1:
        sheet = pictures.sheet([example.panel for example in found], columns=1)
        legend = pictures.legend(drawn.colors, sheet.shape[1], scale=max(1.0, sheet.shape[1] / 1200))
        paths.append(pictures.save(pictures.stacked([sheet, legend]), folder / "images" / "val.png"))
    return paths


def summary(evaluation: Evaluation, folder: Path, drawn: list[Path]) -> str:
    """Where everything was left."""
    lines = [
        f"mIoU {evaluation.scores.miou:.4f} ({counted(len(evaluation.per_image), 'image')}, "
        f"definition {evaluation.scores.definition}, {evaluation.seconds:.0f} s)",
        f"scores:   {folder / 'metrics.json'}",
        f"evidence: {folder / 'per_image.npz'}",
    ]
    if drawn:
        lines.append(f"pictures (image, truth, prediction, error): {drawn[-1]}")
    lines.append(f"report:   {folder / 'report.html'}")
    return "\n".join(lines)


def _run_folder(checkpoint_path: Path) -> Path:
    folder = checkpoint_path.parent
    return folder.parent if folder.name == "checkpoints" else folder / f"{checkpoint_path.stem}_test"
