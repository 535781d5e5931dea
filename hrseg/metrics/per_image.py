"""The evidence behind the scores: one sparse confusion matrix an image, on disk as `per_image.npz`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hrseg.errors import DataError
from hrseg.metrics.scores import areas


class PerImage:
    """Confusion matrices of single images, with their names and the clusters (city, sequence) that they come from.

    shape: of one matrix, (K, K), or (L, 2, 2) for multilabel. Images are ordered by their index in the data set,
    whatever the order in which they were added.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.shape = tuple(shape)
        self._images: dict[int, tuple[str, str, np.ndarray, np.ndarray]] = {}  # index: name, cluster, cells, pixels

    def add(self, index: int, name: str, confusion: np.ndarray, cluster: str = "") -> None:
        """Record one image. Raises ValueError if the index is taken or the matrix has another shape."""
        confusion = np.asarray(confusion)
        if index in self._images:
            raise ValueError(f"image {index} ({name}) was counted before, as {self._images[index][0]}")
        if confusion.shape != self.shape:
            raise ValueError(f"the matrix of {name} is {list(confusion.shape)}, not {list(self.shape)}")
        cells = np.flatnonzero(confusion)
        self._images[index] = (name, cluster, cells, confusion.ravel()[cells].astype(np.int64))

    @classmethod
    def merge(cls, parts: Iterable[PerImage]) -> PerImage:
        """The images of several processes as one. Raises ValueError if two parts hold the same image."""
        first, *others = parts
        merged = cls(first.shape)
        for part in (first, *others):
            taken = merged._images.keys() & part._images.keys()
            if taken or part.shape != merged.shape:
                raise ValueError(f"the parts share images {sorted(taken)}" if taken else "the parts differ in shape")
            merged._images.update(part._images)
        return merged

    def __len__(self) -> int:
        return len(self._images)

    @property
    def indices(self) -> list[int]:
        """The indices of the images in the data set, ascending; all else is in their order."""
        return sorted(self._images)

    @property
    def names(self) -> list[str]:
        """The name of each image."""
        return [self._images[index][0] for index in self.indices]

    @property
    def clusters(self) -> list[str]:
        """The cluster of each image; '' where none was given."""
        return [self._images[index][1] for index in self.indices]

    def __getitem__(self, position: int) -> np.ndarray:
        """The confusion matrix of the image at a position in the order of the data set, int64."""
        return self._matrix(self.indices[position])

    def _matrix(self, index: int) -> np.ndarray:
        _, _, cells, pixels = self._images[index]
        matrix = np.zeros(self.shape, np.int64)
        matrix.ravel()[cells] = pixels
        return matrix

    def total(self) -> np.ndarray:
        """The sum over all images, int64."""
        total = np.zeros(self.shape, np.int64)
        for _, _, cells, pixels in self._images.values():
            total.ravel()[cells] += pixels
        return total

    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """Intersection and union of each class in each image, two int64 [N, K]; multilabel: of each label's "yes"."""
        pairs = [areas(self._matrix(index)) for index in self.indices]
        intersection, union = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        return (intersection[..., 1], union[..., 1]) if len(self.shape) == 3 else (intersection, union)

    def save(self, path: str | Path) -> None:
        """Write `per_image.npz`: compressed, plain arrays, replaced whole or not at all."""
        path = Path(path)
        images = [self._images[index] for index in self.indices]
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                shape=np.array(self.shape, np.int64),
                indices=np.array(self.indices, np.int64),
                names=np.array(self.names, np.str_),
                clusters=np.array(self.clusters, np.str_),
                starts=np.cumsum([0, *(len(cells) for _, _, cells, _ in images)]),
                cells=np.concatenate([np.zeros(0, np.int64), *(cells for _, _, cells, _ in images)]),
                pixels=np.concatenate([np.zeros(0, np.int64), *(pixels for _, _, _, pixels in images)]),
            )
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> PerImage:
        """Read what `save` wrote. Raises DataError if the file is missing or is no such file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                read = {name: file[name] for name in file.files}
            per_image = cls(tuple(int(side) for side in read["shape"]))
            for position, index in enumerate(read["indices"].tolist()):
                part = slice(read["starts"][position], read["starts"][position + 1])
                name, cluster = str(read["names"][position]), str(read["clusters"][position])
                cells, pixels = read["cells"][part], read["pixels"][part]
                if cells.size and not 0 <= cells.min() <= cells.max() < np.prod(per_image.shape):
                    raise ValueError(f"cells of {name} lie outside the matrix")
                per_image._images[index] = (name, cluster, cells, pixels)
        except FileNotFoundError:
            raise DataError(path, "no such file.", "Evaluation writes it into the run folder.") from None
        except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(path, f"is not a per_image.npz: {error}.") from error
        return per_image
