"""Predictions as files, written band by band."""

from __future__ import annotations

import contextlib
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hrseg.errors import HrsegError
from hrseg.files import whole_file
from hrseg.predict.bands import Band
from hrseg.predict.label_ids import label_ids as ids_of
from hrseg.report import pictures
from hrseg.report.png import GREY, PALETTE, RGB, PngWriter
from hrseg.task import LabelSpace, Task


class PredictionWriter:
    """Writes one prediction below a folder, band by band, each file whole or not at all, the class indices last:

    ids/NAME.png (multilabel: ids/CLASS/NAME.png), colors/NAME.png (a palette PNG of the same indices, where there are
    at most 256), overlay/NAME.png, probabilities/NAME.npz (`probabilities`, float16 [H, W, K]). NAME may have folders.
    nodata: some pixels may be without data, which the space's `nodata_index` stands for. label_ids: ids/ holds the
    data set's own values in place of class indices. masks: the name of that folder.
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
        nodata: bool = False,
        label_ids: bool = False,
        masks: str = "ids",
        text: dict[str, str] | None = None,
    ):
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise HrsegError(f"'{name}'", "is not a name of a result below its folder.", "Give a name without '..'.")
        self.space = space
        highest = max(len(space.classes) - 1, space.nodata_index if nodata else 0)
        self._type = np.dtype(np.uint8 if highest <= 255 or space.task is Task.MULTILABEL else np.uint16)
        self._values = ids_of(space).table if label_ids else None
        self._indexed = space.task is not Task.MULTILABEL and highest <= 255
        self._writers: dict[str, Any] = {}
        self.paths = [folder / f"{path}.png" for path in class_index_paths(name, space, masks)]
        try:
            if probabilities:
                self._add("probabilities", NpzWriter(folder / "probabilities" / f"{name}.npz", (*size, space.outputs)))
            if overlay:
                self._add("overlay", PngWriter(folder / "overlay" / f"{name}.png", size, RGB))
            if colors:
                kind, palette = (PALETTE, space.palette[: highest + 1]) if self._indexed else (RGB, None)
                if palette is not None and nodata:
                    palette[space.nodata_index] = pictures.ignored_color(space)
                self._add("colors", PngWriter(folder / "colors" / f"{name}.png", size, kind, palette=palette))
            for path in reversed(self.paths):
                depth = (self._type if self._values is None else self._values.dtype).itemsize
                self._add(str(path), PngWriter(path, size, GREY, bits=8 * depth, text=text))
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
            values = labels.astype(self._type, copy=False) if self._values is None else self._values[labels]
            self._writers[str(path)].write(values)
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


def class_index_paths(name: str, space: LabelSpace, masks: str = "ids") -> list[str]:
    """Where the class indices go, without ending: ids/NAME, for multilabel ids/CLASS/NAME for each label."""
    if space.task is not Task.MULTILABEL:
        return [f"{masks}/{name}"]
    safe = [re.sub(r"[^\w -]", "_", label) for label in space.names]
    unique = len(set(safe)) == len(safe)
    return [f"{masks}/{label if unique else f'{i}_{label}'}/{name}" for i, label in enumerate(safe)]


class NpzWriter:
    """One float16 array of a numpy archive, written along its first axis; written whole or not at all.

    Raises HrsegError where it cannot be written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path = path
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
        with contextlib.ExitStack() as opened:
            temporary = opened.enter_context(whole_file(path, way_out="Free space there or choose another --out."))
            archive = opened.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1))
            self._member = opened.enter_context(archive.open("probabilities.npy", "w", force_zip64=True))
            np.lib.format.write_array_header_1_0(self._member, header)
            self._opened = opened.pop_all()

    def write(self, rows: np.ndarray) -> None:
        """The next rows."""
        try:
            self._member.write(np.ascontiguousarray(rows).data)
        except OSError as error:
            self._opened.__exit__(type(error), error, error.__traceback__)

    def close(self) -> None:
        """All rows are there: finish the file and give it its name."""
        self._opened.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        error = Exception("discarded")
        with contextlib.suppress(Exception):  # what fails while the rest is written out does not matter any more
            self._opened.__exit__(type(error), error, None)
