"""The `data` section becomes data sets, with their cache and the range of their values; without torch."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hrseg.build.pieces import piece
from hrseg.config import AugmentConfig, Config, check_options
from hrseg.data import DATASETS, cache, folds
from hrseg.data.checks import require_sound
from hrseg.data.compact_strings import plain_strings
from hrseg.data.dataset import Dataset, as_dataset
from hrseg.data.fitted import FittedDataset, fitted, image_kind
from hrseg.data.folder import ALL
from hrseg.errors import ConfigError, DataError, first_line
from hrseg.task import IMAGENET_MEAN, IMAGENET_STD, LabelSpace, Normalisation, Sample, Task, full_range

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from hrseg.data.rare_classes import RareClasses
    from hrseg.data.transforms import TrainTransform


def dataset(config: Config, split: str) -> Dataset:
    """The data set of `data.dataset`, one split of it.

    With `data.folds` the training split is divided, or all images where `data.val_share` would make the splits:
    `data.fold` of it is the validation split, the rest trains.
    """
    data = config.data
    if data.folds is not None and split in (data.train_split, data.val_split):
        whole = _all_to_fold(config)
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
    """The training and the validation set, by the names of their splits; of the former, what has labels to use.

    Validation images get the channels and the range of values of the training images. Raises DataError where they
    cannot, or where it is not certain what their values mean.
    """
    train, val = config.data.train_split, config.data.val_split
    sets = {split: dataset(config, split) for split in (train, val)}
    if config.data.labelled is not None or (config.unlabelled and config.unlabelled.root is None):
        sets[train] = folds.Part(sets[train], np.flatnonzero(_is_labelled(config, sets[train])).tolist())
    if config.data.folds is not None and _has_share(config):
        log.info(f"data.folds divides all {sum(map(len, sets.values()))} images; data.val_share is not used.")
    taken = taken_images(config, sets[train])
    if val != train and taken is not None:
        sets[val] = fitted(sets[val], taken, f"images of split '{val}'", f"split '{train}'")
    return sets


def dataset_for_model(config: Config, split: str, normalisation: Normalisation) -> Dataset:
    """A split as a model with this normalisation takes it. Raises DataError as `data_sets` does."""
    return fitted(dataset(config, split), normalisation, f"images of split '{split}'")


def taken_images(config: Config, train_set: Dataset) -> Normalisation | None:
    """What images a model of this training set takes: channels, range and type; mean and std are left out.

    None: the images cannot be read.
    """
    kind = image_kind(train_set)
    if kind is None:
        return None
    plain, ranges = Normalisation.none(kind.channels), input_ranges(config, kind.channels, kind.dtype)
    return replace(plain, input_range=ranges, image_type=_type_name(kind.dtype))


def unlabelled_images(config: Config, train_set: Dataset) -> Dataset:
    """The images of the `unlabelled` section, with the channels and the range of values of the training images."""
    from hrseg.data.unlabelled import ImageFolder

    assert config.unlabelled is not None
    if config.unlabelled.root is not None:
        images: Dataset = ImageFolder(config.unlabelled.root, train_set.space)
        taken = taken_images(config, train_set)
        return images if taken is None else fitted(images, taken, "images of unlabelled.root", "training")
    whole = dataset(config, config.data.train_split)
    rest = np.flatnonzero(~_is_labelled(config, whole)).tolist()
    if not rest:
        what = f"every image of {config.data.train_split} has a mask that is used."
        raise ConfigError("unlabelled", what, "Give a folder of images, unlabelled.root, or a list, data.labelled.")
    return folds.Part(whole, rest)


def _is_labelled(config: Config, whole: Dataset) -> np.ndarray:
    """bool [N]: of which images the masks are used: those that data.labelled lists, or else those that have one."""
    path = config.data.labelled
    if path is None:
        masks = whole.all_masks()
        each = len(masks) // max(1, len(whole))
        found = np.array([os.access(mask, os.F_OK) for mask in plain_strings(masks)]).reshape(len(whole), each)
        return np.asarray(found.all(axis=1))
    try:
        listed = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"data.labelled: {path}", f"cannot be read: {first_line(error)}.") from None
    names = {line.strip() for line in listed} - {""}
    if unknown := sorted(names - set(whole.names)):
        what = f"lists {unknown[0]}, which is not an image of {config.data.train_split}"
        what += f", and {len(unknown) - 1} more." if len(unknown) > 1 else "."
        raise ConfigError(f"data.labelled: {path}", what, f"Names are written like {whole.names[0]}, one per line.")
    if not names:
        raise ConfigError(f"data.labelled: {path}", "lists no image.", "Give one name per line.")
    return np.array([name in names for name in whole.names])


def _has_share(config: Config) -> bool:
    """Whether a share of a user's folder would be the validation split."""
    return config.data.dataset == "folder" and config.data.options.get("val_share") is not None


def _all_to_fold(config: Config) -> Dataset:
    split = config.data.train_split
    if _has_share(config) and split in ("train", ALL):
        return _split(config, ALL, without=("val_share",))
    return _split(config, split)


def _split(config: Config, split: str, *, without: Sequence[str] = ()) -> Dataset:
    """without: options that are left out."""
    data = config.data
    cls = piece(data.dataset, DATASETS, where="data.dataset", what="data set")
    wired = ("root", "split", "task")
    kwargs = check_options(cls, data.options, where="data", wired=wired, also=type(data).model_fields)
    kwargs = {name: value for name, value in kwargs.items() if name not in without}
    if "task" in inspect.signature(cls).parameters:
        kwargs["task"] = Task(data.task)
    elif data.task != "multiclass":
        raise ConfigError("data.task", f"the data set {data.dataset} is multiclass, not {data.task}.")
    return as_dataset(cls(data.root, split, **kwargs))


def cached(config: Config, dataset: Dataset, *, renew: bool = False, progress: bool = True) -> Dataset:
    """The data set out of the cache that `data.cache` asks for, made as far as it is missing; otherwise unchanged.

    renew: also what was made from files that have changed, which raises DataError else.
    """
    data = config.data
    if data.cache == "none":
        return dataset
    if isinstance(dataset, FittedDataset):
        return dataset.over(cached(config, dataset.whole, renew=renew, progress=progress))
    return cache.cached_dataset(
        dataset, data.cache, cache_dir(config), data.root, workers=data.workers, renew=renew, progress=progress
    )


def cache_dir(config: Config) -> Path:
    """The folder of `data.cache_dir`, by default in the data set's own."""
    return config.data.cache_dir or config.data.root / ".hrseg_cache"


def rare_classes(config: Config, train_set: Dataset, *, progress: bool = True) -> RareClasses | None:
    """What `data.sampling` draws crops by. Targets are read once; the answer is kept in the folder of the cache."""
    from hrseg.data.rare_classes import RareClasses, find_class_places

    sampling = config.data.sampling
    if sampling is None or not sampling.rare:
        return None
    known = find_class_places(train_set, cache_dir(config), workers=config.data.workers, progress=progress)
    return RareClasses(known, sampling.rare)


def train_transform(
    augment: AugmentConfig,
    space: LabelSpace,
    *,
    channels: int = 3,
    dtype: type | np.dtype = np.uint8,
    low: Sequence[float] | None = None,
) -> TrainTransform:
    """The `augment` section as a function of a sample and a random generator; see `transforms.train_transform`."""
    from hrseg.data import transforms

    values = {name: getattr(augment, name) for name in type(augment).model_fields}
    values["jitter"] = augment.jitter and augment.jitter.model_dump()
    augmentation = transforms.Augmentation(**values)
    return transforms.train_transform(augmentation, space, channels=channels, dtype=dtype, low=low)


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
    dtype = sample.image.dtype
    return Normalisation(tuple(mean), tuple(std), input_ranges(config, channels, dtype), _type_name(dtype))


def _type_name(dtype: np.dtype) -> str | None:
    return dtype.name if dtype in (np.uint8, np.uint16, np.float32) else None


def input_ranges(config: Config, channels: int, dtype: np.dtype) -> tuple[tuple[float, float], ...]:
    """The values of each channel that become 0 and 1: `data.input_range`, else the whole range of the images' type."""
    ranges = config.data.input_range
    if ranges is None:
        ranges = full_range(dtype)
    if isinstance(ranges, tuple):
        ranges = [ranges] * channels
    if len(ranges) != channels:
        raise ConfigError("data.input_range", f"has {len(ranges)} entries, but the images have {channels} channels.")
    return tuple((float(low), float(high)) for low, high in ranges)


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
