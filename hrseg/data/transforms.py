"""Augmentation from settings: the one door to albumentations."""

from __future__ import annotations

import inspect
import logging
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # otherwise its import asks the package index for a newer version

import albumentations as A
import cv2
import numpy as np

from hrseg.config import check_options
from hrseg.data.loader import target_type
from hrseg.data.rare_classes import Focus
from hrseg.data.resize import CV2_CHANNELS, image_window, mask_window, resize, scaled_size
from hrseg.errors import ConfigError, DataError, first_line, nearest
from hrseg.task import LabelSpace, Sample, Task

log = logging.getLogger(__name__)

CROP_TRIES = 10
PROBES = 8
PROBE_SIZE = (96, 128)  # if no crop sets the size of the images
COMPOSITIONS = (A.OneOf, A.SomeOf, A.RandomOrder, A.Sequential)
BASES = (A.BasicTransform, A.DualTransform, A.ImageOnlyTransform, A.Transform3D)
TRANSFORMS: dict[str, Any] = {
    name: piece
    for name, piece in vars(A).items()
    if inspect.isclass(piece) and issubclass(piece, (A.BasicTransform, *COMPOSITIONS)) and piece not in BASES
}


@dataclass(frozen=True)
class Augmentation:
    """What random changes a training sample goes through, in this order.

    short_side, long_side: pixels to which that side of the image is resized; at most one of them. scale: the range of a
    random factor on the size, in steps of scale_step from its lower end if that is given. crop: (height, width) of the
    random window. max_class_share: the largest share of one class in it. jitter: parameters of `color_jitter`. flip:
    the share of samples whose left and right are exchanged. extra: albumentations transforms,
    {name: ..., parameter: ...}.
    """

    short_side: int | None = None
    long_side: int | None = None
    scale: tuple[float, float] | None = None
    scale_step: float | None = None
    crop: tuple[int, int] | None = None
    max_class_share: float = 1.0
    jitter: Mapping[str, Any] | None = None
    flip: float = 0.5
    extra: Sequence[Mapping[str, Any]] = ()


class RandomWindow:
    """A random window of a randomly resized sample; no more than the window is read and resized.

    The short side is resized to `short_side`, or the long one to `long_side`, times a random scale, in one step. The
    window has at most the size `crop`; without one it is the whole sample. Up to ten windows are tried to find one in
    which no class has more than `max_class_share` of the labelled pixels. With a focus, all of them hold that place.
    """

    def __init__(self, augmentation: Augmentation, ignore_index: int):
        self.augmentation, self.ignore_index = augmentation, ignore_index

    def __call__(self, sample: Sample, rng: np.random.Generator, focus: Focus | None = None) -> Sample:
        assert sample.target is not None
        size = self.random_size(sample.image.shape[:2], rng)
        if self.augmentation.crop is None:
            window = (0, 0, *size)
            target = mask_window(sample.target, size, window)
            return sample._replace(image=resize(np.asarray(sample.image), size), target=target)
        height, width = (min(pair) for pair in zip(self.augmentation.crop, size, strict=True))
        share = self.augmentation.max_class_share
        for _ in range(CROP_TRIES if share < 1 else 1):
            top = _random_start(size[0], height, focus and focus.row, rng)
            window = (top, _random_start(size[1], width, focus and focus.column, rng), height, width)
            target = mask_window(sample.target, size, window)
            if share < 1 and largest_class_share(target, self.ignore_index) <= share:
                break
        return sample._replace(image=image_window(sample.image, size, window), target=target)

    def random_size(self, size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
        """The (height, width) to which an image of `size` is resized."""
        base = 1.0
        if self.augmentation.short_side:
            base = self.augmentation.short_side / min(size)
        elif self.augmentation.long_side:
            base = self.augmentation.long_side / max(size)
        elif not self.augmentation.scale:
            return size[0], size[1]
        return scaled_size(size, base * self.random_scale(rng))

    def random_scale(self, rng: np.random.Generator) -> float:
        """Any value of `scale`, both ends included, or a step of `scale_step` from its lower end."""
        low, high = self.augmentation.scale or (1.0, 1.0)
        if self.augmentation.scale_step is None:
            return rng.uniform(low, high)
        steps = int((high - low) / self.augmentation.scale_step + 1e-6)  # (2.1 - 0.5) / 0.1 may come out below 16
        return low + self.augmentation.scale_step * rng.integers(steps + 1)


def _random_start(length: int, part: int, place: float | None, rng: np.random.Generator) -> int:
    """Where a part of a side begins. place: a share of the side that the part shall hold."""
    first, last = 0, length - part
    if place is not None:
        pixel = min(int(place * length), length - 1)
        first, last = max(first, pixel - part + 1), min(last, pixel)
    return int(rng.integers(first, last + 1))


class RandomFlip(A.HorizontalFlip):
    """Left and right exchanged; by numpy where there are more channels than OpenCV 5 accepts."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        many = img.ndim == 3 and img.shape[2] > CV2_CHANNELS
        return img[:, ::-1] if many else cv2.flip(img, 1).reshape(img.shape)


class ChannelJitter(A.ImageOnlyTransform):
    """Brightness and contrast of images of any type and number of channels, as in ColorJitter.

    brightness: each value's distance from the channel's darkest possible value (`low`) is multiplied by a factor from
    1 - b to 1 + b; contrast: likewise its distance from the channel's mean. One factor for all channels, so that their
    ratios stay. Integers stay in their type's range; floats are not clipped.
    """

    def __init__(self, brightness: float, contrast: float, low: Sequence[float], p: float = 1.0):
        super().__init__(p=p)
        self.brightness, self.contrast = brightness, contrast
        self.low: np.ndarray = np.asarray(low, np.float32)

    def get_params(self) -> dict[str, Any]:
        """The two factors."""
        by_name = {"brightness": self.brightness, "contrast": self.contrast}
        return {name: self.py_random.uniform(1 - width, 1 + width) for name, width in by_name.items()}

    def apply(self, img: np.ndarray, brightness: float, contrast: float, **params: Any) -> np.ndarray:
        """The changed image [H, W, C], of the same type."""
        bright = (img - self.low) * np.float32(brightness) + self.low
        mean = bright.mean((0, 1), dtype=np.float64).astype(np.float32)
        changed = (bright - mean) * np.float32(contrast) + mean
        if img.dtype.kind == "f":
            return changed
        return changed.round().clip(0, np.iinfo(img.dtype).max).astype(img.dtype)


def largest_class_share(target: np.ndarray, ignore_index: int) -> float:
    """The share of the most frequent class, or label, in the pixels that are not ignored; 1 if all are ignored.

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
    """A random window and an albumentations pipeline as a function of a sample and a random generator alone.

    pipeline: takes image and mask (or masks [L, H, W]). unit_range: `augment.extra` has colour transforms, which clip
    float images to [0, 1]; a float image with other values then raises DataError.
    """

    def __init__(self, window: RandomWindow, pipeline: A.Compose, *, unit_range: bool = False):
        self.window, self.pipeline, self.unit_range = window, pipeline, unit_range

    def __call__(self, sample: Sample, rng: np.random.Generator, focus: Focus | None = None) -> Sample:
        seed_transform(self.pipeline, rng)
        sample = self.window(sample, rng, focus)
        if self.unit_range and sample.image.dtype == np.float32:
            low, high = sample.image.min(), sample.image.max()
            if not (low >= 0 and high <= 1):
                what = f"colour transforms take float images in [0, 1], this one has [{low:g}, {high:g}]."
                raise DataError(sample.name, what, "Scale the files, or take them out of augment.extra.")
        assert sample.target is not None
        mask = "mask" if sample.target.ndim == 2 else "masks"
        out = self.pipeline(image=sample.image, **{mask: sample.target})
        return sample._replace(image=out["image"], target=out[mask])


def seed_transform(transform: A.BasicTransform | A.BaseCompose, rng: np.random.Generator) -> None:
    """Make everything that a transform draws from now on follow from `rng`."""
    transform.set_random_state(rng, random.Random(int(rng.integers(2**63))))


def train_transform(
    augmentation: Augmentation,
    space: LabelSpace,
    *,
    channels: int = 3,
    dtype: type | np.dtype = np.uint8,
    low: Sequence[float] | None = None,
) -> TrainTransform:
    """Resize, crop, jitter, pad, flip, extra transforms: each if it is set.

    Smaller images are padded at the bottom and right, with 0 and the ignore index. channels, dtype: of the images; the
    jitter and each extra transform are tried on a random sample of that kind. low: the darkest value of each channel;
    None: 0. Raises ConfigError for a transform that is unknown, has wrong parameters, does not work on the sample,
    changes the image's type, the target's values or a crop's size.
    """
    probe = Probe(space, channels, np.dtype(dtype), augmentation.crop)
    steps: list[A.BasicTransform | A.BaseCompose] = []
    if augmentation.jitter:
        steps.append(color_jitter(augmentation.jitter, channels, np.dtype(dtype), low))
        probe(steps[-1], "augment.jitter")
    if augmentation.crop:
        height, width = augmentation.crop  # padded after the jitter, so that padding stays 0
        padding = {"position": "top_left", "border_mode": cv2.BORDER_CONSTANT, "fill": 0}
        steps.append(A.PadIfNeeded(height, width, **padding, fill_mask=space.ignore_index, p=1.0))
    if augmentation.flip:
        steps.append(RandomFlip(p=augmentation.flip))
    extras = [extra_transform(entry, f"augment.extra.{i}", probe) for i, entry in enumerate(augmentation.extra)]
    window = RandomWindow(augmentation, space.ignore_index)
    unit_range = any(_changes_colors(step) for step in extras)
    return TrainTransform(window, A.Compose([*steps, *extras]), unit_range=unit_range)


def color_jitter(
    jitter: Mapping[str, Any], channels: int, dtype: np.dtype, low: Sequence[float] | None
) -> A.ImageOnlyTransform:
    """ColorJitter for grey and RGB images of 8 bits; for all others `ChannelJitter`. low: of `train_transform`."""
    if dtype == np.uint8 and channels in (1, 3):
        return A.ColorJitter(**jitter)
    brightness, contrast = jitter.get("brightness", 0.0), jitter.get("contrast", 0.0)
    if left_out := " and ".join(name for name in ("saturation", "hue") if jitter.get(name)):
        kind = f"{dtype} images of {channels} channels"
        if not brightness and not contrast:
            what = f"{left_out} are for 8-bit images of 3 channels, not for {kind}."
            raise ConfigError("augment.jitter", what, "Set brightness or contrast, or augment.jitter=null.")
        log.info(f"augment.jitter: {left_out} left out, as for all but 8-bit images of 1 or 3 channels")
    return ChannelJitter(brightness, contrast, low or [0.0] * channels, jitter.get("p", 1.0))


def change_colors(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The strong view of an image [H, W, C]: jitter, grey, blur, as Yang et al., UniMatch, CVPR 2023, use them.

    Of other images than 8 bit RGB only brightness and contrast change, beside the blur.
    """
    blur = A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5)
    if image.shape[2] == 3 and image.dtype == np.uint8:
        changes = [A.ColorJitter((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (-0.25, 0.25), p=0.8), A.ToGray(p=0.2), blur]
    else:
        changes = [A.RandomBrightnessContrast(0.5, 0.5, p=0.8), blur]
    pipeline = A.Compose(changes)
    seed_transform(pipeline, rng)
    return pipeline(image=image)["image"]


def extra_transform(entry: Mapping[str, Any], where: str, probe: Probe) -> A.BasicTransform | A.BaseCompose:
    """An albumentations transform from {name: ..., parameter: ...}, tried out; OneOf and the like hold several."""
    options = dict(entry)
    name = str(options.pop("name", None))
    if name not in TRANSFORMS:
        raise ConfigError(f"{where}.name", f"no albumentations transform '{name}'.", nearest(name, TRANSFORMS))
    piece = TRANSFORMS[name]
    check_options(piece, options, where=where, also=("name",))
    composed = piece in COMPOSITIONS
    if composed:
        parts = options["transforms"]
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise ConfigError(f"{where}.transforms", "must be a list of transforms.", "[{name: Blur, p: 0.5}, ...]")
        options["transforms"] = [
            extra_transform(part, f"{where}.transforms.{i}", probe) for i, part in enumerate(parts)
        ]
    try:
        transform = piece(**options)
    except Exception as error:  # whatever a transform raises, it is about its parameters
        raise ConfigError(where, f"{name} refuses its parameters: {_complaint(error)}") from error
    if composed:
        return transform
    # None leaves the mask unchanged, as in dropouts; a number is the fill of new pixels, class 0 by default.
    if "fill_mask" not in options and getattr(transform, "fill_mask", None) is not None:
        transform.fill_mask = probe.space.ignore_index
    probe(transform, where, fill=options.get("fill_mask"))
    return transform


class Probe:
    """Tries transforms on a random sample of one kind and refuses those that are not fit for segmentation."""

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
        self.target = blocks.repeat(8, -1).repeat(8, -2)[..., :height, :width].astype(target_type(space))

    def __call__(self, transform: A.BasicTransform, where: str, fill: Any = None) -> None:
        """Raises ConfigError if the transform fails or gives a sample that cannot be learned from.

        fill: the value for new mask pixels that the settings ask for.
        """
        name, dtype, channels = type(transform).__name__, self.image.dtype, self.image.shape[2]
        mask = "mask" if self.target.ndim == 2 else "masks"
        allowed = {self.highest, self.space.ignore_index}
        allowed |= {fill} if isinstance(fill, int) and 0 <= fill <= self.highest else set()
        for attempt in range(PROBES):
            seed_transform(transform, np.random.default_rng(attempt))
            try:
                out = transform(image=self.image.copy(), **{mask: self.target.copy()}, force_apply=True)
            except Exception as error:  # whatever a transform raises here, it would raise in training
                what = f"{name} does not work on {dtype} images of {channels} channels with {mask}: {_complaint(error)}"
                way_out = f"Switch it off: {where}=null." if where == "augment.jitter" else "Take it out of the list."
                raise ConfigError(where, what, way_out) from error
            image, target = out["image"], out[mask]
            if not isinstance(image, np.ndarray) or image.dtype != dtype or image.shape[2:] != (channels,):
                kind = f"{image.dtype} {tuple(image.shape)}"
                raise ConfigError(where, f"{name} turns {dtype} images of {channels} channels into {kind}.")
            if target.dtype != self.target.dtype or not set(np.unique(target).tolist()) <= allowed:
                way_out = "Set its mask_interpolation to 0 (nearest) and its fill_mask to a class or the ignore index."
                raise ConfigError(where, f"{name} puts values into masks that are not class indices.", way_out)
            if target.shape[-2:] != image.shape[:2]:
                raise ConfigError(where, f"{name} gives image and mask different sizes.")
            if self.crop and image.shape[:2] != tuple(self.crop):
                size = list(image.shape[:2])
                raise ConfigError(
                    where, f"{name} turns crops of {list(self.crop)} into {size}.", "A batch needs one size."
                )


def _changes_colors(transform: A.BasicTransform | A.BaseCompose) -> bool:
    if isinstance(transform, A.BaseCompose):
        return any(_changes_colors(part) for part in transform.transforms)
    return isinstance(transform, A.ImageOnlyTransform)


def _complaint(error: Exception) -> str:
    """What a transform complains about, in one line."""
    details = getattr(error.__cause__, "errors", None)  # albumentations hides pydantic's errors behind a ValueError
    if callable(details):
        return "; ".join(
            ": ".join([*map(str, e["loc"][:1]), e["msg"].removeprefix("Value error, ")]) for e in details()
        )
    return first_line(error)
