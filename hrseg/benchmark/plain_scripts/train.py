"""Training on CamVid in the manner of smp's examples, with Lightning: train.py ROOT VARIANT ITERATIONS BATCH OUT

OUT/first_step appears when the first iteration is done.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import lightning as L
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from albumentations.pytorch import ToTensorV2
from network import Textbook
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CLASSES, CROP = 11, (240, 320)


class CamVid(Dataset):
    def __init__(self, root: Path, split: str, transform: A.Compose):
        self.images, self.masks = sorted((root / split).glob("*.png")), root / f"{split}annot"
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self.images[index]
        image: Any = cv2.imread(str(path))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        mask: Any = cv2.imread(str(self.masks / path.name), cv2.IMREAD_UNCHANGED)
        mask[mask >= CLASSES] = 255
        sample = self.transform(image=image, mask=mask)
        return sample["image"], sample["mask"].long()


class Model(L.LightningModule):
    def __init__(self, variant: str, iterations: int, out: Path):
        super().__init__()
        self.model, self.iterations, self.out = Textbook(variant, CLASSES), iterations, out
        self.counts: list[tuple[Tensor, ...]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = F.cross_entropy(self.model(batch[0]), batch[1], ignore_index=255)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.global_step == 1:
            (self.out / "first_step").touch()

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        logits = self.model(F.pad(batch[0], (0, 0, 0, -batch[0].shape[-2] % 32)))[..., : batch[0].shape[-2], :]
        labels = logits.argmax(1)
        self.counts.append(
            smp.metrics.get_stats(labels, batch[1], mode="multiclass", num_classes=CLASSES, ignore_index=255)
        )

    def on_validation_epoch_end(self) -> None:
        counts = [torch.cat(each) for each in zip(*self.counts, strict=True)]
        self.log("val_iou", smp.metrics.iou_score(*counts, reduction="macro"), prog_bar=True)
        self.counts.clear()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=5e-2)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, self.iterations, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(root: str, variant: str, iterations: str, batch: str, out: str) -> None:
    train = A.Compose([
        A.RandomScale((-0.5, 0.5), p=1), A.PadIfNeeded(*CROP, fill_mask=255), A.RandomCrop(*CROP), A.HorizontalFlip(),
        A.ColorJitter(0.3, 0.3, 0.3, 0.05, p=0.8), A.Normalize(), ToTensorV2(),
    ])  # fmt: skip
    data = CamVid(Path(root), "train", train), CamVid(Path(root), "val", A.Compose([A.Normalize(), ToTensorV2()]))
    loaders = (
        DataLoader(data[0], int(batch), shuffle=True, num_workers=1, drop_last=True, persistent_workers=True),
        DataLoader(data[1], num_workers=1),
    )
    Path(out).mkdir(parents=True)
    trainer = L.Trainer(
        max_steps=int(iterations), accelerator="cpu", default_root_dir=out, logger=False, num_sanity_val_steps=0,
        val_check_interval=int(iterations), check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(Model(variant, int(iterations), Path(out)), *loaders)


if __name__ == "__main__":
    main(*sys.argv[1:])
