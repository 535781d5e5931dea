"""Predictions as PNG files: another framework's are read and scored, one's own written for the Cityscapes server."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from hrseg import distributed
from hrseg.data.dataset import Dataset
from hrseg.data.images import list_files, read_mask
from hrseg.data.pairs import ValueTable
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.evaluate.evaluator import Evaluator
from hrseg.metrics import ImageCounts
from hrseg.task import IGNORE_INDEX, Task

log = logging.getLogger(__name__)

Ids = Literal["classes", "labels"]  # 0 to K - 1; as in the data set's own masks
SHOWN = 5  # names in one message


def find(folder: Path, dataset: Dataset) -> list[Path]:
    """The PNG of each image, in the order of the data set.

    It has the image's name, with or without the folders in it; for Cityscapes it begins with the image's city, sequence
    and frame. Raises DataError where images have none or two. Others in the folder are counted in the log.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder.", "--predictions names a folder of PNG files.")
    key = dataset.image_key
    names, files = dataset.names, list_files(folder, (".png",))
    stems = _grouped({name: key(name.rpartition("/")[2]) for name in names})
    by_key = _grouped({name: key(name.rpartition("/")[2]) for name in files})
    found: list[Path] = []
    missing = []
    for name in names:
        stem = key(name.rpartition("/")[2])
        candidates = [name] if name in files else by_key.get(stem, []) if len(stems[stem]) == 1 else []
        if len(candidates) > 1:
            what = f"has {len(candidates)} files for the image {name}: {', '.join(candidates[:SHOWN])}."
            raise DataError(folder, what, "Keep one of them.")
        found += [Path(files[candidate]) for candidate in candidates]
        missing += [] if candidates else [name]
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        what = f"has {len(files)} PNG files, but none for {len(missing)} of {len(names)} images: {shown}."
        raise DataError(folder, what, f"Name them after the images, such as {names[0]}.png.")
    if len(files) > len(found) and distributed.is_main():
        log.info("%s: %d PNG files belong to no image of this split.", folder, len(files) - len(found))
    return found


def _grouped(keys: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return groups


class _Counted(NamedTuple):
    """The prediction [H, W] for one image, the highest label id in its file (-1 where it holds none), what it adds."""

    prediction: np.ndarray
    highest: int
    counts: ImageCounts


class Predictions:
    """A folder of PNG files, one for each image, as class indices.

    ids: what the pixels hold; None: labels for Cityscapes, as its own evaluation has it, else classes. The ignore
    index, or a label that is not a class, counts as a miss. check: refuse a set that can only be a mistake.
    """

    def __init__(self, dataset: Dataset, folder: Path, ids: Ids | None = None, *, check: bool = True):
        self.dataset, self.folder, self.check = dataset, folder, check
        self.ids = ids or dataset.prediction_ids
        space = dataset.space
        if space.task is Task.MULTILABEL:
            raise ConfigError(
                "--predictions", "a PNG holds one class a pixel, the labels of this data set may overlap."
            )
        self.paths = find(folder, dataset)
        classes = range(len(space.classes))
        nothing = {space.nodata_index: space.ignore_index, space.ignore_index: space.ignore_index}
        self._classes = ValueTable(nothing | {i: i for i in classes}, space.ignore_index)
        self._table = dataset.label_table if self.ids == "labels" else None
        if self._table is not None:
            known = {label.id: label.train_id for label in self._table if label.id >= 0}
            self._labels = ValueTable(known, space.ignore_index)
        self._highest = -1  # id in all files

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Class indices [H, W]; and the file's own values where they are ids of a label table.

        Raises DataError for a value that is none, and for a colour picture.
        """
        path = self.paths[index]
        mask = read_mask(path)
        if self.ids == "classes":
            return self._classes(mask, path, "Are these the values of masks? Then add --ids labels."), None
        if self._table is None:
            return self.dataset.to_indices(mask, path), None
        indices = self._labels(mask, path, "Does it hold trainIds? Then add --ids classes.")
        return indices, mask

    def evaluate(self, evaluator: Evaluator, on_prediction: Any, bar: Any) -> None:
        """Let the evaluator count this process's share of the files. Raises DataError for a file of another size."""
        for index, (prediction, highest, counts) in self._counted_ahead(evaluator):
            self._highest = max(self._highest, highest)
            evaluator.add(index, counts)
            on_prediction(index, prediction)
            bar.update()
        self._require_label_ids()

    def _counted_ahead(self, evaluator: Evaluator) -> Iterator[tuple[int, _Counted]]:
        """This process's share in order, decoded and counted by as many threads as torch has."""
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[tuple[int, Future[_Counted]]] = deque()
            try:
                for index in range(distributed.rank(), len(self.paths), distributed.world_size()):
                    waiting.append((index, pool.submit(self._counted, evaluator, index)))
                    if len(waiting) > 2 * threads:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _counted(self, evaluator: Evaluator, index: int) -> _Counted:
        dataset = self.dataset
        target = dataset.sample_target(index)
        if target is None:
            raise DataError(dataset.names[index], "has no labels to score against.", "Choose another split.")
        prediction, label_ids = self.read(index)
        if prediction.shape != target.shape:
            sizes = ("x".join(map(str, plane.shape)) for plane in (prediction, target))
            what = "is {} (height x width), the labels of the image are {}.".format(*sizes)
            raise DataError(self.paths[index], what, "Save predictions at the size of the labels.")
        highest = -1 if label_ids is None else int(label_ids.max(initial=0))
        return _Counted(prediction, highest, evaluator.count(index, prediction, target, label_ids=label_ids))

    def _require_label_ids(self) -> None:
        if self._table is None or not self.check:
            return
        highest_train_id = max(label.train_id for label in self._table if label.train_id != IGNORE_INDEX)
        if 0 <= max(distributed.gather(self._highest)) <= highest_train_id:
            what = f"no file has an id above {highest_train_id}, as if they held trainIds."
            raise DataError(self.folder, what, "Add --ids classes; or data.check=false, if they are label ids.")


class Submission:
    """Label-id PNGs for the Cityscapes server: call it with each index and its class indices, then `finish`.

    They are written beside the folder, checked, and only then moved there, with folder.zip; at the end of a `with`
    nothing else is left. Raises ConfigError for another data set, HrsegError where the folder or the file is there
    already.
    """

    def __init__(self, dataset: Dataset, folder: Path):
        if dataset.label_table is None or dataset.label_ids is None:
            raise ConfigError("--submit", "writes what the Cityscapes server wants.", "Use data.dataset=cityscapes.")
        self.label_table, self.label_ids = dataset.label_table, dataset.label_ids
        self.dataset, self.folder, self.archive = dataset, folder, folder.with_name(f"{folder.name}.zip")
        self._unfinished = folder.with_name(f".{folder.name}.unfinished")
        self._unfinished_archive = folder.with_name(f".{folder.name}.zip.unfinished")
        for path in (folder, self.archive):
            if path.exists():
                raise HrsegError(path, "is there already.", "Remove it, or choose another folder.")
        if distributed.is_main():
            shutil.rmtree(self._unfinished, ignore_errors=True)
            try:
                self._unfinished.mkdir(parents=True)
            except OSError as error:
                raise HrsegError(folder, f"cannot be made: {error.strerror}.", "Choose another folder.") from error
        distributed.barrier()

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_: Any) -> None:
        if distributed.is_main():
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self._unfinished_archive.unlink(missing_ok=True)

    def __call__(self, index: int, prediction: np.ndarray) -> None:
        height, width = self.dataset.image_size(index)
        if prediction.shape != (height, width):
            sizes = f"{prediction.shape[0]}x{prediction.shape[1]}, the image {height}x{width}"
            raise DataError(self.dataset.names[index], f"its prediction is {sizes}.", "The server wants full size.")
        Image.fromarray(self.label_ids[prediction]).save(self._unfinished / self._name(index))

    def finish(self) -> Path | None:
        """Check all files as they lie on disk, zip them, give them their place. The archive, in the first process."""
        distributed.barrier()
        if not distributed.is_main():
            return None
        expected = {self._name(index) for index in range(len(self.dataset))}
        there = {path.name for path in self._unfinished.iterdir()}
        if there != expected:
            differing = sorted(there ^ expected)
            raise DataError(
                self._unfinished, f"{len(differing)} files are missing or too many, such as {differing[0]}."
            )
        allowed = [0, *(label.id for label in self.label_table if not label.ignored)]
        with zipfile.ZipFile(self._unfinished_archive, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
            for name in sorted(expected):
                path = self._unfinished / name
                if strangers := set(np.unique(read_mask(path)).tolist()) - set(allowed):
                    raise DataError(path, f"holds {sorted(strangers)}, which are no label ids of the benchmark.")
                archive.write(path, f"{self.folder.name}/{name}")
        self._unfinished.rename(self.folder)
        self._unfinished_archive.rename(self.archive)
        return self.archive

    def _name(self, index: int) -> str:
        return f"{self.dataset.names[index].rpartition('/')[2]}_pred_labelIds.png"
