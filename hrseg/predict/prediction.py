"""What a predictor answers for one image: `Prediction`."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.errors import HrsegError
from hrseg.predict.bands import Band, class_shares
from hrseg.predict.writer import PredictionWriter
from hrseg.report import pictures
from hrseg.task import LabelSpace, Task

PREVIEW = 1024  # pixels of the longer side of the preview in a notebook


@dataclass(frozen=True, repr=False)
class Prediction:
    """The segmentation of an image. A notebook displays it: the overlay, a legend, the share of each class.

    image: uint8 RGB [H, W, 3]. labels: class indices [H, W]; multilabel {0, 1} [L, H, W]; where the image has no data
    `space.nodata_index`. notes: what was converted.
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
            raise HrsegError("probabilities", "were not kept.", "Request them: predictor(image, probabilities=True).")
        return self._probabilities

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of each class in the pixels with data, largest first; classes without pixels are left out."""
        plane = self.labels[0] if self.space.task is Task.MULTILABEL else self.labels
        pixels = int(np.count_nonzero(plane != self.space.nodata_index))
        return class_shares(pictures.pixels_per_class(self.labels, self.space), pixels, self.space)

    def overlay(self, opacity: float = 0.55, *, legend: bool = False) -> Image.Image:
        """The colours of the classes over the image. legend: below it the name and share of those that occur."""
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
        lacks = bool((self.labels == self.space.nodata_index).any())
        with PredictionWriter(
            Path(folder),
            name,
            self.space,
            size,
            colors=colors,
            overlay=overlay,
            probabilities=probabilities,
            nodata=lacks,
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
        return f'<img src="{source}" alt="the image with its classes in colour" style="max-width: 100%">{self.legend()}'

    def legend(self) -> str:
        """The classes that occur as HTML: colour, name, share."""
        return legend_html(self._legend())

    def _legend(self) -> dict[str, pictures.Color | None]:
        colors = pictures.legend_colors(self.space, over_image=True)
        return {f"{name} {share:.1%}": colors[name] for name, share in self.shares.items()}

    def __repr__(self) -> str:
        top = ", ".join(f"{name} {share:.1%}" for name, share in list(self.shares.items())[:3])
        return f"Prediction({self.image.shape[0]} x {self.image.shape[1]}: {top})"


def legend_html(entries: Mapping[str, pictures.Color | None]) -> str:
    """Texts beside their colours. None: a crossed box, for transparent."""
    entry = (
        '<span style="white-space: nowrap; margin-right: 1.2em"><span style="display: inline-block; width: 1em; '
        'height: 1em; vertical-align: -0.15em; border: 1px solid #8888; background: {}"></span> {}</span>'
    )
    crossed = "linear-gradient(to top right, transparent 46%, #888 47% 53%, transparent 54%)"
    shown = (
        entry.format(crossed if color is None else f"rgb{tuple(color)}", html.escape(text))
        for text, color in entries.items()
    )
    return f'<div style="line-height: 1.8">{" ".join(shown)}</div>'
