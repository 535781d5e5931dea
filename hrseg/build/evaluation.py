"""The `eval` section becomes a plan of how a model is scored."""

from __future__ import annotations

from dataclasses import dataclass

from hrseg.config import Config
from hrseg.inference import Inference
from hrseg.task import Task


@dataclass(frozen=True)
class EvaluationPlan:
    """How a model is run over a data set, and how its predictions are scored.

    inference: whole images or windows, scales, flips and turns. precision: fp32, bf16 or fp16. short_side: images are
    resized to it first, targets are not. batch_size: images of one size per forward pass. workers: reading processes.
    backend: of `fast_form`; none runs the model unchanged.
    definition: how absent classes count; None: as the data set's benchmark does. cluster: which images belong together;
    None: as the data set says. boundary_ratio: the width of boundary IoU's band over the image's diagonal; None: as
    usual for the data set; 0: not measured. pictures: how many predictions are drawn.
    """

    inference: Inference
    precision: str = "fp32"
    short_side: int | None = None
    batch_size: int = 1
    workers: int = 0
    backend: str = "none"
    definition: str | None = None
    cluster: str | None = None
    boundary_ratio: float | None = None
    pictures: int = 0


def evaluation_plan(
    config: Config, task: Task, *, definition: str | None = None, threshold: float = 0.5
) -> EvaluationPlan:
    """The plan of the `eval` section. definition: replaces eval.definition. threshold: of `Inference`."""
    settings = config.eval
    return EvaluationPlan(
        Inference.from_config(settings, task, threshold),
        precision=settings.precision or config.train.precision,
        short_side=settings.short_side,
        batch_size=settings.batch_size,
        workers=config.data.workers,
        backend=settings.backend,
        definition=definition or settings.definition,
        cluster=settings.cluster,
        boundary_ratio=settings.boundary_ratio,
        pictures=settings.pictures,
    )
