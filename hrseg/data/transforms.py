"""Augmentation from settings: the one door to albumentations."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the package index for a newer version

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.crops.transforms import BaseCrop

from hrseg.config import AugmentConfig, check_options
from hrseg.data.loader import label_type, resize, scaled_size
from hrseg.errors import ConfigError, DataError, nearest
from hrseg.task import LabelSpace, Sample, Task

CROP_TRIES = 10
PROBES = 8
PROBE_SIZE = (96, 128)  # where no crop says how large the images will be
COMPOSITIONS = (A.OneOf, A.SomeOf, A.RandomOrder, A.Sequential)
BASES = (A.BasicTransform, A.DualTransform, A.ImageOnlyTransform, A.Transform3D)
EXTRAS: dict[str, Any] = {
    name: piece
    for name, piece in vars(A).items()
    if inspect.isclass(piece) and issubclass(piece, (A.BasicTransform, *COMPOSITIONS)) and piece not in BASES
}


class RandomResize(A.DualTransform):
    """The short side brought to `short_side`, or the long one to `long_side`, times a random scale, in one step.

    scale: (low, high), both included; any value between, or those in steps of `scale_step` from low.
    """

    def __init__(
        self,
        short_side: int | None = None,
        long_side: int | None = None,
        scale: tuple[float, float] | None = None,
        scale_step: float | None = None,
    ):
        super().__init__(p=1.0)
        self.short_side, self.long_side = short_side, long_side
        self.scale, self.scale_step = scale or (1.0, 1.0), scale_step

    def random_scale(self) -> float:
        low, high = self.scale
        if self.scale_step is None:
            return self.random_generator.uniform(low, high)
        steps = int((high - low) / self.scale_step + 1e-6)  # (2.1 - 0.5) / 0.1 may come out below 16
        return low + self.scale_step * self.random_generator.integers(steps + 1)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        size = params["shape"][:2]
        base = 1.0
        if self.short_side:
            base = self.short_side / min(size)
        elif self.long_side:
            base = self.long_side / max(size)
        return {"size": scaled_size(size, base * self.random_scale())}

    def apply(self, img: np.ndarray, size: tuple[int, int], **params: Any) -> np.ndarray:
        return resize(img, size)

    def apply_to_mask(self, mask: np.ndarray, size: tuple[int, int], **params: Any) -> np.ndarray:
        # Plain INTER_NEAREST would put the labels about half a pixel beside the image.
        return resize(mask, size, cv2.INTER_NEAREST_EXACT)


class RandomWindow(BaseCrop):
    """A random window of at most `size`; ten tries to keep every class at or below `max_class_share` of its labels."""

    def __init__(self, size: tuple[int, int], max_class_share: float, ignore_index: int):
        super().__init__(p=1.0)
        self.size, self.max_class_share, self.ignore_index = size, max_class_share, ignore_index

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        target = data["mask"] if "mask" in data else data["masks"]
        height, width = (min(pair) for pair in zip(self.size, params["shape"], strict=False))
        for _ in range(CROP_TRIES if self.max_class_share < 1 else 1):
            top = int(self.random_generator.integers(params["shape"][0] - height + 1))
            left = int(self.random_generator.integers(params["shape"][1] - width + 1))
            window = target[..., top : top + height, left : left + width]
            if self.max_class_share < 1 and largest_share(window, self.ignore_index) <= self.max_class_share:
                break
        return {"crop_coords": (left, top, left + width, top + height)}


class RandomFlip(A.HorizontalFlip):
    """Left and right exchanged; by numpy, since OpenCV 5 flips no image of more than 128 channels."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return img[:, ::-1]


def largest_share(target: np.ndarray, ignore_index: int) -> float:
    """The share of the most frequent class, or label that is on, of what is not ignored; 1 where all is ignored.

    target: class indices [H, W], or {0, 1, ignore} [L, H, W].
    """
    valid = target != ignore_index
    if not valid.any():
        return 1.0
    if target.ndim == 3:
        return float(((target == 1).sum((1, 2)) / np.maximum(valid.sum((1, 2)), 1)).max())
    counts = np.bincount(target[valid])
    return float(counts.max() / counts.sum())


class TrainTransform:
    """An albumentations pipeline as a function of a sample and a random generator, and of nothing else.

    pipeline: takes image and mask (or masks [L, H, W]). unit_range: it has colour transforms, which clip float images
    to [0, 1]. Raises DataError for a float image with other values then.
    """

    def __init__(self, pipeline: A.Compose, *, unit_range: bool = False):
        self.pipeline, self.unit_range = pipeline, unit_range

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.unit_range and sample.image.dtype == np.float32:
            low, high = sample.image.min(), sample.image.max()
            if not (low >= 0 and high <= 1):
                what = f"colour transforms take float images in [0, 1], this one has [{low:g}, {high:g}]."
                raise DataError(sample.name, what, "Scale the files, or drop augment.jitter and colour extras.")
        seed_state(self.pipeline, rng)
        assert sample.target is not None
        mask = "mask" if sample.target.ndim == 2 else "masks"
        out = self.pipeline(image=sample.image, **{mask: sample.target})
        return sample._replace(image=out["image"], target=out[mask])


def seed_state(transform: A.BasicTransform | A.BaseCompose, rng: np.random.Generator) -> None:
    """Make all that a transform draws from now on follow from `rng`."""
    transform.set_random_state(rng, random.Random(int(rng.integers(2**63))))


def train_transform(
    config: AugmentConfig, space: LabelSpace, *, channels: int = 3, dtype: type | np.dtype = np.uint8
) -> TrainTransform:
    """Resize, crop, jitter, pad, flip, extras: each where it is set.

    Smaller images are padded at the bottom and right, with 0 and the ignore index. channels, dtype: of the images; each
    jitter and extra is tried on a made sample of that kind. Raises ConfigError for one that is unknown, has wrong
    parameters, does not work on it, changes the image's type or a mask's values, or changes the size of crops.
    """
    probe = Probe(space, channels, np.dtype(dtype), config.crop)
    steps: list[A.BasicTransform | A.BaseCompose] = []
    if config.short_side or config.long_side or config.scale:
        steps.append(RandomResize(config.short_side, config.long_side, config.scale, config.scale_step))
    if config.crop:
        steps.append(RandomWindow(config.crop, config.max_class_share, space.ignore_index))
    if config.jitter:
        steps.append(A.ColorJitter(**config.jitter.model_dump()))
        probe(steps[-1], "augment.jitter")
    if config.crop:
        height, width = config.crop  # padded after the jitter, so that padding stays 0
        padding = {"position": "top_left", "border_mode": cv2.BORDER_CONSTANT, "fill": 0}
        steps.append(A.PadIfNeeded(height, width, **padding, fill_mask=space.ignore_index, p=1.0))
    if config.flip:
        steps.append(RandomFlip(p=config.flip))
    steps += [extra(entry, f"augment.extra.{i}", probe) for i, entry in enumerate(config.extra)]
    return TrainTransform(A.Compose(steps), unit_range=any(_recolours(step) for step in steps))


def extra(entry: Mapping[str, Any], where: str, probe: Probe) -> A.BasicTransform | A.BaseCompose:
    """One albumentations transform from {name: ..., parameter: ...}, tried; OneOf and the like hold a list of them."""
    options = dict(entry)
    name = str(options.pop("name", None))
    if name not in EXTRAS:
        raise ConfigError(f"{where}.name", f"no albumentations transform '{name}'.", nearest(name, EXTRAS))
    piece = EXTRAS[name]
    check_options(piece, options, where=where, also=("name",))
    composed = piece in COMPOSITIONS
    if composed:
        parts = options["transforms"]
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise ConfigError(f"{where}.transforms", "must be a list of transforms.", "[{name: Blur, p: 0.5}, ...]")
        options["transforms"] = [extra(part, f"{where}.transforms.{i}", probe) for i, part in enumerate(parts)]
    try:
        transform = piece(**options)
    except Exception as error:  # whatever a transform raises, it is about the parameters it was given
        raise ConfigError(where, f"{name} refuses its parameters: {_reason(error)}") from error
    if composed:
        return transform
    # None stands for "leave the mask", as in dropouts; a number is the fill of new pixels, class 0 by default.
    if "fill_mask" not in options and getattr(transform, "fill_mask", None) is not None:
        transform.fill_mask = probe.space.ignore_index
    probe(transform, where, fill=options.get("fill_mask"))
    return transform


class Probe:
    """Tries transforms on made samples of one kind and refuses those that are not fit for segmentation."""

    def __init__(self, space: LabelSpace, channels: int, dtype: np.dtype, crop: tuple[int, int] | None):
        self.space, self.crop = space, crop
        rng = np.random.default_rng(0)
        height, width = crop or PROBE_SIZE
        top = 1 if dtype.kind == "f" else np.iinfo(dtype).max
        self.image = (rng.random((height, width, channels)) * top).astype(dtype)
        # Blocks of the highest class and ignored ones: a mean of neighbours or a fill with 0 gives another value.
        self.highest = 1 if space.task is Task.MULTILABEL else len(space.classes) - 1
        labels = (len(space.classes),) if space.task is Task.MULTILABEL else ()
        blocks = rng.choice([self.highest, space.ignore_index], (*labels, -(-height // 8), -(-width // 8)))
        self.target = blocks.repeat(8, -1).repeat(8, -2)[..., :height, :width].astype(label_type(space))

    def __call__(self, transform: A.BasicTransform, where: str, fill: Any = None) -> None:
        """Raises ConfigError where the transform fails or gives a sample that cannot be learned from.

        fill: the value for new mask pixels that a person asked for.
        """
        name, dtype, channels = type(transform).__name__, self.image.dtype, self.image.shape[2]
        mask = "mask" if self.target.ndim == 2 else "masks"
        allowed = {self.highest, self.space.ignore_index}
        allowed |= {fill} if isinstance(fill, int) and 0 <= fill <= self.highest else set()
        for attempt in range(PROBES):
            seed_state(transform, np.random.default_rng(attempt))
            try:
                out = transform(image=self.image.copy(), **{mask: self.target.copy()}, force_apply=True)
            except Exception as error:  # whatever a transform raises here, it would raise in training
                what = f"{name} does not work on {dtype} images of {channels} channels with {mask}: {_reason(error)}"
                raise ConfigError(where, what) from error
            image, target = out["image"], out[mask]
            if not isinstance(image, np.ndarray) or image.dtype != dtype or image.shape[2:] != (channels,):
                kind = f"{image.dtype} {tuple(image.shape)}"
                raise ConfigError(where, f"{name} turns {dtype} images of {channels} channels into {kind}.")
            if target.dtype != self.target.dtype or not set(np.unique(target).tolist()) <= allowed:
                way_out = "Set its mask_interpolation to 0 (nearest) and its fill_mask to a class or the ignore index."
                raise ConfigError(where, f"{name} puts values into masks that are no labels.", way_out)
            if target.shape[-2:] != image.shape[:2]:
                raise ConfigError(where, f"{name} gives image and mask different sizes.")
            if self.crop and image.shape[:2] != tuple(self.crop):
                size = list(image.shape[:2])
                raise ConfigError(
                    where, f"{name} turns crops of {list(self.crop)} into {size}.", "A batch needs one size."
                )


def _recolours(transform: A.BasicTransform | A.BaseCompose) -> bool:
    if isinstance(transform, A.BaseCompose):
        return any(_recolours(part) for part in transform.transforms)
    return isinstance(transform, A.ImageOnlyTransform)


def _reason(error: Exception) -> str:
    """What a transform complains about, in one line."""
    details = getattr(error.__cause__, "errors", None)  # albumentations hides pydantic's errors behind a ValueError
    if callable(details):
        return "; ".join(
            ": ".join([*map(str, e["loc"][:1]), e["msg"].removeprefix("Value error, ")]) for e in details()
        )
    return (str(error).strip() or type(error).__name__).splitlines()[0]
