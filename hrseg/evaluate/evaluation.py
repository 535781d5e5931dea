"""A model and a data set to scores."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hrseg import distributed
from hrseg.build.evaluation import EvaluationPlan
from hrseg.console import counted, progress
from hrseg.data.dataset import Dataset
from hrseg.data.loader import Normalise, eval_loader
from hrseg.errors import DataError
from hrseg.evaluate.evaluator import CALIBRATION_STEP, Evaluation, Evaluator
from hrseg.inference import FEW_IMAGES, Inference, fast_form
from hrseg.losses import CombinedLoss
from hrseg.runtime import PRECISIONS
from hrseg.task import LabelSpace, Normalisation, Task

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """An evaluation, or what it is part of, was asked to stop."""


class Answer(NamedTuple):
    """What a model says of one image: class indices [H, W] ({0, 1} [L, H, W] for multilabel), and how sure it is.

    confidence: the probability of what is said, at every third pixel of every third row. target: None without labels.
    image: [H, W, C] in its own type, as the model saw it. loss: where one was asked for. passed: of `Inference.passed`.
    """

    place: int  # in the data set
    prediction: np.ndarray
    confidence: np.ndarray
    target: np.ndarray | None
    image: np.ndarray
    loss: float | None = None
    passed: np.ndarray | None = None


@torch.inference_mode()
def predict(
    model: nn.Module, image: Tensor, inference: Inference, normalise: nn.Module, precision: str, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Class indices [N, *size] (multilabel: [N, L, *size]) of images [N, C, H, W] in their own type.

    And the probability of each, and the logits, float32, both at every third pixel of every third row; and how many
    thresholds each pixel is above, uint8 [N, L, *size], None for multiclass.
    """
    with torch.autocast(image.device.type, PRECISIONS[precision], enabled=precision != "fp32"):
        logits = inference(model, normalise(image), size)
        sampled = logits[..., ::CALIBRATION_STEP, ::CALIBRATION_STEP].float()
        return inference.labels(logits), inference.confidence(sampled), sampled, inference.passed(logits)


def answers(
    model: nn.Module,
    dataset: Dataset,
    plan: EvaluationPlan,
    normalisation: Normalisation,
    *,
    device: torch.device,
    criterion: CombinedLoss | None = None,
) -> Iterator[Answer]:
    """What a model answers for this process's share of a data set, at the size of the targets.

    criterion: the loss of each answer, over every third pixel of every third row.
    Without targets at the size of the image's file. The fast form is used for data sets that are worth it.
    """
    was_training = model.training
    model.eval()
    run, precision = model, plan.precision
    follows = precision != "fp16" or device.type == "cuda"  # the fast form on the CPU has no fp16
    if plan.backend != "none" and follows and len(dataset) >= FEW_IMAGES * distributed.world_size():
        run, precision = fast_form(model, plan.backend, precision), "fp32"
    normalise = Normalise(normalisation).to(device)
    loader = eval_loader(
        dataset,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        batch_size=plan.batch_size,
        workers=plan.workers,
        short_side=plan.short_side,
        pin_memory=device.type == "cuda",
    )
    try:
        for batch in loader:
            if batch.target is not None:
                size = (batch.target.shape[-2], batch.target.shape[-1])
            else:
                size = dataset.image_size(batch.indices[0])
            labels, confidence, sampled, above = predict(
                run, batch.image.to(device, non_blocking=True), plan.inference, normalise, precision, size
            )
            losses: list[float | None] = [None] * len(batch.names)
            if criterion is not None and batch.target is not None:
                target = batch.target[..., ::CALIBRATION_STEP, ::CALIBRATION_STEP].to(device)
                losses = [float(criterion(sampled, target).total)] * len(batch.names)
            targets = [None] * len(batch.names) if batch.target is None else batch.target.numpy()
            passed = [None] * len(batch.names) if above is None else above.cpu().numpy()
            images = batch.image.permute(0, 2, 3, 1).numpy()
            yield from map(
                Answer,
                batch.indices,
                labels.cpu().numpy(),
                confidence.cpu().numpy(),
                targets,
                images,
                losses,
                passed,
            )
    finally:
        model.train(was_training)


def evaluator_of(dataset: Dataset, plan: EvaluationPlan, *, void_predictions: bool = False) -> Evaluator:
    """The evaluator that counts as the plan says. void_predictions: of `Evaluator`."""
    return Evaluator(
        dataset,
        definition=plan.definition,
        cluster=plan.cluster,
        boundary_ratio=plan.boundary_ratio,
        void_predictions=void_predictions,
        threshold=None if void_predictions else plan.inference.threshold,
    )


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    plan: EvaluationPlan,
    normalisation: Normalisation,
    *,
    device: torch.device,
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
    on_sample: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
    criterion: CombinedLoss | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Score a model on a data set, at the size of the targets. Each image counts once on any number of processes.

    on_prediction is called with each index and its class indices, on_sample with each index, image and target.
    criterion: its mean over the images is the evaluation's loss. interrupted is asked after each image; where it is
    true on some process, all raise Interrupted.
    """
    evaluator, losses = evaluator_of(dataset, plan), []
    with progress_of_share(dataset, "evaluating") as bar:
        for answer in answers(model, dataset, plan, normalisation, device=device, criterion=criterion):
            index, prediction, target = answer.place, answer.prediction, answer.target
            if target is None:
                what = "has no labels to score against."
                raise DataError(dataset.names[index], what, "Choose a split that has them.")
            evaluator.add(
                index, evaluator.count(index, prediction, target, confidence=answer.confidence, passed=answer.passed)
            )
            losses.append(answer.loss)
            if on_prediction:
                on_prediction(index, prediction)
            if on_sample:
                on_sample(index, answer.image, target)
            bar.update()
            bar.set_postfix({"mIoU": f"{evaluator.miou():.3f}"}, refresh=False)
            if interrupted():
                break
    if distributed.any_rank(interrupted(), device):
        raise Interrupted
    evaluation = evaluator.evaluation()
    if criterion is not None:
        of_all = [loss for part in distributed.gather(losses) for loss in part]
        evaluation = dataclasses.replace(evaluation, loss=sum(of_all) / len(of_all))
    if distributed.is_main() and (only := only_answer(evaluation.per_image.total(), dataset.space)):
        log.warning("The model answers '%s' for every pixel of %s.", only, counted(len(evaluation.per_image), "image"))
    return evaluation


def only_answer(confusion: np.ndarray, space: LabelSpace) -> str | None:
    """What a model says of every pixel, if it is always the same while the target is not; else None.

    confusion: int64 [K, K], row = target, column = prediction; multilabel [L, 2, 2].
    """
    if space.task is Task.MULTILABEL:
        answers = ["no label", "all labels"]
        confusion = confusion.sum(0)
    else:
        answers = list(space.names)
    said = confusion.sum(0).nonzero()[0]
    return answers[said[0]] if len(said) == 1 and np.count_nonzero(confusion.sum(1)) > 1 else None


def loss_of_main_output(criterion: CombinedLoss) -> CombinedLoss | None:
    """The same without the terms on the auxiliary output, which only training has; None where it has no others."""
    rows = zip(criterion.names, criterion.terms, criterion.weights, criterion.outputs, strict=True)
    terms = [(name.partition("#")[0], term, weight, output) for name, term, weight, output in rows if output == "main"]
    return CombinedLoss(terms) if terms else None


def progress_of_share(dataset: Dataset, what: str) -> tqdm:
    """A progress bar over this process's share of a data set."""
    images = len(range(distributed.rank(), len(dataset), distributed.world_size()))
    return progress(images, what, "image", shown=distributed.is_main())
