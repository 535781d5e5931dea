"""Small copies of the predictions, and of the images that a report shows with their targets; on disk `examples.npz`."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hrseg import distributed
from hrseg.data.dataset import Dataset
from hrseg.errors import DataError
from hrseg.files import whole_file
from hrseg.report import pictures
from hrseg.task import LabelSpace, Normalisation

LONG_SIDE = 768  # pixels; larger pictures are reduced to it
KEPT = 1000  # predictions, evenly spread over a larger data set
SHOWN = 6  # images each: the worst, and typical ones


@dataclass(frozen=True)
class PackedIndices:
    """Class indices [H, W], multilabel {0, 1, ignore} [L, H, W], uint8 or uint16, as bytes of zlib."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def pack(cls, labels: np.ndarray) -> PackedIndices:
        kind = np.uint8 if labels.size == 0 or labels.max() < 256 else np.dtype("<u2")
        return cls(labels.shape, zlib.compress(np.ascontiguousarray(labels, kind).tobytes(), 6))

    def unpack(self) -> np.ndarray:
        raw = zlib.decompress(self.data)
        kind = np.uint8 if len(raw) == np.prod(self.shape) else np.dtype("<u2")
        return np.frombuffer(raw, kind).reshape(self.shape)


def reduced_indices(labels: np.ndarray) -> np.ndarray:
    """Class indices [..., H, W] at a long side of at most LONG_SIDE pixels, by nearest neighbours."""
    height, width = labels.shape[-2:]
    scale = min(1.0, LONG_SIDE / max(height, width))
    rows, columns = (
        ((np.arange(max(1, round(side * scale))) + 0.5) * side / max(1, round(side * scale))).astype(np.intp)
        for side in (height, width)
    )
    return labels[..., rows[:, None], columns]


def resized_image(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """An RGB image at a size, (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


class PredictionCollector:
    """Keeps small copies of an evaluation's predictions. Pass it as on_prediction."""

    def __init__(self, images: int):
        self._every = max(1, -(-images // KEPT))
        self.predictions: dict[int, PackedIndices] = {}

    def __call__(self, index: int, prediction: np.ndarray) -> None:
        if index % self._every == 0:
            self.predictions[index] = PackedIndices.pack(reduced_indices(prediction))

    def gather(self) -> dict[int, PackedIndices]:
        """The predictions of all processes, by index."""
        return dict(sorted(pair for part in distributed.gather(self.predictions) for pair in part.items()))


@dataclass(frozen=True)
class Photo:
    """An image that the report shows, as WebP, with its target. kind: worst or typical."""

    kind: str
    webp: bytes
    target: PackedIndices


@dataclass(frozen=True)
class Examples:
    """Predictions by name, and photos with targets of the chosen images."""

    space: LabelSpace
    predictions: dict[str, PackedIndices]
    photos: dict[str, Photo]

    def save(self, path: Path) -> None:
        """Write `examples.npz`: plain arrays, replaced whole or not at all."""
        index = {
            "space": self.space.to_plain(),
            "predictions": [[name, list(labels.shape)] for name, labels in self.predictions.items()],
            "photos": [[name, photo.kind, list(photo.target.shape)] for name, photo in self.photos.items()],
        }
        arrays = {"index": json.dumps(index).encode()}
        arrays |= {f"prediction_{n}": labels.data for n, labels in enumerate(self.predictions.values())}
        for n, photo in enumerate(self.photos.values()):
            arrays |= {f"photo_{n}": photo.webp, f"truth_{n}": photo.target.data}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: np.frombuffer(data, np.uint8) for name, data in arrays.items()})  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Examples:
        """Read what `save` wrote. Raises DataError if the file is not one of those."""
        try:
            with np.load(path, allow_pickle=False) as file:
                index = json.loads(file["index"].tobytes())

                def labels(kind: str, n: int, shape: list[int]) -> PackedIndices:
                    return PackedIndices(tuple(shape), file[f"{kind}_{n}"].tobytes())

                predictions = {name: labels("prediction", n, s) for n, (name, s) in enumerate(index["predictions"])}
                photos = {
                    name: Photo(kind, file[f"photo_{n}"].tobytes(), labels("truth", n, s))
                    for n, (name, kind, s) in enumerate(index["photos"])
                }
            return cls(LabelSpace.from_plain(index["space"]), predictions, photos)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(path, f"is not an examples.npz: {error}.", "Evaluate again: tools/test.py.") from error


def collect_examples(
    dataset: Dataset,
    normalisation: Normalisation,
    predictions: dict[int, PackedIndices],
    indices: Sequence[int],
    ious: np.ndarray,
) -> Examples:
    """The examples of an evaluation: all predictions that were kept, and photos of the worst and typical images.

    indices: of the images in the data set. ious: float64, one per image, as from `hrseg.report.run_folder.image_ious`.
    """
    kept = {index: iou for index, iou in zip(indices, ious, strict=True) if index in predictions}
    worst, typical = choose_examples(np.array(list(kept.values())))
    photos = {}
    for position in (*worst, *typical):
        index, kind = list(kept)[position], "worst" if position in worst else "typical"
        image, target, name = dataset[index]
        assert target is not None  # it was scored
        small = reduced_indices(target)
        rgb = pictures.displayable(image, normalisation)
        buffer = io.BytesIO()
        Image.fromarray(resized_image(rgb, small.shape[-2:])).save(buffer, "WEBP", quality=80)
        photos[name] = Photo(kind, buffer.getvalue(), PackedIndices.pack(small))
    named = {dataset.names[index]: labels for index, labels in predictions.items()}
    return Examples(dataset.space, named, photos)


def choose_examples(ious: np.ndarray, count: int = SHOWN) -> tuple[list[int], list[int]]:
    """Positions of the worst images, worst first, and of typical ones, evenly from the middle half of the rest.

    ious: float64, one per image; images in which nothing counts (NaN) are in neither. No image is in both.
    """
    order = [int(i) for i in np.argsort(ious, kind="stable") if not np.isnan(ious[i])]
    worst = order[: min(count, -(-len(order) // 2))]
    rest = order[len(worst) :]
    middle = rest[len(rest) // 4 : len(rest) - len(rest) // 4]
    count = min(count, len(middle))
    return worst, [middle[i * len(middle) // count] for i in range(count)]
