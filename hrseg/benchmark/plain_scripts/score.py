"""Mean IoU of a network on Cityscapes: score.py ROOT SPLIT WEIGHTS VARIANT OUT.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from network import CLASSES, Textbook
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassConfusionMatrix

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# cityscapesScripts/helpers/labels.py: the ids of the 19 classes that are evaluated
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


class Cityscapes(Dataset):
    def __init__(self, root: Path, split: str):
        self.images = sorted((root / "leftImg8bit" / split).rglob("*.png"))
        self.table = np.full(256, 255, np.uint8)
        self.table[list(IDS)] = np.arange(CLASSES)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path = self.images[index]
        image: Any = cv2.imread(str(path))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        mask_path = str(path).replace("leftImg8bit.png", "gtFine_labelIds.png").replace("leftImg8bit", "gtFine")
        ids: Any = cv2.imread(mask_path, cv2.IMREAD_UNCHANGED)
        mask = self.table[ids]
        normalised = ((image / 255 - MEAN) / STD).astype(np.float32)
        return torch.from_numpy(normalised).permute(2, 0, 1), torch.from_numpy(mask).long()


def main(root: str, split: str, weights: str, variant: str, out: str) -> None:
    model = Textbook(variant).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    metric = MulticlassConfusionMatrix(CLASSES, ignore_index=255)
    for image, mask in DataLoader(Cityscapes(Path(root), split), num_workers=2):
        with torch.inference_mode():
            logits = model(image)
        metric.update(logits.argmax(1), mask)
    confusion = metric.compute().double()
    iou = confusion.diag() / (confusion.sum(0) + confusion.sum(1) - confusion.diag())
    Path(out).write_text(json.dumps({"miou": float(iou.nanmean())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
