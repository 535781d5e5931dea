"""Verifies that an exported file answers as its model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from hrseg import build
from hrseg.build.trained_model import TrainedModel
from hrseg.data.loader import Normalise
from hrseg.data.resize import resize
from hrseg.errors import HrsegError
from hrseg.export.formats import Runner
from hrseg.export.onnx_file import SMALLEST
from hrseg.inference import Inference, Size, forward

LEAST_AGREEMENT = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.995}  # share of class indices equal to the model's


@dataclass(frozen=True)
class Verification:
    """How a file's answers compare with the model's in float32.

    agreement: the share of equal class indices. logit_difference: the largest; None for a file that returns indices.
    """

    sizes: tuple[Size, ...]
    agreement: float
    logit_difference: float | None

    def __str__(self) -> str:
        difference = "" if self.logit_difference is None else (
            f"maximum logit difference {self.logit_difference:.3g}, ")  # fmt: skip
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes)
        return f"{difference}label agreement {100 * self.agreement:.4f} % on images of {sizes}"


@torch.inference_mode()
def verify(
    loaded: TrainedModel, run: Runner, images: Sequence[Tensor], *, argmax: bool, normalised: bool
) -> Verification:
    """Run the model and the file on the same images and compare. images: [N, C, H, W] with stored values."""
    inference, normalise = Inference(loaded.space.task, threshold=loaded.threshold), Normalise(loaded.normalisation)
    equal = pixels = 0
    difference = 0.0
    for image in images:
        normal = normalise(image)
        wanted, found = forward(loaded.model, normal), run(normal if normalised else image)
        if not argmax:
            difference = max(difference, float((found - wanted).abs().max()))
            found = inference.labels(found)
        right = found == inference.labels(wanted)
        equal, pixels = equal + int(right.sum()), pixels + right.numel()
    sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
    return Verification(sizes, equal / pixels, None if argmax else difference)


def verification_sizes(size: Size, dynamic: bool) -> tuple[Size, ...]:
    """The size of the export and, where sizes are dynamic, two other odd ones."""
    height, width = size
    if not dynamic:
        return (size,)
    return size, (max(SMALLEST, height * 3 // 4) | 1, max(SMALLEST, width // 2) | 1), (height + 37, width + 22)


def verification_images(loaded: TrainedModel, dtype: torch.dtype, sizes: Sequence[Size]) -> tuple[list[Tensor], str]:
    """One image [1, C, H, W] per size, and their kind: validation images, or synthetic ones where those are missing."""
    channels = loaded.normalisation.channels
    try:
        dataset = build.dataset_for_model(loaded.config, loaded.config.data.val_split, loaded.normalisation)
        images = [dataset[place * len(dataset) // len(sizes)].image for place in range(len(sizes))]
    except HrsegError:
        images = []
    what = "validation images"
    if not images or any(image.shape[2] != channels for image in images):
        images, what = [_synthetic(loaded, size, seed) for seed, size in enumerate(sizes)], "synthetic images"
    resized = [resize(image, size).transpose(2, 0, 1) for image, size in zip(images, sizes, strict=True)]
    return [torch.from_numpy(np.ascontiguousarray(image)).to(dtype).unsqueeze(0) for image in resized], what


def _synthetic(loaded: TrainedModel, size: Size, seed: int) -> np.ndarray:
    """Soft shapes with a little noise over each channel's range, float32 [H, W, C]."""
    random, channels = np.random.default_rng(seed), loaded.normalisation.channels
    coarse = random.random((max(2, size[0] // 16), max(2, size[1] // 16), channels), np.float32)
    soft = np.clip(resize(coarse, size, cv2.INTER_CUBIC) + 0.02 * random.standard_normal((*size, channels)), 0, 1)
    low, high = np.array(loaded.normalisation.input_range, np.float32).T
    return (low + soft * (high - low)).astype(np.float32)
