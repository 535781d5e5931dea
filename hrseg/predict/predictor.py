"""One or several checkpoints as a function from a picture to its segmentation: `hrseg.Predictor`."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hrseg import runtime
from hrseg.build.trained_model import ensemble, load_trained_models
from hrseg.config import EvalConfig
from hrseg.data.images.large_images import MAX_PIXELS, TILE, ImageSource, ModelInput, open_image
from hrseg.data.loader import resize_short_side
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.inference import FEW_IMAGES, Inference, fast_form
from hrseg.predict.tiles import GRID, SMALLEST, blended
from hrseg.report import pictures
from hrseg.report.png import GREY, PALETTE, RGB, PngWriter
from hrseg.runtime import PRECISIONS
from hrseg.task import LabelSpace, Normalisation, Task

PREVIEW = 1024  # pixels of the longer side of what a notebook shows
BAND = 512  # rows of an answer that are brought to the image's size at once

log = logging.getLogger(__name__)


class Band(NamedTuple):
    """Some rows of a prediction, from `top` on.

    image: uint8 RGB [h, W, 3], for people. labels: class indices [h, W]; multilabel {0, 1} [L, h, W]. probabilities:
    float32 [K, h, W] or None. confidence: the mean probability of what was chosen, over every eighth pixel.
    """

    top: int
    image: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None
    confidence: float


class Predictor:
    """Segments pictures: `Predictor(checkpoint)(image)` is a `Prediction`.

    checkpoint: a file of hrseg, or of any family that hrseg.weights knows; several are averaged. device: auto, cpu,
    cuda. flip, turns, scales: average over these views; None: as the checkpoint's settings evaluate. precision: fp32,
    bf16 or fp16; None: as the settings say on a GPU, fp32 on the CPU. tile: images of more than four tiles' pixels go
    through the network in tiles of this side; 0: never. max_pixels: larger files are refused. trust_code: obey code
    outside hrseg that the checkpoint names.
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
        trust_code: bool = False,
    ):
        if tile and (tile < SMALLEST or tile % GRID):
            raise ConfigError(
                "tile", f"{tile} is no side of a tile.", f"A multiple of {GRID}, at least {SMALLEST}, or 0."
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
        self.inference = Inference.from_config(config, self.space.task)
        self.short_side, self.tile, self.max_pixels = config.short_side, tile, max_pixels
        self.precision = precision or (
            "fp32" if self.device.type == "cpu" else config.precision or settings.train.precision
        )
        network = ensemble(members).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: torch.nn.Module = network.eval()
        self._autocast, self._passes = self.precision, 0
        self._said: set[str] = set()

    def __call__(self, image: ImageSource, *, probabilities: bool | None = None) -> Prediction:
        """The segmentation of a file, an array [H, W] or [H, W, C] (RGB), or a Pillow image, at its displayed size.

        probabilities: keep them; None: of images that need no tiles. Conversions (16 bits, grey) are told once, in the
        log. Raises DataError.
        """
        seen = self.open(image)
        for note in set(seen.notes) - self._said:
            self._said.add(note)
            log.warning(f"{seen.reader.where}: {note}; said once")
        keep = not self._in_tiles(seen.size) if probabilities is None else probabilities
        band = self.whole(seen, probabilities=keep)
        return Prediction(band.image, band.labels, self.space, band.probabilities, seen.notes)

    def open(self, image: ImageSource) -> ModelInput:
        """A picture as the models take it. Raises DataError."""
        seen = open_image(image, max_pixels=self.max_pixels)
        of_255 = all(high == 255 for _, high in self.normalisation.input_range)
        if of_255 and isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.max(initial=0) <= 1:
            raise DataError("array", "holds numbers up to 1, the model takes 0 to 255.", "Multiply by 255.")
        return seen.for_model(self.normalisation)

    def bands(self, seen: ModelInput, *, probabilities: bool = False) -> Iterator[Band]:
        """A picture's segmentation from top to bottom: in one piece, or for a large one a row of tiles at a time."""
        height, width = seen.size
        if self.short_side:
            image = seen.rows(0, height)
            logits = self.logits(as_tensor(resize_short_side(image, self.short_side)))
            for top in range(0, height, BAND):
                bottom = min(top + BAND, height)
                part = enlarged_rows(logits, (height, width), top, bottom)
                yield self._band(top, image[top:bottom], part, probabilities)
        elif not self._in_tiles(seen.size):
            image = seen.rows(0, height)
            yield self._band(0, image, self.logits(as_tensor(image)), probabilities)
        else:
            yield from self._tiled(seen, probabilities)

    def at_once(self, size: tuple[int, int]) -> bool:
        """Whether a picture of this size goes through the network as it is, and others of its size with it."""
        return self.short_side is None and not self._in_tiles(size) and size[0] * size[1] <= 4 * TILE**2

    def whole(self, seen: ModelInput, *, probabilities: bool = False) -> Band:
        """All of a picture's segmentation in one band."""
        bands = list(self.bands(seen, probabilities=probabilities))
        return Band(
            0,
            np.concatenate([band.image for band in bands]),
            np.concatenate([band.labels for band in bands], axis=-2),
            np.concatenate([b.probabilities for b in bands], axis=-2) if probabilities else None,  # type: ignore[misc]
            float(np.mean([band.confidence for band in bands])),
        )

    def same_size(self, images: Sequence[np.ndarray], *, probabilities: bool = False) -> list[Band]:
        """Images [H, W, C] that `at_once` allows, of one size, together through the network."""
        logits = self.logits(torch.cat([as_tensor(image) for image in images]))
        return [self._band(0, image, logits[i : i + 1], probabilities) for i, image in enumerate(images)]

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits [N, K, H, W] of images [N, C, H, W] in the models' range of values."""
        self._passes += 1
        # From here on it is worth the seconds that it takes.
        if self._passes == FEW_IMAGES and self.precision != "fp16":
            self.network, self._autocast = fast_form(self.network, "auto", self.precision), "fp32"
        tensor = images.to(self.device).float()
        with torch.autocast(self.device.type, PRECISIONS[self._autocast], enabled=self._autocast != "fp32"):
            return self.inference(self.network, tensor)

    def _in_tiles(self, size: tuple[int, int]) -> bool:
        return self.short_side is None and self.tile > 0 and size[0] * size[1] > 4 * self.tile**2

    def _tiled(self, seen: ModelInput, probabilities: bool) -> Iterator[Band]:
        width = seen.size[1]
        image, image_top = np.empty(0), 0

        def rows(top: int, bottom: int) -> Tensor:
            nonlocal image, image_top
            image, image_top = seen.rows(top, bottom), top
            return as_tensor(image)

        blocks: list[Band] = []
        for down, across, logits in blended(self.logits, rows, seen.size, self.tile):
            cut = image[down.start - image_top : down.stop - image_top, across]
            blocks.append(self._band(down.start, cut, logits, probabilities))
            if across.stop == width:
                weights = [block.labels.shape[-1] for block in blocks]
                yield Band(
                    down.start,
                    np.concatenate([block.image for block in blocks], axis=1),
                    np.concatenate([block.labels for block in blocks], axis=-1),
                    np.concatenate([b.probabilities for b in blocks], axis=-1) if probabilities else None,  # type: ignore[misc]
                    float(np.average([block.confidence for block in blocks], weights=weights)),
                )
                blocks = []

    @torch.inference_mode()
    def _band(self, top: int, image: np.ndarray, logits: Tensor, probabilities: bool) -> Band:
        sample = self.inference.probabilities(logits[..., ::8, ::8].float())
        chosen = sample.amax(1) if self.space.task is Task.MULTICLASS else torch.maximum(sample, 1 - sample)
        return Band(
            top,
            pictures.displayable(image, self.normalisation),
            self.inference.labels(logits)[0].cpu().numpy(),
            self.inference.probabilities(logits)[0].float().cpu().numpy() if probabilities else None,
            float(chosen.mean()),
        )


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


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a picture shows. In a notebook it shows itself: the overlay, a legend, the share of each class.

    image: uint8 RGB [H, W, 3]. labels: class indices [H, W]; multilabel {0, 1} [L, H, W]. notes: what was converted.
    """

    image: np.ndarray
    labels: np.ndarray
    space: LabelSpace
    _probabilities: np.ndarray | None = field(default=None)
    notes: tuple[str, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [K, H, W]; binary: of the foreground, [1, H, W]. Raises HrsegError where they were not kept."""
        if self._probabilities is None:
            raise HrsegError("probabilities", "were not kept.", "Ask for them: predictor(image, probabilities=True).")
        return self._probabilities

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of the pixels that each class has, largest first, classes without pixels left out."""
        return shares(
            pictures.pixels_per_class(self.labels, self.space), self.image.shape[0] * self.image.shape[1], self.space
        )

    def overlay(self, opacity: float = 0.55, *, legend: bool = False) -> Image.Image:
        """The colours of the classes over the picture. legend: below it name and share of those that occur."""
        picture = pictures.overlay(self.image, self.labels, self.space, opacity)
        if legend and self.shares:
            width = picture.shape[1]
            drawn = pictures.legend(self._legend(), width, scale=max(1.0, width / 1200))
            picture = pictures.stacked([picture, drawn])
        return Image.fromarray(picture)

    def colors(self) -> Image.Image:
        """The colours of the classes."""
        return Image.fromarray(pictures.colored(self.labels, self.space))

    def save(
        self,
        folder: str | Path,
        name: str = "prediction",
        *,
        colors: bool = True,
        overlay: bool = True,
        probabilities: bool = False,
    ) -> list[Path]:
        """Write ids/, colors/ and overlay/ as `tools/predict.py` does; returns the files, class indices first."""
        size = (self.labels.shape[-2], self.labels.shape[-1])
        kept = self.probabilities if probabilities else None
        with PredictionWriter(
            Path(folder), name, self.space, size, colors=colors, overlay=overlay, probabilities=probabilities
        ) as writer:
            writer.write(Band(0, self.image, self.labels, kept, 0.0))
        return writer.paths

    def _repr_png_(self) -> bytes:
        picture = self.overlay()
        picture.thumbnail((PREVIEW, PREVIEW))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        source = "data:image/png;base64," + base64.b64encode(self._repr_png_()).decode()
        return (
            f'<img src="{source}" alt="the picture with its classes in colour" style="max-width: 100%">{self.legend()}'
        )

    def legend(self) -> str:
        """The classes that occur as HTML: colour, name, share."""
        return legend_html(self._legend())

    def _legend(self) -> dict[str, tuple[int, int, int]]:
        colors = {c.name: c.color for c in self.space.classes}
        return {f"{name} {share:.1%}": colors[name] for name, share in self.shares.items()}

    def __repr__(self) -> str:
        top = ", ".join(f"{name} {share:.1%}" for name, share in list(self.shares.items())[:3])
        return f"Prediction({self.image.shape[0]} x {self.image.shape[1]}: {top})"


def legend_html(entries: Mapping[str, Sequence[int]]) -> str:
    """Texts beside their colours."""
    entry = (
        '<span style="white-space: nowrap; margin-right: 1.2em"><span style="display: inline-block; width: 1em; '
        'height: 1em; vertical-align: -0.15em; border: 1px solid #8888; background: rgb{}"></span> {}</span>'
    )
    shown = (entry.format(tuple(color), html.escape(text)) for text, color in entries.items())
    return f'<div style="line-height: 1.8">{" ".join(shown)}</div>'


def shares(counted: np.ndarray, pixels: int, space: LabelSpace) -> dict[str, float]:
    """The share of the pixels of each class that has some, largest first."""
    found = [(int(n), name) for n, name in zip(counted, space.names, strict=True) if n]
    return {name: n / pixels for n, name in sorted(found, key=lambda pair: -pair[0])}


class PredictionWriter:
    """Writes one prediction below a folder, band by band, each file whole or not at all, the class indices last:

    ids/NAME.png (multilabel: ids/CLASS/NAME.png), colors/NAME.png (a palette PNG of the same indices, where there are
    at most 256), overlay/NAME.png, probabilities/NAME.npz (`probabilities`, float16 [H, W, K]). NAME may have folders.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        space: LabelSpace,
        size: tuple[int, int],
        *,
        colors: bool = True,
        overlay: bool = True,
        probabilities: bool = False,
        text: dict[str, str] | None = None,
    ):
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise HrsegError(f"'{name}'", "is no name of a result below its folder.", "Give a name without '..'.")
        self.space = space
        self._indexed = space.task is not Task.MULTILABEL and len(space.classes) <= 256
        self._writers: dict[str, Any] = {}
        self.paths = [folder / f"{path}.png" for path in id_paths(name, space)]
        try:
            if probabilities:
                self._add("probabilities", NpzWriter(folder / "probabilities" / f"{name}.npz", (*size, space.outputs)))
            if overlay:
                self._add("overlay", PngWriter(folder / "overlay" / f"{name}.png", size, RGB))
            if colors:
                kind, palette = (PALETTE, space.palette[: len(space.classes)]) if self._indexed else (RGB, None)
                self._add("colors", PngWriter(folder / "colors" / f"{name}.png", size, kind, palette=palette))
            bits = 8 if len(space.classes) <= 256 else 16
            for path in reversed(self.paths):
                self._add(str(path), PngWriter(path, size, GREY, bits=bits, text=text))
        except BaseException:
            self.__exit__(HrsegError)
            raise
        self.paths += [w.path for key, w in self._writers.items() if key in ("probabilities", "overlay", "colors")]

    def _add(self, key: str, writer: Any) -> None:
        self._writers[key] = writer

    def write(self, band: Band) -> None:
        """The next rows."""
        several = self.space.task is Task.MULTILABEL
        for path, labels in zip(self.paths, band.labels if several else band.labels[None], strict=False):
            self._writers[str(path)].write(labels if labels.dtype == np.uint8 else labels.astype(np.uint16))
        if "colors" in self._writers:
            rows = band.labels if self._indexed else pictures.colored(band.labels, self.space)
            self._writers["colors"].write(rows)
        if "overlay" in self._writers:
            self._writers["overlay"].write(pictures.overlay(band.image, band.labels, self.space))
        if "probabilities" in self._writers:
            assert band.probabilities is not None
            self._writers["probabilities"].write(band.probabilities.astype(np.float16).transpose(1, 2, 0))

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for writer in self._writers.values():
            if kind is None:
                writer.close()
            else:
                writer.discard()


def id_paths(name: str, space: LabelSpace) -> list[str]:
    """Where the class indices go, without ending: ids/NAME, for multilabel ids/CLASS/NAME for each label."""
    if space.task is not Task.MULTILABEL:
        return [f"ids/{name}"]
    safe = [re.sub(r"[^\w -]", "_", label) for label in space.names]
    unique = len(set(safe)) == len(safe)
    return [f"ids/{label if unique else f'{i}_{label}'}/{name}" for i, label in enumerate(safe)]


class NpzWriter:
    """One float16 array of a numpy archive, written along its first axis; whole or not there at all."""

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path, self._temporary = path, path.with_name(f".{os.getpid()}-{id(self):x}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._archive = zipfile.ZipFile(self._temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._member = self._archive.open("probabilities.npy", "w", force_zip64=True)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._member, header)

    def write(self, rows: np.ndarray) -> None:
        self._member.write(np.ascontiguousarray(rows).data)

    def close(self) -> None:
        self._member.close()
        self._archive.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        with contextlib.suppress(Exception):
            self._member.close()
            self._archive.close()
        self._temporary.unlink(missing_ok=True)
