"""Small copies of the predictions, and of the images that a report shows with their targets; on disk `examples.npz`."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hrseg import distributed
from hrseg.data.dataset import Dataset
from hrseg.errors import DataError
from hrseg.files import whole_file
from hrseg.metrics import PerImage, false_pixels_of_clean_images, image_costs, image_ious
from hrseg.report import pictures
from hrseg.task import LabelSpace, Normalisation

FULL_SIDE = 2048  # pixels of the long side of the images that are shown at full resolution; larger ones are reduced
LONG_SIDE = 768  # of the predictions that are kept of all images
SMALL_SIDE = 240  # of the pictures of all images
KEPT = 1000  # images, evenly spread over a larger data set
SHOWN = 6  # images of each kind
WORST, CLEAN, TYPICAL = "worst", "clean", "typical"  # kinds: see `choose_examples`


@dataclass(frozen=True)
class PackedIndices:
    """Class indices [H, W], multilabel {0, 1, ignore} [L, H, W], uint8 or uint16, as bytes of zlib."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def pack(cls, labels: np.ndarray, level: int = 6) -> PackedIndices:
        kind = np.uint8 if labels.size == 0 or labels.max() < 256 else np.dtype("<u2")
        return cls(labels.shape, zlib.compress(np.ascontiguousarray(labels, kind).tobytes(), level))

    def unpack(self) -> np.ndarray:
        raw = zlib.decompress(self.data)
        kind = np.uint8 if len(raw) == np.prod(self.shape) else np.dtype("<u2")
        return np.frombuffer(raw, kind).reshape(self.shape)


def reduced_indices(labels: np.ndarray, side: int = LONG_SIDE) -> np.ndarray:
    """Class indices [..., H, W] at a long side of at most `side` pixels, by nearest neighbours, in the same steps:

    at most FULL_SIDE first, then LONG_SIDE, then SMALL_SIDE. So what was kept large fits what was kept small.
    """
    for step in (FULL_SIDE, LONG_SIDE, SMALL_SIDE):
        if step >= side:
            labels = _reduced(labels, step)
    return labels


def _reduced(labels: np.ndarray, side: int) -> np.ndarray:
    height, width = labels.shape[-2:]
    scale = min(1.0, side / max(height, width))
    if scale == 1:
        return labels
    rows, columns = (
        ((np.arange(max(1, round(side * scale))) + 0.5) * side / max(1, round(side * scale))).astype(np.intp)
        for side in (height, width)
    )
    return labels[..., rows[:, None], columns]


def resized_image(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """An image [H, W, C] at a size, (height, width), in its own type."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, image.shape[2])


class PredictionCollector:
    """Keeps copies of an evaluation's predictions, and small ones of its images and targets.

    Pass it as on_prediction, and `see` as on_sample. KEPT images are kept, evenly spread.
    """

    def __init__(self, images: int, normalisation: Normalisation):
        self._every, self._normalisation = max(1, -(-images // KEPT)), normalisation
        self.predictions: dict[int, PackedIndices] = {}
        self.small: dict[int, SmallPicture] = {}

    def __call__(self, index: int, prediction: np.ndarray) -> None:
        if index % self._every == 0:
            self.predictions[index] = PackedIndices.pack(reduced_indices(prediction, FULL_SIDE), level=1)

    def see(self, index: int, image: np.ndarray, target: np.ndarray) -> None:
        """An image [H, W, C] in its own type and its target."""
        if index % self._every == 0:
            self.small[index] = SmallPicture.of(image, target, self._normalisation)

    def gather(self) -> tuple[dict[int, PackedIndices], dict[int, SmallPicture]]:
        """Predictions and small pictures of all processes, by index."""
        predictions: dict[int, PackedIndices] = {}
        small: dict[int, SmallPicture] = {}
        for part in distributed.gather((self.predictions, self.small)):
            predictions |= part[0]
            small |= part[1]
        return dict(sorted(predictions.items())), small


@dataclass(frozen=True)
class SmallPicture:
    """A small copy of an image, as WebP, with its target."""

    webp: bytes
    target: PackedIndices

    @classmethod
    def of(cls, image: np.ndarray, target: np.ndarray, normalisation: Normalisation) -> SmallPicture:
        small = reduced_indices(target, SMALL_SIDE)
        rgb = pictures.displayable(resized_image(image, small.shape[-2:]), normalisation)
        return cls(_webp(rgb, 60), PackedIndices.pack(small))


@dataclass(frozen=True)
class Photo:
    """An image that the report shows at full resolution, as WebP, with its target and prediction.

    kinds: why it is shown: see `choose_examples`. prediction: None in files of before 0.2.
    """

    kinds: tuple[str, ...]
    webp: bytes
    target: PackedIndices
    prediction: PackedIndices | None


@dataclass(frozen=True)
class Examples:
    """Predictions by name at LONG_SIDE, photos of the chosen images, small pictures of all whose prediction is kept."""

    space: LabelSpace
    predictions: dict[str, PackedIndices]
    photos: dict[str, Photo]
    small: dict[str, SmallPicture]

    def save(self, path: Path) -> None:
        """Write `examples.npz`: plain arrays, replaced whole or not at all."""
        index = {
            "space": self.space.to_plain(),
            "predictions": [[name, list(labels.shape)] for name, labels in self.predictions.items()],
            "photos": [[name, "+".join(photo.kinds), list(photo.target.shape)] for name, photo in self.photos.items()],
            "small": [[name, list(small.target.shape)] for name, small in self.small.items()],
        }
        arrays = {"index": json.dumps(index).encode()}
        arrays |= {f"prediction_{n}": labels.data for n, labels in enumerate(self.predictions.values())}
        for n, photo in enumerate(self.photos.values()):
            arrays |= {f"photo_{n}": photo.webp, f"truth_{n}": photo.target.data}
            arrays |= {f"answer_{n}": photo.prediction.data} if photo.prediction else {}
        for n, small in enumerate(self.small.values()):
            arrays |= {f"small_{n}": small.webp, f"small_truth_{n}": small.target.data}
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
                    name: Photo(
                        tuple(kinds.split("+")),
                        file[f"photo_{n}"].tobytes(),
                        labels("truth", n, s),
                        labels("answer", n, s) if f"answer_{n}" in file.files else None,
                    )
                    for n, (name, kinds, s) in enumerate(index["photos"])
                }
                small = {
                    name: SmallPicture(file[f"small_{n}"].tobytes(), labels("small_truth", n, s))
                    for n, (name, s) in enumerate(index.get("small", []))
                }
            return cls(LabelSpace.from_plain(index["space"]), predictions, photos, small)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(path, f"is not an examples.npz: {error}.", "Evaluate again: tools/test.py.") from error


def collect_examples(
    dataset: Dataset, normalisation: Normalisation, collector: PredictionCollector, per_image: PerImage
) -> Examples | None:
    """The examples of an evaluation, in the first process; None in the others. All processes call it.

    Images that the collector did not see are read.
    """
    predictions, small = collector.gather()
    if not distributed.is_main():
        return None
    position_of = {index: position for position, index in enumerate(per_image.indices)}
    kept = [index for index in predictions if index in position_of]
    positions = [position_of[index] for index in kept]
    chosen = choose_examples(
        image_costs(per_image, per_image.definition)[positions],
        image_ious(per_image)[positions],
        false_pixels_of_clean_images(per_image)[positions],
    )
    photos = {}
    for position, kinds in chosen.items():
        image, target, name = dataset[kept[position]]
        assert target is not None  # it was scored
        full = reduced_indices(target, FULL_SIDE)
        rgb = pictures.displayable(resized_image(image, full.shape[-2:]), normalisation)
        photos[name] = Photo(kinds, _webp(rgb, 80), PackedIndices.pack(full), predictions[kept[position]])
    for index in kept:
        if index not in small:
            image, target, _ = dataset[index]
            assert target is not None
            small[index] = SmallPicture.of(image, target, normalisation)
    names = dataset.names
    reduced = {names[i]: PackedIndices.pack(reduced_indices(predictions[i].unpack())) for i in kept}
    return Examples(dataset.space, reduced, photos, {names[i]: small[i] for i in kept})


def choose_examples(
    costs: np.ndarray, ious: np.ndarray, false_pixels: np.ndarray, count: int = SHOWN
) -> dict[int, tuple[str, ...]]:
    """Positions of the images to show, and of which kinds they are; one may be worst and clean.

    WORST: those that cost the score most. CLEAN: those without any object, but with false pixels, most of them first.
    TYPICAL: from the middle half of the others by their own score. costs, ious: float64, one an image; an image in
    which nothing counts has NaN and is left out. false_pixels: int64, as from `false_pixels_of_clean_images`.
    """
    scored = [int(i) for i in np.argsort(-costs, kind="stable") if not np.isnan(ious[i])]
    worst = [i for i in scored if costs[i] > 0][: min(count, -(-len(scored) // 2))]
    clean = [int(i) for i in np.argsort(-false_pixels, kind="stable")[:count] if false_pixels[i]]
    rest = [int(i) for i in np.argsort(ious, kind="stable") if i in set(scored) - {*worst, *clean}]
    middle = rest[len(rest) // 4 : len(rest) - len(rest) // 4]
    count = min(count, len(middle))
    typical = [middle[i * len(middle) // count] for i in range(count)]
    groups = {WORST: worst, CLEAN: clean, TYPICAL: typical}
    order = dict.fromkeys([*worst, *clean, *typical])
    return {i: tuple(kind for kind, members in groups.items() if i in members) for i in order}


def _webp(rgb: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
