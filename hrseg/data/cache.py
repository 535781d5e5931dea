"""Decoded samples on disk, bit for bit: a crop reads only the part that it needs.

strips: horizontal strips, losslessly compressed, about as large as PNGs. raw: arrays that are mapped into memory.
One file per sample: the length of its header (8 bytes), the header (JSON), the data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from filelock import FileLock

from hrseg.console import progress as progress_bar
from hrseg.data.dataset import Dataset, WrappedDataset
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.files import whole_file
from hrseg.task import Sample

log = logging.getLogger(__name__)

Kind = Literal["strips", "raw"]

FORMAT = 1
MARKER = "hrseg_cache.json"  # in every folder of a cache
ROWS = 64  # of a strip: with fewer it compresses worse, with more a crop reads more than it needs
LEVEL = 5  # of zstd: 4 % smaller than 1, as fast to read
ALIGN = 64
SIZE_SAMPLES = 3  # samples from which the size of the cache is estimated


class Strips:
    """An image [H, W, C] or a target [..., H, W] in a file; only what is sliced is read.

    It has a shape and a dtype; image[rows, columns], target[..., rows, columns] and np.asarray give arrays.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: str, starts: Sequence[int], *, is_image: bool):
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self.starts, self.is_image = starts, is_image

    def __getitem__(self, where: Any) -> np.ndarray:
        height, width = self.shape[:2] if self.is_image else self.shape[-2:]
        top, stop, _ = where[-2].indices(height)
        left, right, _ = where[-1].indices(width)
        count = math.prod(self.shape) // (height * width)
        planes = np.empty((count, stop - top, right - left), f"u{self.dtype.itemsize}")
        buffer = np.empty((count * ROWS * width,), planes.dtype)  # for all strips: touching new memory is slow
        with self.path.open("rb", buffering=0) as file:
            for strip in range(top // ROWS, -(-stop // ROWS)):
                first, last = strip * ROWS, min((strip + 1) * ROWS, height)
                start, end = self.starts[strip : strip + 2]
                file.seek(start)
                unpacked = buffer[: count * (last - first) * width]
                _imagecodecs().zstd_decode(file.read(end - start), out=unpacked.view(np.uint8))
                part = unpacked.reshape(count, last - first, width)[:, : stop - first]
                part = _undo_differences(part, left, right) if self.is_image else part[..., left:right]
                part = part[:, max(top - first, 0) :]
                below = max(first - top, 0)
                planes[:, below : below + part.shape[1]] = part
        if self.is_image and _is_rgb(planes):
            planes[0] += planes[1]
            planes[2] += planes[1]
        planes = planes.view(self.dtype)
        if not self.is_image:
            return planes.reshape(*self.shape[:-2], *planes.shape[1:])
        return cv2.merge(tuple(planes)) if count == 3 else np.ascontiguousarray(np.moveaxis(planes, 0, 2))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        everything = slice(None)
        array = self[everything, everything]
        return array if dtype is None else array.astype(dtype, copy=False)


def _compressed_strips(array: np.ndarray, is_image: bool) -> list[bytes]:
    """The strips of an image [H, W, C] or a target [..., H, W], compressed.

    Red and blue are stored as differences from green, and an image as differences from the row above, which are undone
    a whole row at a time. A target is compressed without that.
    """
    planes = np.moveaxis(array, 2, 0) if is_image else array.reshape(-1, *array.shape[-2:])
    planes = np.ascontiguousarray(planes).view(f"u{array.itemsize}")
    if is_image and _is_rgb(planes):
        planes = planes.copy()
        planes[[0, 2]] -= planes[1]
    strips = (planes[:, first : first + ROWS] for first in range(0, planes.shape[1], ROWS))
    return [
        _imagecodecs().zstd_encode((_row_differences(strip) if is_image else strip).tobytes(), level=LEVEL)
        for strip in strips
    ]


def _row_differences(planes: np.ndarray) -> np.ndarray:
    """[P, rows, W] minus the row above, in the first row minus the pixel on the left, modulo the type's range."""
    result = planes.copy()
    result[:, 1:] -= planes[:, :-1]
    result[:, 0, 1:] -= planes[:, 0, :-1]
    return result


def _undo_differences(planes: np.ndarray, left: int, right: int) -> np.ndarray:
    """The columns left:right of what `_row_differences` took."""
    first_row = np.cumsum(planes[:, 0], axis=1, dtype=planes.dtype)[:, left:right]
    rows = np.ascontiguousarray(planes[..., left:right].swapaxes(0, 1))
    rows[0] = first_row
    for above, below in pairwise(rows.reshape(len(rows), -1)):
        np.add(below, above, out=below)
    return rows.swapaxes(0, 1)


def _is_rgb(planes: np.ndarray) -> bool:
    return len(planes) == 3 and planes.dtype == np.uint8


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError:
        way_out = "Install it with: pip install 'hrseg[fast]', or set data.cache: raw."
        raise ConfigError("data.cache", "strips need imagecodecs.", way_out) from None
    return imagecodecs


def _write_sample(path: Path, sample: Sample, kind: Kind, sources: list[SourceFile]) -> int:
    """Write a sample whole or not at all; returns the file's size in bytes."""
    parts: list[bytes] = []
    place, arrays = 0, []
    for name, array in (("image", sample.image), ("target", sample.target)):
        if array is None:
            continue
        of_array = (
            _compressed_strips(array, name == "image") if kind == "strips" else [np.ascontiguousarray(array).tobytes()]
        )
        starts = [place]
        for part in of_array:
            place += len(part)
            starts.append(place)
        padding = b"\0" * (-place % ALIGN)
        place += len(padding)
        parts += [*of_array, padding]
        arrays.append({"name": name, "shape": array.shape, "dtype": array.dtype.str, "starts": starts})
    header = json.dumps({"sources": sources, "arrays": arrays, "bytes": place}).encode()
    header += b" " * (-(len(header) + 8) % ALIGN)
    with whole_file(path, way_out="See data.cache_dir.") as temporary, temporary.open("wb") as file:
        file.writelines([len(header).to_bytes(8, "little"), header, *parts])
    return 8 + len(header) + place


class _Header(NamedTuple):
    sources: list[SourceFile]
    arrays: dict[str, dict[str, Any]]  # by name: shape, dtype, places in the file where the parts start


def _read_header(path: Path) -> _Header | None:
    """The header that `_write_sample` wrote; None where there is no file, or not all of it."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            plain = json.loads(file.read(min(length, 1 << 26)))
            whole = os.fstat(file.fileno()).st_size == 8 + length + plain["bytes"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    arrays = {a.pop("name"): a | {"starts": [8 + length + start for start in a["starts"]]} for a in plain["arrays"]}
    return _Header([SourceFile(*source) for source in plain["sources"]], arrays) if whole else None


class SourceFile(NamedTuple):
    """A file that a sample was read from, by its content."""

    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> SourceFile:
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                return cls(stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(path, f"cannot be read: {error.strerror}.") from error

    def is_unchanged(self, path: Path) -> bool:
        """Whether a file has the same content; it is read only if its time of change differs."""
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(path, f"cannot be read: {error.strerror}.") from error
        if (stat.st_size, stat.st_mtime_ns) == self[:2]:
            return True
        return stat.st_size == self.bytes and SourceFile.of(path).sha256 == self.sha256


class CachedDataset(WrappedDataset):
    """A data set whose samples come from the cache.

    Raises DataError where the cache lacks samples, or was made from other files.
    """

    def __init__(self, dataset: Dataset, folder: Path, root: Path, *, workers: int = 0):
        super().__init__(dataset)
        self.folder = folder
        self.paths = _sample_paths(dataset, folder, root)
        states = _sample_states(dataset, self.paths, workers)
        for state, what in (("missing", "lacks"), ("stale", "was made from other files than the present ones for")):
            if state in states:
                where, count = _source_paths(dataset, states.index(state))[0], states.count(state)
                what = f"the cache {what} {count} of {len(states)} samples, such as {where}."
                raise DataError(folder, what, "Build it with: tools/cache.py build CONFIG.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Sample:
        """The whole sample, the same as the data set's."""
        image, target, name = self.open_sample(i)
        return Sample(np.array(image), None if target is None else np.array(target), name)

    def open_sample(self, i: int) -> Sample:
        """A sample of which only what is sliced is read: image[rows, columns], target[..., rows, columns]."""
        path = self.paths[i]
        header = _read_header(path)
        if header is None:
            raise DataError(path, "is gone from the cache.", "Build it with: tools/cache.py build CONFIG.")
        image, target = (
            None if array is None else _open_array(path, name, array)
            for name, array in (("image", header.arrays["image"]), ("target", header.arrays.get("target")))
        )
        assert image is not None
        return Sample(image, target, self.names[i])


def _open_array(path: Path, name: str, array: dict[str, Any]) -> Any:
    if path.suffix == ".strips":
        return Strips(path, is_image=name == "image", **array)
    return np.memmap(path, array["dtype"], "r", array["starts"][0], tuple(array["shape"]))


def cached_dataset(
    dataset: Dataset,
    kind: Kind,
    cache_dir: Path,
    root: Path,
    *,
    workers: int = 0,
    renew: bool = False,
    progress: bool = True,
) -> CachedDataset:
    """The data set read from its cache, which is built where samples are missing; several processes may do so at once.

    cache_dir: holds one folder per kind and meaning of masks. root: of the data set, which may be moved. workers:
    threads. renew: also rebuild what was made from other files, which is refused otherwise. Raises DataError or
    HrsegError, after which nothing is left of a cache that did not exist before, and ConfigError for a data set that
    cannot be cached, or for strips without imagecodecs.
    """
    plain_meaning = dataset.meaning()
    if plain_meaning is None or dataset.files(0) is None:
        what = f"{dataset.type_name} cannot be cached: it has no files(i) and meaning()."
        raise ConfigError("data.cache", what, "Set data.cache: none.")
    if kind == "strips":
        _imagecodecs()
    meaning = json.dumps(plain_meaning, sort_keys=True)
    folder = cache_dir / f"{kind}-{hashlib.sha256(meaning.encode()).hexdigest()[:12]}"
    paths = _sample_paths(dataset, folder, root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        raise DataError(folder, f"cannot hold a cache: {error.strerror}.", "Set data.cache_dir.") from error
    is_new = not (folder / MARKER).exists()
    try:  # another process may have built it in the meantime
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(json.dumps({"format": FORMAT, "kind": kind}), encoding="utf-8")
        wanted = ("missing", "stale") if renew else ("missing",)
        missing = [i for i, state in enumerate(_sample_states(dataset, paths, workers)) if state in wanted]
        if missing:
            _build_samples(dataset, missing, paths, kind, workers, progress)
    except HrsegError:
        if is_new:
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # it holds other caches
                cache_dir.rmdir()
        raise
    finally:
        lock.release()
    return CachedDataset(dataset, folder, root, workers=workers)


def _build_samples(
    dataset: Dataset, missing: list[int], paths: list[Path], kind: Kind, workers: int, progress: bool
) -> None:
    folder = paths[0].parent.parent

    def write_one(i: int) -> int:
        sources = [
            SourceFile.of(path) for path in _source_paths(dataset, i)
        ]  # before the sample is read: a change in the meantime is noticed
        return _write_sample(paths[i], dataset[i], kind, sources)

    first = missing[:: -(-len(missing) // SIZE_SAMPLES)]
    sizes = [write_one(i) for i in first]
    expected = sum(sizes) / len(sizes) * len(missing)
    free = shutil.disk_usage(folder).free
    size = f"about {expected / 1e9:.2g} GB in {kind}"
    log.info(f"cache: {len(missing)} samples, {size}, to {folder} ({free / 1e9:.0f} GB free)")
    if expected > free + sum(sizes):
        raise DataError(folder, f"the cache takes {size}, {free / 1e9:.2g} GB are free.", "Set data.cache_dir.")
    rest = sorted({*missing} - {*first})
    bar = progress_bar(len(rest), "cache", "sample", shown=progress)
    with ThreadPoolExecutor(max(workers, 1)) as pool, bar:
        for _ in (pool.map if workers else map)(write_one, rest):
            bar.update()


def _sample_paths(dataset: Dataset, folder: Path, root: Path) -> list[Path]:
    """The file of each sample, named by a hash of its image's path below the root."""
    ending = folder.name.partition("-")[0]
    names = (Path(os.path.relpath(_source_paths(dataset, i)[0], root)).as_posix() for i in range(len(dataset)))
    hashes = (hashlib.sha256(os.fsencode(name)).hexdigest()[:32] for name in names)
    return [folder / name[:2] / f"{name[2:]}.{ending}" for name in hashes]


def _sample_states(dataset: Dataset, paths: Sequence[Path], workers: int) -> list[str]:
    """The state of each sample: fresh, missing, or stale, if the content of its files has changed."""

    def state(i: int) -> str:
        header = _read_header(paths[i])
        if header is None:
            return "missing"
        files = _source_paths(dataset, i)
        same = len(files) == len(header.sources) and all(
            s.is_unchanged(f) for s, f in zip(header.sources, files, strict=True)
        )
        return "fresh" if same else "stale"

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return list((pool.map if workers else map)(state, range(len(paths))))


def _source_paths(dataset: Dataset, i: int) -> list[Path]:
    files = dataset.files(i)
    assert files is not None  # `cached` refuses other data sets
    image, masks = files
    return [image, *(masks if isinstance(masks, list) else [masks] if masks else [])]


def clear_caches(cache_dir: Path) -> int:
    """Delete all caches in a folder, and the folder if nothing else is in it; returns their size in bytes."""
    freed = 0
    for marker in sorted(cache_dir.glob(f"*/{MARKER}")):
        folder = marker.parent
        freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
    if cache_dir.is_dir() and not any(cache_dir.iterdir()):
        cache_dir.rmdir()
    return freed
