"""Settings become a plan of training: data, network, loss and optimizer, before the first iteration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hrseg import distributed, models
from hrseg.build import memory
from hrseg.build import optimizer as optimizers
from hrseg.build.changes import require_same_data, require_same_meaning, require_same_values, with_saved_model
from hrseg.build.datasets import (
    cached,
    data_sets,
    input_ranges,
    normalisation,
    rare_classes,
    taken_images,
    train_transform,
    unlabelled_images,
)
from hrseg.build.evaluation import EvaluationPlan, evaluation_plan
from hrseg.build.networks import convert_sync_bn, criterion, model, model_class, syncs_batch_norm
from hrseg.build.starting_weights import StartingWeights
from hrseg.build.teacher import distillation, require_same_teachers
from hrseg.config import Config, OptimConfig, TrainConfig
from hrseg.data.checks import find_problems
from hrseg.data.dataset import Dataset
from hrseg.data.fitted import read_with_channels
from hrseg.data.image_checks import value_warnings
from hrseg.data.loader import iterations_per_epoch
from hrseg.data.problems import refuse_problems
from hrseg.data.rare_classes import RareClasses
from hrseg.data.transforms import TrainTransform
from hrseg.distillation import Distillation
from hrseg.errors import ConfigError, HrsegError
from hrseg.fast.narrow_batch_norm import widen_batch_norm
from hrseg.losses import CombinedLoss
from hrseg.models.hrnet import HRNet
from hrseg.models.recompute import recompute_activations
from hrseg.task import LabelSpace, Normalisation, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnlabelledPlan:
    """Images without labels. transform: of the view that is labelled. batch_size: of this process."""

    images: Dataset
    transform: TrainTransform
    batch_size: int
    weight: float
    threshold: float


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that training is made of. The model is on the device, with the weights that training starts from.

    config: only to be saved with the run and compared when it is resumed. batch_size: of this process. find_unused:
    whether some parameters may get no gradient in a step, which DistributedDataParallel has to be told.
    """

    config: Config
    device: torch.device
    seed: int
    train_set: Dataset
    val_set: Dataset
    transform: TrainTransform
    rare_classes: RareClasses | None
    normalisation: Normalisation
    model: nn.Module
    criterion: CombinedLoss
    distillation: Distillation | None
    unlabelled: UnlabelledPlan | None
    optimizer: torch.optim.Optimizer
    settings: TrainConfig
    schedule: OptimConfig
    evaluation: EvaluationPlan
    batch_size: int
    workers: int
    find_unused: bool

    @property
    def space(self) -> LabelSpace:
        return self.train_set.space

    @property
    def layout(self) -> torch.memory_format:
        """How images and features lie in memory."""
        return memory_layout(self.settings)

    @property
    def teachers(self) -> list[dict[str, str]]:
        """Path and SHA-256 of each teacher's checkpoint."""
        return list(self.distillation.teacher.files) if self.distillation else []

    @property
    def epoch_length(self) -> int:
        """Iterations per epoch."""
        return iterations_per_epoch(len(self.train_set), self.settings.batch_size)

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return self.settings.iterations or max(1, round((self.settings.epochs or 1) * self.epoch_length))

    @property
    def validation(self) -> EvaluationPlan:
        """How the model is validated: as it is evaluated, but by torch where no engine is named.

        The model is another one each time: an engine would take longer to make, and hold the weights once more.
        """
        backend = self.evaluation.backend
        return replace(self.evaluation, backend="torch" if backend == "auto" else backend)

    @property
    def val_every(self) -> int:
        """Iterations between two validations."""
        return self.settings.val_every or self.epoch_length

    @property
    def checkpoint_every(self) -> int:
        """Iterations between two checkpoints."""
        return self.settings.checkpoint_every or self.val_every


def training_plan(
    config: Config, device: torch.device, saved: Mapping[str, Any] | None = None, *, check: bool = True
) -> TrainingPlan:
    """Build what the settings ask for, refusing what is cheap to refuse first.

    Misspelt settings are reported before files are looked at, files before weights are fetched.
    saved: the checkpoint that is resumed. check: look at all files of the data sets first, if data.check says so.
    """
    start = StartingWeights(config.model.weights) if config.model.weights and saved is None else None
    if start is not None:
        config = start.completed(config)
    if saved is not None:
        config = with_saved_model(config, saved)
        require_same_meaning(saved, config)
    torch.manual_seed(config.run.seed)  # random weights are a function of the seed
    sets = data_sets(config)
    train_set, val_set = sets[config.data.train_split], sets[config.data.val_split]
    _require_labels_for_unlabelled(config)
    if saved is not None:
        require_same_data(saved, train_set, val_set)
        for split, dataset in sets.items():  # older runs had transparency as a channel
            channels = len(saved["normalisation"]["input_range"])
            read_with_channels(dataset, channels, f"images of split '{split}'", "the checkpoint")
    model_class(config)
    optimizers.optimizer_class(config.optim)
    batch_size = batch_size_of_process(config.train)
    loss = criterion(config, train_set.space)

    def require_sound_files() -> None:
        if check and config.data.check and distributed.is_main():
            refuse_problems(find_problems(sets, workers=config.data.workers), sets)
            taken = taken_images(config, train_set)
            for warning in value_warnings(sets, taken) if taken else []:
                log.warning(f"warning: {warning}")

    sample = _first_sample(train_set, require_sound_files)
    memory.require_room_for_samples(config.augment, sample)
    channels, dtype = sample.image.shape[2], sample.image.dtype
    low = [darkest for darkest, _ in input_ranges(config, channels, dtype)]
    transform = train_transform(config.augment, train_set.space, channels=channels, dtype=dtype, low=low)
    require_sound_files()
    distributed.wait_for_main()

    network, ranges = _starting_network(config, train_set.space, sample, saved, start)
    taught = distillation(config.distill, train_set.space, ranges, device)
    if saved is not None:
        require_same_teachers(saved, taught)
    images = batch_size // config.train.accumulate
    memory.require_room_for_step(
        network,
        train_set.space,
        sample,
        images,
        device,
        crop=config.augment.crop,
        precision=config.train.precision,
        frozen_batch_norm=config.train.freeze_bn,
        frozen=config.train.freeze,
        shared_batch_norm=syncs_batch_norm(config.model, device),
    )
    network = _placed(convert_sync_bn(network, config.model, device), config.train, device)
    optimizer = optimizers.optimizer(network, config.optim)
    memory.require_room_for_evaluation(config.eval, val_set, device)
    without_labels = _unlabelled_plan(config, train_set, sample)
    rare = _rare_classes(config, train_set)
    train_set, val_set = (cached(config, dataset, progress=distributed.is_main()) for dataset in (train_set, val_set))
    return TrainingPlan(
        config=config,
        device=device,
        seed=config.run.seed,
        train_set=train_set,
        val_set=val_set,
        transform=transform,
        rare_classes=rare,
        normalisation=ranges,
        model=network,
        criterion=loss,
        distillation=taught,
        unlabelled=without_labels,
        optimizer=optimizer,
        settings=config.train,
        schedule=config.optim,
        evaluation=evaluation_plan(config, train_set.space.task),
        batch_size=batch_size,
        workers=config.data.workers,
        find_unused=_some_parameters_unused(network, device, config.run.deterministic),
    )


def batch_size_of_process(settings: TrainConfig, where: str = "train.batch_size") -> int:
    """Images per iteration of one process. Raises ConfigError where they cannot be split evenly."""
    if settings.batch_size % (distributed.world_size() * settings.accumulate):
        raise ConfigError(
            where,
            f"{settings.batch_size} images cannot be split evenly over {distributed.world_size()} processes "
            f"x train.accumulate={settings.accumulate}.",
            "It counts the images of all processes together: choose a multiple.",
        )
    return settings.batch_size // distributed.world_size()


def memory_layout(settings: TrainConfig) -> torch.memory_format:
    """How images and features lie in memory."""
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def _require_labels_for_unlabelled(config: Config) -> None:
    """Raise ConfigError where `unlabelled` is set and something is missing that it needs."""
    if config.unlabelled is None:
        return
    if not config.distill and not config.train.ema:
        what = "images without labels are labelled by a teacher or by the model's running average, and there is none."
        raise ConfigError("unlabelled", what, "Set train.ema, for example to 0.99, or distill.teacher.")
    if config.augment.crop is None:
        raise ConfigError("unlabelled", "needs crops of one size.", "Set augment.crop: [height, width].")


def _unlabelled_plan(config: Config, train_set: Dataset, sample: Sample) -> UnlabelledPlan | None:
    settings = config.unlabelled
    if settings is None:
        return None
    kind = sample.image.shape[2], sample.image.dtype
    together = settings.batch_size or config.train.batch_size
    own = batch_size_of_process(config.train.model_copy(update={"batch_size": together}), "unlabelled.batch_size")
    weak = config.augment.model_copy(update={"jitter": None, "extra": [], "max_class_share": 1.0})
    transform = train_transform(weak, train_set.space, channels=kind[0], dtype=kind[1])
    images = unlabelled_images(config, train_set)
    return UnlabelledPlan(images, transform, own, settings.weight, settings.threshold)


def _rare_classes(config: Config, train_set: Dataset) -> RareClasses | None:
    """The first process reads the targets; the others wait for the file that it leaves."""
    main = distributed.is_main()
    if not main:
        distributed.wait_for_main()
    found = rare_classes(config, train_set, progress=main)
    if main:
        distributed.wait_for_main()
    return found


def _first_sample(train_set: Dataset, require_sound_files: Callable[[], None]) -> Sample:
    """The first sample; where it cannot be read, the check reports it together with everything else."""
    try:
        return train_set[0]
    except HrsegError:
        require_sound_files()
        raise


def _starting_network(
    config: Config,
    space: LabelSpace,
    sample: Sample,
    saved: Mapping[str, Any] | None,
    start: StartingWeights | None,
) -> tuple[nn.Module, Normalisation]:
    """The network before the first iteration, on the CPU, and the normalisation of its images.

    Weights come from the checkpoint that is resumed (later, with the rest of its state), from model.weights, or from
    model.encoder_weights.
    """
    known = None
    if saved is not None:
        known = Normalisation.from_plain(saved["normalisation"])
    elif start is not None and start.found is not None:
        known = start.found.normalisation
    ranges = normalisation(config, sample, known)
    if saved is not None:
        require_same_values(Normalisation.from_plain(saved["normalisation"]), ranges)
    network = model(config, space, ranges.channels, pretrained=saved is None)
    if start is not None:
        start.load_into(network, config)
    optimizers.freeze(network, config.train.freeze)
    if config.train.recompute and not recompute_activations(network):
        raise ConfigError("train.recompute", f"is for HRNet encoders, not {config.model.encoder}.", "Set it to false.")
    return network, ranges


def _placed(network: nn.Module, settings: TrainConfig, device: torch.device) -> nn.Module:
    """The network on its device, in its memory layout; on the CPU with the faster form of narrow batch norms."""
    if device.type == "cpu" and settings.channels_last and not settings.compile:
        widen_batch_norm(network)
    return network.to(device).to(memory_format=memory_layout(settings))  # type: ignore[call-overload]


def _some_parameters_unused(network: nn.Module, device: torch.device, deterministic: bool) -> bool:
    # Some architectures read only some features, and some encoders have layers that feed none: no gradient there.
    uses_all = isinstance(network, models.HRNetV2 | models.OCRNet) and isinstance(network.encoder, HRNet)
    # Otherwise gradients are repacked after the first iteration, and sums over three or more processes then come in
    # another order than right after a resume.
    return not uses_all or (distributed.world_size() > 2 and (device.type == "cpu" or deterministic))
