"""Decoded samples on disk, bit for bit: a crop reads only the part that it needs.

strips: horizontal strips compressed without loss, about as large as PNGs. raw: arrays that are mapped into memory.
A file a sample: the length of its head (8 bytes), the head (JSON), the data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from filelock import FileLock
from tqdm import tqdm

from hrseg.data.dataset import Dataset, WrappedDataset
from hrseg.errors import ConfigError, DataError
from hrseg.task import Sample

log = logging.getLogger(__name__)

Kind = Literal["strips", "raw"]

FORMAT = 1
MARKER = "hrseg_cache.json"  # what a folder of the cache holds
ROWS = 64  # of a strip: fewer compress worse, more are read in vain
LEVEL = 5  # of zstd: 4 % smaller than 1, as fast to read
ALIGN = 64
TRIED = 3  # samples that tell how large the cache will be


class Strips:
    """An image [H, W, C] or a mask [..., H, W] in a file; only what is sliced is read.

    It has a shape and a type; image[rows, columns], mask[..., rows, columns] and np.asarray give arrays.
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
                _codec().zstd_decode(file.read(end - start), out=unpacked.view(np.uint8))
                part = unpacked.reshape(count, last - first, width)[:, : stop - first]
                part = _from_differences(part, left, right) if self.is_image else part[..., left:right]
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


def _packed(array: np.ndarray, is_image: bool) -> list[bytes]:
    """The strips of an image [H, W, C] or a mask [..., H, W], compressed.

    Of red and blue the differences to green are kept, and of an image those to the row above, which are undone a whole
    row at a time. A mask compresses as it is.
    """
    planes = np.moveaxis(array, 2, 0) if is_image else array.reshape(-1, *array.shape[-2:])
    planes = np.ascontiguousarray(planes).view(f"u{array.itemsize}")
    if is_image and _is_rgb(planes):
        planes = planes.copy()
        planes[[0, 2]] -= planes[1]
    strips = (planes[:, first : first + ROWS] for first in range(0, planes.shape[1], ROWS))
    return [
        _codec().zstd_encode((_differences(strip) if is_image else strip).tobytes(), level=LEVEL) for strip in strips
    ]


def _differences(planes: np.ndarray) -> np.ndarray:
    """Of [P, rows, W] to the row above, in the first row to the pixel on the left, modulo the type's range."""
    result = planes.copy()
    result[:, 1:] -= planes[:, :-1]
    result[:, 0, 1:] -= planes[:, 0, :-1]
    return result


def _from_differences(planes: np.ndarray, left: int, right: int) -> np.ndarray:
    """The columns left:right of what `_differences` was given."""
    first_row = np.cumsum(planes[:, 0], axis=1, dtype=planes.dtype)[:, left:right]
    rows = np.ascontiguousarray(planes[..., left:right].swapaxes(0, 1))
    rows[0] = first_row
    for above, below in pairwise(rows.reshape(len(rows), -1)):
        np.add(below, above, out=below)
    return rows.swapaxes(0, 1)


def _is_rgb(planes: np.ndarray) -> bool:
    return len(planes) == 3 and planes.dtype == np.uint8


def _codec() -> Any:
    try:
        import imagecodecs
    except ImportError:
        way_out = "Install it with: pip install 'hrseg[fast]', or set data.cache: raw."
        raise ConfigError("data.cache", "strips need imagecodecs.", way_out) from None
    return imagecodecs


def _write(path: Path, sample: Sample, kind: Kind, sources: list[Source]) -> int:
    """Write a sample whole or not at all; returns the file's size in bytes."""
    parts: list[bytes] = []
    place, arrays = 0, []
    for name, array in (("image", sample.image), ("target", sample.target)):
        if array is None:
            continue
        of_array = _packed(array, name == "image") if kind == "strips" else [np.ascontiguousarray(array).tobytes()]
        starts = [place]
        for part in of_array:
            place += len(part)
            starts.append(place)
        padding = b"\0" * (-place % ALIGN)
        place += len(padding)
        parts += [*of_array, padding]
        arrays.append({"name": name, "shape": array.shape, "dtype": array.dtype.str, "starts": starts})
    head = json.dumps({"sources": sources, "arrays": arrays, "bytes": place}).encode()
    head += b" " * (-(len(head) + 8) % ALIGN)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with unfinished.open("wb") as file:
            file.writelines([len(head).to_bytes(8, "little"), head, *parts])
        unfinished.replace(path)
    except OSError as error:
        raise DataError(
            path.parent, f"the cache cannot be written: {error.strerror}.", "See data.cache_dir."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return 8 + len(head) + place


class _Head(NamedTuple):
    sources: list[Source]
    arrays: dict[str, dict[str, Any]]  # by name: shape, dtype, starts of the parts in the file


def _read_head(path: Path) -> _Head | None:
    """What `_write` left there; None where there is nothing, or not all of it."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(min(length, 1 << 26)))
            whole = os.fstat(file.fileno()).st_size == 8 + length + head["bytes"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    arrays = {a.pop("name"): a | {"starts": [8 + length + start for start in a["starts"]]} for a in head["arrays"]}
    return _Head([Source(*source) for source in head["sources"]], arrays) if whole else None


class Source(NamedTuple):
    """A file that a sample was read from, by its content."""

    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Source:
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                return cls(stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(path, f"cannot be read: {error.strerror}.") from error

    def is_still(self, path: Path) -> bool:
        """Whether a file holds what it held; it is read only where its time has changed."""
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(path, f"cannot be read: {error.strerror}.") from error
        if (stat.st_size, stat.st_mtime_ns) == self[:2]:
            return True
        return stat.st_size == self.bytes and Source.of(path).sha256 == self.sha256


class Cached(WrappedDataset):
    """A data set whose samples come from the cache.

    Raises DataError where the cache lacks samples, or was made from other files.
    """

    def __init__(self, dataset: Dataset, folder: Path, root: Path, *, workers: int = 0):
        super().__init__(dataset)
        self.folder = folder
        self.paths = _paths(dataset, folder, root)
        states = _states(dataset, self.paths, workers)
        for state, what in (("missing", "lacks"), ("stale", "was made from other files than the present ones for")):
            if state in states:
                where, count = _files(dataset, states.index(state))[0], states.count(state)
                what = f"the cache {what} {count} of {len(states)} samples, such as {where}."
                raise DataError(folder, what, "Build it with: tools/cache.py build CONFIG.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Sample:
        """A whole sample, as the data set gives it."""
        image, target, name = self.open_sample(i)
        return Sample(np.array(image), None if target is None else np.array(target), name)

    def open_sample(self, i: int) -> Sample:
        """A sample of which only what is sliced is read: image[rows, columns], target[..., rows, columns]."""
        path = self.paths[i]
        head = _read_head(path)
        if head is None:
            raise DataError(path, "is gone from the cache.", "Build it with: tools/cache.py build CONFIG.")
        image, target = (
            None if array is None else _opened(path, name, array)
            for name, array in (("image", head.arrays["image"]), ("target", head.arrays.get("target")))
        )
        assert image is not None
        return Sample(image, target, self.names[i])


def _opened(path: Path, name: str, array: dict[str, Any]) -> Any:
    if path.suffix == ".strips":
        return Strips(path, is_image=name == "image", **array)
    return np.memmap(path, array["dtype"], "r", array["starts"][0], tuple(array["shape"]))


def cached(
    dataset: Dataset,
    kind: Kind,
    cache_dir: Path,
    root: Path,
    *,
    workers: int = 0,
    renew: bool = False,
    progress: bool = True,
) -> Cached:
    """The data set out of its cache, which is made where samples are missing; several processes may do so at once.

    cache_dir: holds a folder for each kind and each meaning of labels. root: of the data set, which may move. workers:
    threads. renew: also what was made from other files, which is refused else. Raises DataError, after which nothing is
    left of a cache that was not there before, and ConfigError for a data set that cannot be cached or strips without
    imagecodecs.
    """
    plain_meaning = dataset.meaning()
    if plain_meaning is None or dataset.files(0) is None:
        what = f"{dataset.type_name} cannot be cached: it has no files(i) and meaning()."
        raise ConfigError("data.cache", what, "Set data.cache: none.")
    if kind == "strips":
        _codec()
    meaning = json.dumps(plain_meaning, sort_keys=True)
    folder = cache_dir / f"{kind}-{hashlib.sha256(meaning.encode()).hexdigest()[:12]}"
    paths = _paths(dataset, folder, root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        raise DataError(folder, f"cannot hold a cache: {error.strerror}.", "Set data.cache_dir.") from error
    is_new = not (folder / MARKER).exists()
    try:  # another process may have built it meanwhile
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(json.dumps({"format": FORMAT, "kind": kind}), encoding="utf-8")
        wanted = ("missing", "stale") if renew else ("missing",)
        missing = [i for i, state in enumerate(_states(dataset, paths, workers)) if state in wanted]
        if missing:
            _build(dataset, missing, paths, kind, workers, progress)
    except DataError:
        if is_new:
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # holds other caches
                cache_dir.rmdir()
        raise
    finally:
        lock.release()
    return Cached(dataset, folder, root, workers=workers)


def _build(dataset: Dataset, missing: list[int], paths: list[Path], kind: Kind, workers: int, progress: bool) -> None:
    folder = paths[0].parent.parent

    def write(i: int) -> int:
        sources = [Source.of(path) for path in _files(dataset, i)]  # before it is read: a change meanwhile shows
        return _write(paths[i], dataset[i], kind, sources)

    first = missing[:: -(-len(missing) // TRIED)]
    tried = [write(i) for i in first]
    expected = sum(tried) / len(tried) * len(missing)
    free = shutil.disk_usage(folder).free
    size = f"about {expected / 1e9:.2g} GB in {kind}"
    log.info(f"cache: {len(missing)} samples, {size}, to {folder} ({free / 1e9:.0f} GB free)")
    if expected > free + sum(tried):
        raise DataError(folder, f"the cache takes {size}, {free / 1e9:.2g} GB are free.", "Set data.cache_dir.")
    rest = sorted({*missing} - {*first})
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        done = (pool.map if workers else map)(write, rest)
        for _ in tqdm(done, total=len(rest), desc="cache", unit="sample", disable=not progress, leave=False):
            pass


def _paths(dataset: Dataset, folder: Path, root: Path) -> list[Path]:
    """The file of each sample, named after its image's path below the root: nothing of that becomes a path itself."""
    ending = folder.name.partition("-")[0]
    names = (Path(os.path.relpath(_files(dataset, i)[0], root)).as_posix() for i in range(len(dataset)))
    hashes = (hashlib.sha256(name.encode()).hexdigest()[:32] for name in names)
    return [folder / name[:2] / f"{name[2:]}.{ending}" for name in hashes]


def _states(dataset: Dataset, paths: Sequence[Path], workers: int) -> list[str]:
    """Of each sample: fresh, missing, or stale, where its files hold something else now."""

    def state(i: int) -> str:
        head = _read_head(paths[i])
        if head is None:
            return "missing"
        files = _files(dataset, i)
        same = len(files) == len(head.sources) and all(s.is_still(f) for s, f in zip(head.sources, files, strict=True))
        return "fresh" if same else "stale"

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return list((pool.map if workers else map)(state, range(len(paths))))


def _files(dataset: Dataset, i: int) -> list[Path]:
    files = dataset.files(i)
    assert files is not None  # `cached` refuses other data sets
    image, masks = files
    return [image, *(masks if isinstance(masks, list) else [masks] if masks else [])]


def clear_caches(cache_dir: Path) -> int:
    """Delete all caches in a folder, and it where nothing else is left; returns the bytes that they took."""
    freed = 0
    for marker in sorted(cache_dir.glob(f"*/{MARKER}")):
        folder = marker.parent
        freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
    if cache_dir.is_dir() and not any(cache_dir.iterdir()):
        cache_dir.rmdir()
    return freed
