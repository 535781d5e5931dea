"""hrseg's parts in Lightning: its data sets in a data module, its loss a module, its metric summed over the ranks.

python docs/examples/in_lightning.py configs/demo.yaml train.iterations=20

The same seed and recipe give the losses of tools/train.py.
"""

import sys

import lightning
import torch

from hrseg import build, config
from hrseg.build import optimizer as optim
from hrseg.config import Config
from hrseg.data.loader import Normalise, eval_loader, train_loader
from hrseg.metrics import ConfusionMatrix, miou


class Data(lightning.LightningDataModule):
    """Training and validation images of a recipe."""

    def __init__(self, settings: Config):
        super().__init__()
        self.settings = settings
        self.train_set = build.dataset(settings, settings.data.train_split)
        self.val_set = build.dataset(settings, settings.data.val_split)

    def ranks(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def train_dataloader(self):
        settings, sample = self.settings, self.train_set[0]
        transform = build.train_transform(
            settings.augment, self.train_set.space, channels=sample.image.shape[2], dtype=sample.image.dtype
        )
        return train_loader(
            self.train_set,
            transform,
            batch_size=settings.train.batch_size // self.trainer.world_size,
            steps=settings.train.iterations,
            seed=settings.run.seed,
            workers=settings.data.workers,
            **self.ranks(),
        )

    def val_dataloader(self):
        return eval_loader(self.val_set, workers=self.settings.data.workers, **self.ranks())


class Segmenter(lightning.LightningModule):
    """A recipe's network, loss and optimizer."""

    def __init__(self, settings: Config, data: Data):
        super().__init__()
        torch.manual_seed(settings.run.seed)
        space, normalisation = data.train_set.space, build.normalisation(settings, data.train_set[0])
        self.settings = settings
        self.normalise = Normalise(normalisation)
        self.model = build.model(settings, space, normalisation.channels).to(memory_format=torch.channels_last)
        self.loss = build.criterion(settings, space)
        self.confusion = ConfusionMatrix(len(space.classes), space.ignore_index)
        self.losses: list[float] = []

    def images(self, batch):
        return self.normalise(batch.image).contiguous(memory_format=torch.channels_last)

    def on_train_batch_start(self, batch, number):
        rate = optim.learning_rate(self.global_step, self.settings.train.iterations, self.settings.optim)
        optim.set_learning_rate(self.optimizers().optimizer, rate)

    def training_step(self, batch, number):
        value = self.loss(self.model.forward_train(self.images(batch)), batch.target)
        self.losses.append(float(value.total.detach()))
        return value.total

    def validation_step(self, batch, number):
        self.confusion.update(self.model(self.images(batch)).argmax(1), batch.target)

    def on_validation_epoch_end(self):
        self.confusion.sync()
        self.log("miou", miou(self.confusion.compute(), "cityscapes"))
        self.confusion.reset()

    def configure_optimizers(self):
        return optim.optimizer(self.model, self.settings.optim)


def train(path: str, changes: list[str], **trainer) -> Segmenter:
    """Train a recipe with a Lightning trainer."""
    settings = config.load(path, changes)
    data = Data(settings)
    module = Segmenter(settings, data)
    lightning.Trainer(max_epochs=1, num_sanity_val_steps=0, **trainer).fit(module, data)
    return module


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for loss in train(sys.argv[1], sys.argv[2:]).losses:
        print(f"{loss:.6f}")
