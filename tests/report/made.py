"""Run folders made by hand: what an evaluation leaves, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hrseg.config import Config
from hrseg.metrics import ConfusionMatrix, ImageCounts, PerImage, scores_of_images
from hrseg.report import examples
from hrseg.task import LabelSpace, Normalisation, SegmentationClass, Task

SPACE = LabelSpace(
    tuple(SegmentationClass(n, c) for n, c in (("road", (128, 64, 128)), ("car", (0, 0, 142)), ("sky", (70, 130, 180))))
)


class Pictures:
    """A data set in memory: `names`, and samples of random images with blocks as labels."""

    def __init__(self, names: list[str], space: LabelSpace = SPACE, size: tuple[int, int] = (24, 40), clean: int = 0):
        self.names, self.space, self.size, self.clean = names, space, size, clean

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self.size, 3), dtype=np.uint8)
        if self.space.task is Task.MULTILABEL:
            target = rng.integers(0, 2, (len(self.space.classes), *self.size), dtype=np.uint8)
        else:
            blocks = rng.integers(0, len(self.space.classes), (3, 4), dtype=np.uint8)
            blocks *= index < len(self) - self.clean
            target = np.kron(blocks, np.ones((self.size[0] // 3, -(-self.size[1] // 4)), np.uint8))[:, : self.size[1]]
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
    clean: int = 0,
) -> Path:
    """A run folder whose predictions are wrong in about that share of the pixels.

    boundary: of each image. clean: so many images at the end have class 0 alone.
    """
    folder.mkdir(parents=True)
    dataset, multilabel = Pictures(names, space, size, clean), space.task is Task.MULTILABEL
    classes = len(space.classes)
    count = ConfusionMatrix(classes, multilabel=multilabel)
    per_image, collector = PerImage(space), examples.PredictionCollector(len(dataset), Normalisation())
    for index in range(len(dataset)):
        image, target, name = dataset[index]
        rng = np.random.default_rng([7, index])
        amiss = rng.random(target.shape) < wrong * (1 + index) / len(dataset)
        prediction = np.where(amiss, (target + 1) % (2 if multilabel else classes), target).astype(np.uint8)
        prediction[target == 255] = 0
        collector(index, prediction)
        if index % 2:  # the others are read again
            collector.see(index, image, target)
        per_image.add(index, name, ImageCounts(count.update(prediction, target), boundary))
    found = scores_of_images(per_image).to_plain()
    checkpoint = {"path": "best.pt", "sha256": "0" * 64, "step": 10}
    extra = {"split": "val", "images": len(dataset), "checkpoint": checkpoint, "versions": {"python": "3.11"}}
    metrics = {**found, **extra, "config": Config().to_plain(), "command": "tools/test.py --checkpoint best.pt"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    per_image.save(folder / "per_image.npz")
    examples.collect_examples(dataset, Normalisation(), collector, per_image).save(folder / "examples.npz")
    records = [{"step": s, "kind": "train", "loss": 1 / s, "lr": 0.1, "time_s": 1.0 * s} for s in range(1, 11)]
    for s in (5, 10):
        ious = {c.name: s / 20 for c in space.classes}
        records.append({"step": s, "kind": "val", "loss": 2 / s, "miou": s / 20, "class_iou": ious})
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder
