"""Settings become objects; the one place where config meets classes.

Networks and losses are imported where they are made: torch, smp and timm take seconds, and data sets do without.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hrseg.config import AugmentConfig, Config, LossConfig, RunConfig, check_options, import_piece, is_dotted_path
from hrseg.data import DATASETS, cache, folds
from hrseg.data.checks import require_sound
from hrseg.data.dataset import Dataset, as_dataset
from hrseg.errors import ConfigError, DataError, WeightsError, nearest
from hrseg.task import IMAGENET_MEAN, IMAGENET_STD, LabelSpace, Normalisation, Sample, Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hrseg.data.transforms import TrainTransform
    from hrseg.losses import CombinedLoss


def piece(name: str, known: Mapping[str, Any], *, where: str, what: str) -> Any:
    """What a setting names: a member of `known`, or by a dotted path something outside hrseg."""
    if is_dotted_path(name):
        found = import_piece(name, where)
        if not callable(found):
            raise ConfigError(where, f"'{name}' is a {type(found).__name__}, not a class or function.")
        return found
    if name not in known:
        raise ConfigError(where, f"no {what} '{name}'.", nearest(name, known))
    return known[name]


def dotted_paths(config: Config) -> list[str]:
    """The code outside hrseg that the settings name."""
    names = [config.model.arch, config.data.dataset, config.optim.name, *(term.name for term in config.loss)]
    return [name for name in names if is_dotted_path(name)]


def dataset(config: Config, split: str) -> Dataset:
    """The data set of `data.dataset`, one split of it.

    With `data.folds` the training split is divided: `data.fold` of it is the validation split, the rest trains.
    """
    data = config.data
    if data.folds is not None and split in (data.train_split, data.val_split):
        whole = _split(config, data.train_split)
        try:
            validates = folds.fold_of_each(whole, data.folds) == data.fold
        except DataError:
            if data.check:  # a mask that cannot be read is reported with all else that is wrong, as without folds
                require_sound({data.train_split: whole}, workers=data.workers)
            raise
        chosen = validates if split == data.val_split else ~validates
        return folds.Part(whole, np.flatnonzero(chosen).tolist())
    return _split(config, split)


def data_sets(config: Config) -> dict[str, Dataset]:
    """The training and the validation set, by the names of their splits."""
    return {split: dataset(config, split) for split in (config.data.train_split, config.data.val_split)}


def _split(config: Config, split: str) -> Dataset:
    data = config.data
    cls = piece(data.dataset, DATASETS, where="data.dataset", what="data set")
    wired = ("root", "split", "task")
    kwargs = check_options(cls, data.options, where="data", wired=wired, also=type(data).model_fields)
    if "task" in inspect.signature(cls).parameters:
        kwargs["task"] = Task(data.task)
    elif data.task != "multiclass":
        raise ConfigError("data.task", f"the data set {data.dataset} is multiclass, not {data.task}.")
    return as_dataset(cls(data.root, split, **kwargs))


def cached(config: Config, dataset: Dataset, *, renew: bool = False, progress: bool = True) -> Dataset:
    """The data set out of the cache that `data.cache` asks for, made as far as it is missing; else as it is.

    renew: also what was made from files that have changed, which raises DataError else.
    """
    data = config.data
    if data.cache == "none":
        return dataset
    return cache.cached_dataset(
        dataset, data.cache, cache_dir(config), data.root, workers=data.workers, renew=renew, progress=progress
    )


def cache_dir(config: Config) -> Path:
    """The folder of `data.cache_dir`, by default in the data set's own."""
    return config.data.cache_dir or config.data.root / ".hrseg_cache"


def train_transform(
    augment: AugmentConfig, space: LabelSpace, *, channels: int = 3, dtype: type | np.dtype = np.uint8
) -> TrainTransform:
    """The `augment` section as a function of a sample and a random generator; see `transforms.train_transform`."""
    from hrseg.data import transforms

    values = {name: getattr(augment, name) for name in type(augment).model_fields}
    values["jitter"] = augment.jitter and augment.jitter.model_dump()
    return transforms.train_transform(transforms.Augmentation(**values), space, channels=channels, dtype=dtype)


def normalisation(config: Config, sample: Sample, known: Normalisation | None = None) -> Normalisation:
    """Mean, std and input range a channel: as set; else what the weights to start from were trained with (known); else
    the pretrained encoder's; else ImageNet's, or 0.5 beyond RGB.

    sample: an image of the data set, for its channels and type.
    """
    data, channels = config.data, sample.image.shape[2]
    mean, std = data.mean, data.std
    if known is not None and known.channels == channels:
        mean, std = mean or list(known.mean), std or list(known.std)
    if mean is None or std is None:
        usual_mean, usual_std = _usual_statistics(config, channels)
        mean, std = mean or usual_mean, std or usual_std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ConfigError(f"data.{name}", f"has {len(values)} entries, but the images have {channels} channels.")
    ranges = data.input_range
    if ranges is None:
        ranges = (0.0, float(np.iinfo(sample.image.dtype).max) if sample.image.dtype.kind in "ui" else 1.0)
    if isinstance(ranges, tuple):
        ranges = [ranges] * channels
    if len(ranges) != channels:
        raise ConfigError("data.input_range", f"has {len(ranges)} entries, but the images have {channels} channels.")
    return Normalisation(tuple(mean), tuple(std), tuple((float(low), float(high)) for low, high in ranges))


def _usual_statistics(config: Config, channels: int) -> tuple[list[float], list[float]]:
    if channels != 3:
        return [0.5] * channels, [0.25] * channels
    if config.model.encoder_weights:
        import segmentation_models_pytorch as smp

        try:
            params = smp.encoders.get_preprocessing_params(config.model.encoder, config.model.encoder_weights)
            return list(params["mean"]), list(params["std"])
        except (ValueError, KeyError):
            pass
    return list(IMAGENET_MEAN), list(IMAGENET_STD)


def model(config: Config, space: LabelSpace, channels: int, *, pretrained: bool = True) -> nn.Module:
    """The network of the `model` section with one output channel a class.

    pretrained: False leaves `encoder_weights` out, for a model whose weights come from a checkpoint.
    Raises ConfigError for unknown names and options, WeightsError when published weights cannot be had.
    """
    from hrseg.models.encoder import extra_channels
    from hrseg.models.hrnet import initialize, set_bn_momentum

    settings = config.model
    cls, options = model_class(config)
    try:
        with extra_channels(settings.extra_channels):
            network = cls(
                encoder_name=settings.encoder,
                encoder_weights=settings.encoder_weights if pretrained else None,
                in_channels=channels,
                classes=space.outputs,
                **options,
            )
    except OSError as error:  # huggingface_hub's and urllib's network errors are OSErrors
        raise WeightsError(
            f"model.encoder_weights: {settings.encoder_weights}",
            f"cannot be downloaded for {settings.encoder}: {str(error).splitlines()[0].rstrip('.')}.",
            "Fill the Hugging Face cache on a machine with a network, or train from random weights: "
            "model.encoder_weights=null.",
        ) from error
    except (ValueError, NotImplementedError, TypeError) as error:
        raise ConfigError(f"model: {settings.arch} over {settings.encoder}", str(error)) from error
    initialize(network, settings.init, pretrained_encoder=settings.encoder_weights is not None)
    if settings.bn_momentum is not None:
        set_bn_momentum(network, settings.bn_momentum)
    return network


def model_class(config: Config) -> tuple[Any, dict[str, Any]]:
    """The architecture of the `model` section and its options. Raises ConfigError for unknown names and options."""
    from hrseg import models

    settings = config.model
    cls = piece(settings.arch, models.ARCHITECTURES, where="model.arch", what="architecture")
    _check_encoder(settings.encoder, settings.encoder_weights)
    wired = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params")
    options = check_options(cls, settings.options, where="model", wired=wired, also=type(settings).model_fields)
    return cls, options


def _timm_like(name: str) -> list[str]:
    import timm

    return difflib.get_close_matches(name, timm.list_models(), n=5)


def _check_encoder(name: str, weights: str | None) -> None:
    import segmentation_models_pytorch as smp
    import timm

    if name.startswith("tu-"):
        plain = name.removeprefix("tu-").partition(".")[0]
        if not timm.is_model(plain):
            raise ConfigError("model.encoder", f"timm has no model '{plain}'.", nearest(plain, _timm_like(plain)))
        return
    if name not in smp.encoders.encoders:
        raise ConfigError("model.encoder", f"no encoder '{name}'.", nearest(name, smp.encoders.encoders))
    published = smp.encoders.encoders[name]["pretrained_settings"]
    if weights is not None and weights not in published:
        raise ConfigError("model.encoder_weights", f"{name} has no '{weights}'.", nearest(weights, published))


def criterion(config: Config, space: LabelSpace) -> CombinedLoss:
    """The sum of the terms of the `loss` section."""
    from hrseg.losses import CombinedLoss, make_term

    usual = "cross_entropy" if space.task is Task.MULTICLASS else "bce"
    terms = []
    for number, term in enumerate(config.loss or [LossConfig(name=usual)]):
        where = f"loss.{number}"
        try:
            terms.append((term.name, make_term(term.name, space, term.options), term.weight, term.output))
        except ConfigError as error:
            raise ConfigError(f"{where}.{error.where.removeprefix('loss.')}", error.what, error.way_out) from None
    return CombinedLoss(terms)


def device(config: RunConfig) -> torch.device:
    """The device of the `run` section, with this process set up for it."""
    from hrseg import runtime

    return runtime.set_up(config.device, threads=config.threads, deterministic=config.deterministic)


def convert_sync_bn(network: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """Batch norm over all processes, on CUDA with several of them; elsewhere plain batch norm."""
    from torch import nn

    from hrseg import distributed

    if config.model.sync_bn and distributed.world_size() > 1 and device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network
