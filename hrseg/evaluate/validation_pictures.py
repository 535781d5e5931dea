"""Pictures of predictions: a few images of an evaluation, and what the report draws of all."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hrseg import distributed
from hrseg.data.dataset import Dataset
from hrseg.evaluate.evaluator import Evaluation
from hrseg.files import text_as_name
from hrseg.metrics import image_ious
from hrseg.report import examples, pictures
from hrseg.task import Normalisation
from hrseg.tracking import Example


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
        self._small = examples.PredictionCollector(len(dataset), normalisation)

    def __call__(self, index: int, prediction: np.ndarray) -> None:
        self._small(index, prediction)
        if index in self._chosen:
            self._predictions[index] = prediction

    def see(self, index: int, image: np.ndarray, target: np.ndarray) -> None:
        """Pass it as on_sample."""
        self._small.see(index, image, target)

    def legend(self, width: int) -> np.ndarray:
        """What the colours of the panels mean, uint8 RGB [H, W, 3]."""
        space = self._dataset.space
        ignored = any(np.any(self._dataset[index][1] == space.ignore_index) for index in self._predictions)
        both = pictures.legend_colors(space, ignored=ignored), pictures.error_colors(space)
        return pictures.stacked([pictures.legend(one, width, scale=max(1.0, width / 1200)) for one in both])

    def examples(self) -> list[Example]:
        """The images with ground truth and prediction; labels and image are reduced, the panels are not."""
        found = []
        for index, prediction in sorted(self._predictions.items()):
            image, target, name = self._dataset[index]
            assert target is not None  # it was scored
            rgb = pictures.displayable(image, self._normalisation)
            panel = pictures.panel(rgb, target, prediction, self._dataset.space)
            safe = _safe(name)
            truth = examples.reduced_indices(target)
            small = examples.resized_image(rgb, truth.shape[-2:])
            found.append(Example(safe, panel, small, truth, examples.reduced_indices(prediction)))
        return found

    def save_examples(self, evaluation: Evaluation, folder: Path) -> None:
        """Write examples.npz, from which the report draws. All processes call it, the first writes."""
        shown = examples.collect_examples(self._dataset, self._normalisation, self._small, evaluation.per_image)
        if shown is not None:
            shown.save(folder / "examples.npz")


def _safe(name: str) -> str:
    """The name of an image as the name of a file."""
    return re.sub(r"[^\w.-]", "_", name.replace("/", "__"))


def draw(drawn: ValidationPictures, evaluation: Evaluation, folder: Path) -> list[Path]:
    """Save the pictures in a run folder's images/val/, one an image, and all above a legend as images/val.png."""
    found = drawn.examples()
    scored = zip(evaluation.per_image.names, image_ious(evaluation.per_image), strict=True)
    titles = {_safe(n): n if np.isnan(iou) else f"{n}: mean IoU {100 * iou:.1f} %" for n, iou in scored}
    paths = [
        pictures.save(example.panel, folder / "images" / "val" / text_as_name(f"{example.name}.png"))
        for example in found
    ]
    if len({example.panel.shape for example in found}) == 1:
        rows = [pictures.titled(example.panel, titles[example.name]) for example in found]
        sheet = pictures.sheet(rows, columns=1, gap=12)
        whole = pictures.stacked([sheet, drawn.legend(sheet.shape[1])])
        paths.append(pictures.save(whole, folder / "images" / "val.png"))
    return paths
