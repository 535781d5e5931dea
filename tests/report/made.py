"""Run folders made by hand: what an evaluation leaves, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hrseg.config import Config
from hrseg.metrics import ConfusionMatrix, ImageCounts, PerImage, image_ious, scores_of_images
from hrseg.report import examples
from hrseg.task import LabelSpace, Normalisation, SegmentationClass, Task

SPACE = LabelSpace(
    tuple(SegmentationClass(n, c) for n, c in (("road", (128, 64, 128)), ("car", (0, 0, 142)), ("sky", (70, 130, 180))))
)


class Pictures:
    """A data set in memory: `names`, and samples of random images with blocks as labels."""

    def __init__(self, names: list[str], space: LabelSpace = SPACE, size: tuple[int, int] = (24, 40)):
        self.names, self.space, self.size = names, space, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self.size, 3), dtype=np.uint8)
        if self.space.task is Task.MULTILABEL:
            target = rng.integers(0, 2, (len(self.space.classes), *self.size), dtype=np.uint8)
        else:
            blocks = rng.integers(0, len(self.space.classes), (3, 4), dtype=np.uint8)
            target = np.kron(blocks, np.ones((self.size[0] // 3, self.size[1] // 4), np.uint8))
        target[..., :2, :] = 255
        return image, target, self.names[index]


def run(
    folder: Path,
    names: list[str],
    *,
    wrong: float = 0.2,
    size: tuple[int, int] = (24, 40),
    space: LabelSpace = SPACE,
    boundary: np.ndarray | None = None,
) -> Path:
    """A run folder whose predictions are wrong in about that share of the pixels. boundary: of each image."""
    folder.mkdir(parents=True)
    dataset, multilabel = Pictures(names, space, size), space.task is Task.MULTILABEL
    count = ConfusionMatrix(3, multilabel=multilabel)
    per_image, collector = PerImage(space), examples.PredictionCollector(len(dataset))
    for index in range(len(dataset)):
        _, target, name = dataset[index]
        rng = np.random.default_rng([7, index])
        amiss = rng.random(target.shape) < wrong * (1 + index) / len(dataset)
        prediction = np.where(amiss, (target + 1) % (2 if multilabel else 3), target).astype(np.uint8)
        prediction[target == 255] = 0
        collector(index, prediction)
        per_image.add(index, name, ImageCounts(count.update(prediction, target), boundary))
    found = scores_of_images(per_image).to_plain()
    checkpoint = {"path": "best.pt", "sha256": "0" * 64, "step": 10}
    extra = {"split": "val", "images": len(dataset), "checkpoint": checkpoint, "versions": {"python": "3.11"}}
    metrics = {**found, **extra, "config": Config().to_plain(), "command": "tools/test.py --checkpoint best.pt"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    per_image.save(folder / "per_image.npz")
    ious = image_ious(per_image)
    examples.collect_examples(dataset, Normalisation(), collector.gather(), per_image.indices, ious).save(
        folder / "examples.npz"
    )
    records = [{"step": s, "kind": "train", "loss": 1 / s, "lr": 0.1, "time_s": 1.0 * s} for s in range(1, 11)]
    records += [{"step": s, "kind": "val", "miou": s / 20} for s in (5, 10)]
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder
