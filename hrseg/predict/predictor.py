"""One or several checkpoints as a function from an image to its segmentation: `hrseg.Predictor`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hrseg import runtime
from hrseg.build.trained_model import chosen_threshold, ensemble, load_trained_models
from hrseg.config import EvalConfig
from hrseg.data.images.large_images import MAX_PIXELS, TILE, ImageSource, ModelInput, Rows, open_image
from hrseg.data.loader import resize_short_side
from hrseg.errors import ConfigError
from hrseg.inference import FEW_IMAGES, Inference, fast_form
from hrseg.predict.bands import Band, different_notes
from hrseg.predict.prediction import Prediction
from hrseg.predict.tiles import GRID, SMALLEST, blended
from hrseg.report import pictures
from hrseg.runtime import PRECISIONS
from hrseg.task import LabelSpace, Normalisation, Task

BAND = 512  # rows of a prediction that are resized to the image's size at once

log = logging.getLogger(__name__)


class Predictor:
    """Segments images: `Predictor(checkpoint)(image)` is a `Prediction`.

    checkpoint: a file of hrseg, or of any family that hrseg.weights knows; several are averaged. device: auto, cpu,
    cuda. flip, turns, scales: average over these views; None: as the checkpoint's settings evaluate. precision: fp32,
    bf16 or fp16; None: as the settings say on a GPU, fp32 on the CPU. tile: images of more than four tiles' pixels go
    through the network in tiles of this side; 0: never. max_pixels: larger files are refused. threshold: of binary
    and multilabel models, the probability above which a pixel counts; None: the checkpoint's. trust_code: run code
    outside hrseg that the checkpoint names.
    sure: pixels whose class has a lower probability get none: `space.nodata_index`.
    Raises WeightsError, ConfigError.
    """

    def __init__(
        self,
        checkpoint: str | Path | Sequence[str | Path],
        device: str = "auto",
        *,
        flip: bool | None = None,
        turns: bool | None = None,
        scales: Sequence[float] | None = None,
        precision: str | None = None,
        tile: int = TILE,
        max_pixels: int = MAX_PIXELS,
        threshold: float | None = None,
        sure: float | None = None,
        trust_code: bool = False,
    ):
        if tile and (tile < SMALLEST or tile % GRID):
            raise ConfigError(
                "tile", f"{tile} is not a possible tile side.", f"A multiple of {GRID}, at least {SMALLEST}, or 0."
            )
        if precision is not None and precision not in PRECISIONS:
            raise ConfigError("precision", f"'{precision}' is not known.", f"Known: {', '.join(PRECISIONS)}.")
        sources = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
        members = load_trained_models(sources, trust_code=trust_code)
        settings = members[0].config
        views = {"flip": flip, "turns": turns, "scales": scales and list(scales)}
        config = EvalConfig(**settings.eval.model_dump() | {k: v for k, v in views.items() if v is not None})
        try:
            self.device = runtime.pick_device(device)
        except ConfigError as error:
            raise ConfigError("device", error.what, "Use auto, cpu, cuda or cuda:1.") from None
        self.space: LabelSpace = members[0].space
        self.normalisation: Normalisation = members[0].normalisation
        self.inference = Inference.from_config(config, self.space.task, chosen_threshold(members, threshold))
        self.short_side, self.tile, self.max_pixels = config.short_side, tile, max_pixels
        self.precision = precision or (
            "fp32" if self.device.type == "cpu" else config.precision or settings.train.precision
        )
        network = ensemble(members).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: torch.nn.Module = network.eval()
        self.sure = sure
        self._autocast, self._passes = self.precision, 0
        self._logged: set[str] = set()

    def __call__(self, image: ImageSource, *, probabilities: bool | None = None) -> Prediction:
        """The segmentation of a file, an array [H, W] or [H, W, C] (RGB), or a Pillow image, at its displayed size.

        probabilities: keep them; None: of images that need no tiles. Conversions (16 bits, grey) are logged
        once. Raises DataError.
        """
        seen = self.model_input(image)
        keep = not self._in_tiles(seen.size) if probabilities is None else probabilities
        band = self.whole_band(seen, probabilities=keep)
        notes = (*seen.notes, *band.notes)
        for note in dict.fromkeys(notes):
            if note not in self._logged:
                self._logged.add(note)
                log.warning(f"{seen.reader.where}: {note}; logged once")
        return Prediction(band.image, band.labels, self.space, band.probabilities, notes)

    def model_input(self, image: ImageSource) -> ModelInput:
        """An image as the models take it. Raises DataError."""
        return open_image(image, max_pixels=self.max_pixels).for_model(self.normalisation)

    def bands(self, seen: ModelInput, *, probabilities: bool = False) -> Iterator[Band]:
        """An image's segmentation from top to bottom: in one piece, or for a large one a row of tiles at a time."""
        height, width = seen.size
        if self.short_side:
            whole = seen.rows(0, height)
            shown = self._display_range(whole)
            logits = self.logits(as_tensor(resize_short_side(whole.image, self.short_side)))
            for top in range(0, height, BAND):
                bottom = min(top + BAND, height)
                part = enlarged_rows(logits, (height, width), top, bottom)
                yield self._band(top, whole.part(slice(top, bottom)), part, probabilities, shown)
        elif not self._in_tiles(seen.size):
            whole = seen.rows(0, height)
            yield self._band(0, whole, self.logits(as_tensor(whole.image)), probabilities, self._display_range(whole))
        else:
            yield from self._tiled(seen, probabilities)

    def fits_one_pass(self, size: tuple[int, int]) -> bool:
        """Whether an image of this size goes through the network unchanged, in one batch with others of its size."""
        return self.short_side is None and not self._in_tiles(size) and size[0] * size[1] <= 4 * TILE**2

    def whole_band(self, seen: ModelInput, *, probabilities: bool = False) -> Band:
        """All of an image's segmentation in one band."""
        bands = list(self.bands(seen, probabilities=probabilities))
        return Band(
            0,
            np.concatenate([band.image for band in bands]),
            np.concatenate([band.labels for band in bands], axis=-2),
            np.concatenate([b.probabilities for b in bands], axis=-2) if probabilities else None,  # type: ignore[misc]
            float(np.mean([band.confidence for band in bands])),
            different_notes(bands),
        )

    def batch_bands(self, images: Sequence[Rows], *, probabilities: bool = False) -> list[Band]:
        """Whole images that `fits_one_pass` allows, of one size, together through the network."""
        logits = self.logits(torch.cat([as_tensor(whole.image) for whole in images]))
        return [
            self._band(0, whole, logits[i : i + 1], probabilities, self._display_range(whole))
            for i, whole in enumerate(images)
        ]

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits [N, K, H, W] of images [N, C, H, W] in the models' range of values."""
        self._passes += 1
        # From here on it is worth the seconds that it takes.
        if self._passes == FEW_IMAGES and (self.precision != "fp16" or self.device.type == "cuda"):
            self.network, self._autocast = fast_form(self.network, "auto", self.precision), "fp32"
        tensor = images.to(self.device).float()
        with torch.autocast(self.device.type, PRECISIONS[self._autocast], enabled=self._autocast != "fp32"):
            return self.inference(self.network, tensor)

    def _in_tiles(self, size: tuple[int, int]) -> bool:
        return self.short_side is None and self.tile > 0 and size[0] * size[1] > 4 * self.tile**2

    def _tiled(self, seen: ModelInput, probabilities: bool) -> Iterator[Band]:
        width = seen.size[1]
        read, read_top = Rows(np.empty(0), None), 0
        shown = self._display_range(seen.sample())

        def rows(top: int, bottom: int) -> Tensor:
            nonlocal read, read_top
            read, read_top = seen.rows(top, bottom), top
            return as_tensor(read.image)

        blocks: list[Band] = []
        for down, across, logits in blended(self.logits, rows, seen.size, self.tile):
            cut = read.part(slice(down.start - read_top, down.stop - read_top), across)
            blocks.append(self._band(down.start, cut, logits, probabilities, shown))
            if across.stop == width:
                weights = [block.labels.shape[-1] for block in blocks]
                yield Band(
                    down.start,
                    np.concatenate([block.image for block in blocks], axis=1),
                    np.concatenate([block.labels for block in blocks], axis=-1),
                    np.concatenate([b.probabilities for b in blocks], axis=-1) if probabilities else None,  # type: ignore[misc]
                    float(np.average([block.confidence for block in blocks], weights=weights)),
                    different_notes(blocks),
                )
                blocks = []

    def _display_range(self, whole: Rows) -> tuple[float, float]:
        return pictures.display_range(whole.image, self.normalisation)

    @torch.inference_mode()
    def _band(self, top: int, rows: Rows, logits: Tensor, probabilities: bool, shown: tuple[float, float]) -> Band:
        sample = self.inference.probabilities(logits[..., ::8, ::8].float())
        chosen = sample.amax(1) if self.space.task is Task.MULTICLASS else torch.maximum(sample, 1 - sample)
        labels = self._sure_labels(logits).cpu().numpy()
        kept = self.inference.probabilities(logits)[0].float().cpu().numpy() if probabilities else None
        if rows.valid is not None:
            chosen = chosen[..., torch.from_numpy(rows.valid[::8, ::8]).to(chosen.device)]
            labels = np.where(rows.valid, labels, np.array(self.space.nodata_index, _label_type(self.space)))
            kept = kept if kept is None else np.where(rows.valid, kept, np.float32(np.nan))
        confidence = float(chosen.mean()) if chosen.numel() else 1.0
        image = pictures.displayable(rows.image, self.normalisation, shown)
        return Band(top, image, labels, kept, confidence, self._value_notes(rows))

    def _sure_labels(self, logits: Tensor) -> Tensor:
        """The labels of an image; the nodata index where they are less sure than asked for."""
        labels = self.inference.labels(logits)[0]
        if self.sure is None:
            return labels
        of_class = self.inference.probabilities(logits)[0].float()
        if self.space.task is Task.MULTICLASS:
            own = of_class.amax(0)
        else:
            own = torch.where(labels == 1, of_class, 1 - of_class).reshape(labels.shape)
        kept = labels.to(torch.uint8 if self.space.nodata_index == 255 else torch.int64)
        return kept.masked_fill(own < self.sure, self.space.nodata_index)

    def _value_notes(self, rows: Rows) -> tuple[str, ...]:
        """A note where values are far outside of the models' range, as those of images on another scale are."""
        if rows.image.dtype == np.uint8:  # which cannot leave it far enough to tell
            return ()
        low, high = np.array(self.normalisation.input_range).T
        pixels = rows.image.reshape(-1, rows.image.shape[2]) if rows.valid is None else rows.image[rows.valid]
        if not len(pixels) or ((pixels.min(0) >= 2 * low - high) & (pixels.max(0) <= 2 * high - low)).all():
            return ()
        ranges = " or ".join(dict.fromkeys(f"{a:g} to {b:g}" for a, b in self.normalisation.input_range))
        return (f"values are far outside of the {ranges} of the model: are they on another scale?",)


def _label_type(space: LabelSpace) -> np.dtype:
    return np.dtype(np.uint8 if space.nodata_index == 255 else np.int64)


def as_tensor(image: np.ndarray) -> Tensor:
    """[1, C, H, W] of an image [H, W, C]: uint8, or float32."""
    array = image.astype(np.float32) if image.dtype == np.uint16 else image
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(2, 0, 1)[None]


def enlarged_rows(logits: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows [top, bottom) of logits [1, K, h, w] enlarged to `size`, bilinear, align_corners False, and only these."""
    low = logits.shape[-2]
    place = ((torch.arange(top, bottom, device=logits.device) + 0.5) * low / size[0] - 0.5).clamp(min=0)
    upper = place.long()
    lower = (upper + 1).clamp(max=low - 1)
    share = (place - upper)[:, None]
    rows = logits[..., upper, :] * (1 - share) + logits[..., lower, :] * share
    return torch.nn.functional.interpolate(rows, (bottom - top, size[1]), mode="bilinear", align_corners=False)
