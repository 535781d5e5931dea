"""Which model judges which images: each image by a model that was not trained on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrseg import build
from hrseg import config as settings
from hrseg.build.evaluation import evaluation_plan
from hrseg.build.trained_model import TrainedModel, difference, load_trained_model
from hrseg.config import Config
from hrseg.data.dataset import Dataset
from hrseg.data.loader import Normalise, eval_loader
from hrseg.doctor.views import View
from hrseg.errors import ConfigError, DataError
from hrseg.runtime import PRECISIONS
from hrseg.task import LabelSpace, Normalisation, Task
from hrseg.weights.source import find_file

log = logging.getLogger(__name__)
SHARED = ("dataset", "root", "task", "train_split", "val_split", "folds")


@dataclass(frozen=True)
class Judge:
    """A model and the images that it judges."""

    source: str
    config: Config
    normalisation: Normalisation
    dataset: Dataset
    step: int
    unseen: bool
    note: str

    def to_plain(self) -> dict[str, Any]:
        plain = {"source": str(find_file(self.source)), "step": self.step, "images": len(self.dataset)}
        return {**plain, "fold": self.config.data.fold if self.config.data.folds else None, "note": self.note}


def judges(
    sources: Sequence[str], overrides: Sequence[str] = (), *, split: str | None = None, trust_code: bool = False
) -> list[Judge]:
    """The models of folds, each with the images of its fold; or one model with a split, by default data.val_split.

    overrides: `key=value`. Raises ConfigError where they do not belong together or an image would be judged twice.
    """
    found: list[Judge] = []
    for source in sources:
        trained = load_trained_model(source, trust_code=trust_code)
        config = settings.parse(settings.override(trained.config.to_plain(), overrides), where=source)
        if config.data.folds is None and len(sources) > 1:
            what = "is not a model of a fold: with several models, each judges the images that it has not seen."
            raise ConfigError(source, what, "Train with data.folds=5 data.fold=0, and so on, or give one model.")
        if config.data.folds is not None and split is not None:
            raise ConfigError("--split", "is not for models of folds, which judge their own.", "Leave it out.")
        chosen = split or config.data.val_split
        dataset = build.dataset_for_model(config, chosen, trained.normalisation)
        _require_fitting(source, trained, dataset)
        note = _note(config, chosen)
        unseen = not note.startswith("warning")
        found.append(Judge(source, config, trained.normalisation, dataset, trained.step, unseen, note))
    first = found[0]
    for judge in found[1:]:
        differs = [key for key in SHARED if getattr(judge.config.data, key) != getattr(first.config.data, key)]
        if differs or judge.dataset.space != first.dataset.space:
            what = f"has another data.{', data.'.join(differs or ['classes'])} than {first.source}."
            raise ConfigError(judge.source, what, "Train all folds alike.")
    names = [name for judge in found for name in judge.dataset.names]
    if len(set(names)) < len(names):
        raise ConfigError(sources[-1], "judges images that another model judges too.", "Give each fold once.")
    missing = (first.config.data.folds or 1) - len(found)
    if first.config.data.folds and missing:
        log.warning(f"warning: {missing} of {first.config.data.folds} folds are not given: their images are not judged")
    for judge in found:
        log.info(f"{judge.source}: judges {len(judge.dataset)} images, {judge.note}")
    return found


def _note(config: Config, split: str) -> str:
    if config.data.folds is not None:
        return f"those of fold {config.data.fold}, which it was not trained on"
    if split == config.data.train_split:
        return f"warning: split '{split}', on which it may have been trained: what it learned by heart is not found"
    return f"split '{split}', if it was not trained on it; models of folds judge all images (data.folds)"


def _require_fitting(source: str, trained: TrainedModel, dataset: Dataset) -> None:
    if dataset.space.task is Task.MULTILABEL:
        raise ConfigError("hrseg doctor", "does not know labels that overlap (multilabel).", "Use one class a pixel.")
    if not dataset.has_targets():
        raise DataError(source, "judges a split without labels.", "Choose one that has them: --split.")
    own, known = trained.space, dataset.space
    if own.names != known.names and not (trained.classes_assumed and len(own.names) == len(known.names)):
        what = f"has other classes than the data set: {difference(known, 'the data set', own, 'the model')}."
        raise ConfigError(source, what, "Give the model that was trained on these classes.")


@torch.inference_mode()
def views(judge: Judge, device: torch.device, *, trust_code: bool = False) -> Iterator[tuple[int, np.ndarray, View]]:
    """Place in the judge's data set, target [H, W], and the view of each of its images."""
    trained = load_trained_model(judge.source, trust_code=trust_code)
    space = judge.dataset.space
    plan = evaluation_plan(judge.config, space.task)
    model = trained.model.eval().to(device)
    normalise = Normalise(judge.normalisation).to(device)
    loader = eval_loader(
        judge.dataset, batch_size=plan.batch_size, workers=plan.workers, short_side=plan.short_side,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    precision = PRECISIONS[plan.precision]
    for batch in loader:
        if batch.target is None:
            raise DataError(judge.dataset.names[batch.indices[0]], "has no labels.", "Choose a split that has them.")
        size = (batch.target.shape[-2], batch.target.shape[-1])
        with torch.autocast(device.type, precision, enabled=plan.precision != "fp32"):
            logits = plan.inference(model, normalise(batch.image.to(device)), size)
        probabilities = class_probabilities(plan.inference.probabilities(logits.float()).cpu().numpy(), space)
        for place, target, of_image in zip(batch.indices, batch.target.numpy(), probabilities, strict=True):
            yield place, target, View.of(of_image, target)


def class_probabilities(probabilities: np.ndarray, space: LabelSpace) -> np.ndarray:
    """[N, K, H, W] of what a model gives: of a binary task, background and foreground."""
    if space.task is Task.BINARY:
        return np.concatenate([1 - probabilities, probabilities], axis=1)
    return probabilities


def root_of(judge: Judge) -> Path:
    return Path(judge.config.data.root)
