"""Images, folders and videos to segmentations."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from hrseg import distributed
from hrseg.console import counted
from hrseg.data.images.large_images import ModelInput
from hrseg.errors import DataError, HrsegError
from hrseg.files import write_json
from hrseg.predict.input_files import Input
from hrseg.predict.predictor import Band, PredictionWriter, Predictor, id_paths, shares
from hrseg.report import pictures
from hrseg.report.png import RGB, PngWriter
from hrseg.task import LabelSpace, Task
from hrseg.weights.source import find_file, sha256

# keywords of what a result says of its making
INPUT, STATE, LEGEND = "hrseg input", "hrseg state", "hrseg legend"


@dataclass(frozen=True)
class Outputs:
    """What is written below a folder. made_by: stands for the weights and all else that changes the answer."""

    folder: Path
    made_by: str
    colors: bool = True
    overlay: bool = True
    probabilities: bool = False
    frames: bool = False  # of films: class indices of each frame

    def state(self, one: Input) -> str:
        """Changes when the file, the weights, or the settings change."""
        about = one.path.stat()
        wanted = (self.colors, self.overlay, self.probabilities, self.frames)
        return hashlib.sha256(f"{about.st_size} {about.st_mtime_ns} {self.made_by} {wanted}".encode()).hexdigest()

    def text(self, one: Input) -> dict[str, str]:
        return {INPUT: named_in_text(one), STATE: self.state(one)}

    def paths(self, one: Input, space: LabelSpace) -> list[Path]:
        """All files of one input; the first is written last, and says of what it was made."""
        if one.is_film:
            return [self.folder / "overlay" / f"{one.name}{ending}" for ending in (".json", ".mp4")]
        found = [self.folder / f"{path}.png" for path in id_paths(one.name, space)]
        found += [self.folder / kind / f"{one.name}.png" for kind in ("colors", "overlay") if getattr(self, kind)]
        return found + [self.folder / "probabilities" / f"{one.name}.npz"] * self.probabilities


@dataclass
class Done:
    """What one process did. notes and problems: for people; pixels: of each class."""

    pixels: np.ndarray
    images: int = 0
    films: int = 0
    there: int = 0
    confidence: float = 0.0  # summed over images and frames
    seen: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, bands: Sequence[Band], space: LabelSpace) -> None:
        self.pixels = self.pixels + sum(pictures.pixels_per_class(band.labels, space) for band in bands)
        self.confidence += float(np.mean([band.confidence for band in bands]))
        self.seen += 1


def named_in_text(one: Input) -> str:
    """The path of an input below its base; bytes that are no UTF-8, which names of files may have, are spelt out."""
    return one.relative.as_posix().encode("utf-8", "backslashreplace").decode()


def said(path: Path) -> dict[str, str]:
    """What a result says of its making; empty where there is none or it is not ours."""
    with suppress(Exception):  # whatever a foreign file makes Pillow and json say
        if path.suffix == ".json":
            return dict(json.loads(path.read_text(encoding="utf-8")))
        with Image.open(path, formats=("PNG",)) as image:
            return {str(key): str(value) for key, value in image.info.items()}
    return {}


def own_names(inputs: Sequence[Input], outputs: Outputs, space: LabelSpace) -> list[Input]:
    """The inputs, with their ending in the name where the plain name holds the result of another input.

    Raises DataError where that is taken as well.
    """
    given = []
    taken = {one.name.lower() for one in inputs}
    for one in inputs:
        for name in (one.name, one.relative.as_posix()):
            one, plain = replace(one, name=name), one
            first = outputs.paths(one, space)[0]
            free = name == plain.name or name.lower() not in taken
            if free and (not first.exists() or said(first).get(INPUT) == named_in_text(one)):
                break
        else:
            what = f"is the result of something else; {plain.path} is not written over it."
            raise DataError(outputs.paths(one, space)[0], what, "Give another --out.")
        given.append(one)
    return given


def is_done(one: Input, outputs: Outputs, space: LabelSpace) -> bool:
    """Whether all results of an input are there, of this file, these weights and these settings."""
    first, *others = outputs.paths(one, space)
    if not first.exists() or not all(path.exists() for path in others):
        return False
    return one.path.exists() and said(first).get(STATE) == outputs.state(one)


def predict_all(
    predictor: Predictor, inputs: Sequence[Input], outputs: Outputs, *, batch: int = 1, workers: int = 4
) -> Done:
    """Segment this process's share of the inputs. A file that cannot be read is kept as a problem, and left out.

    Files are read and written by `workers` threads beside the network. Raises HrsegError where a result cannot be
    written.
    """
    space = predictor.space
    mine = inputs[distributed.rank() :: distributed.world_size()]
    done = Done(np.zeros(len(space.classes), np.int64))
    todo = [one for one in mine if not is_done(one, outputs, space)]
    done.there = len(mine) - len(todo)
    films = [one for one in todo if one.is_film]
    images = [one for one in todo if not one.is_film]
    bar = tqdm(total=len(todo), unit="image", desc="predicting", dynamic_ncols=True, leave=False,
               mininterval=0.2 if sys.stderr.isatty() else 10,
               disable=not (todo and distributed.is_main()))  # fmt: skip
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            _images(predictor, images, outputs, batch, pool, workers, done, bar)
            for one in films:
                with _problems(done, bar):
                    predict_film(predictor, one, outputs, batch, done, quiet=bool(bar.disable))
                    done.films += 1
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return done


class _problems:
    """A DataError inside is noted, not raised; the bar goes on by one."""

    def __init__(self, done: Done, bar: Any, images: int = 1):
        self.done, self.bar, self.images = done, bar, images

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, *_: object) -> bool:
        self.bar.update(self.images)
        if isinstance(error, DataError):
            self.done.problems.append(str(error))
            return True
        return False


def _show(bar: Any, done: Done, text: str = "") -> None:
    confidence = f"sure {done.confidence / max(1, done.seen):.2f}"
    bar.set_postfix_str(", ".join(filter(None, (confidence, text))), refresh=False)
    if not bar.disable and time.time() - bar.last_print_t >= bar.mininterval:
        bar.refresh()


def _images(
    predictor: Predictor,
    images: Sequence[Input],
    outputs: Outputs,
    batch: int,
    pool: ThreadPoolExecutor,
    workers: int,
    done: Done,
    bar: Any,
) -> None:
    def read(one: Input) -> tuple[ModelInput, np.ndarray | None]:
        seen = predictor.open(one.path)
        small = predictor.at_once(seen.size)  # others are decoded when their turn comes, one at a time
        return seen, seen.rows(0, seen.size[0]) if small else None

    def write(one: Input, size: tuple[int, int], bands: Sequence[Band]) -> None:
        with writer(one, size) as file:
            for band in bands:
                file.write(band)

    def writer(one: Input, size: tuple[int, int]) -> PredictionWriter:
        chosen = {name: getattr(outputs, name) for name in ("colors", "overlay", "probabilities")}
        return PredictionWriter(outputs.folder, one.name, predictor.space, size, text=outputs.text(one), **chosen)

    def answer(group: list[tuple[Input, ModelInput, np.ndarray]]) -> None:
        if not group:
            return
        bands = predictor.same_size([image for _, _, image in group], probabilities=outputs.probabilities)
        for (one, seen, _), band in zip(group, bands, strict=True):
            written.append(pool.submit(write, one, seen.size, [band]))
            finished(seen, [band])
        while len(written) > 2 * workers:
            written.popleft().result()

    def finished(seen: ModelInput, bands: Sequence[Band]) -> None:
        done.add(bands, predictor.space)
        done.images += 1
        done.notes.update(seen.notes)
        _show(bar, done)

    written: deque[Future] = deque()
    group: list[tuple[Input, ModelInput, np.ndarray]] = []
    for one, result in _ahead(read, images, pool, 2 * workers + batch):
        with _problems(done, bar):
            seen, image = result()
            if image is None:
                answer(group)
                group = []
                slim = []
                with writer(one, seen.size) as file:
                    for band in predictor.bands(seen, probabilities=outputs.probabilities):
                        file.write(band)
                        slim.append(band._replace(image=band.image[:0], probabilities=None))
                        share = (band.top + band.image.shape[0]) / seen.size[0]
                        _show(bar, done, f"{one.path.name} {share:.0%}")
                finished(seen, slim)
                continue
            if group and (group[0][2].shape != image.shape or group[0][2].dtype != image.dtype):
                answer(group)
                group = []
            group.append((one, seen, image))
            if len(group) == batch:
                answer(group)
                group = []
    answer(group)
    for future in written:
        future.result()


def _ahead(
    read: Callable[[Input], Any], inputs: Sequence[Input], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[Input, Callable[[], Any]]]:
    """Each input with a call that gives what was read of it, or raises; some are read before they are asked for."""
    waiting: deque[tuple[Input, Future]] = deque()
    for one in inputs:
        waiting.append((one, pool.submit(read, one)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result


def predict_film(
    predictor: Predictor, one: Input, outputs: Outputs, batch: int, done: Done, *, quiet: bool = False
) -> None:
    """A film with the classes over it, overlay/NAME.mp4 (without sound), and overlay/NAME.json: frames, class shares.

    quiet: without a bar over its frames.
    Raises DataError where it cannot be read, HrsegError where the result cannot be written.
    """
    film = cv2.VideoCapture(str(one.path), cv2.CAP_FFMPEG)
    expected, rate = int(film.get(cv2.CAP_PROP_FRAME_COUNT)), film.get(cv2.CAP_PROP_FPS)
    if not one.path.is_file() or not film.isOpened():
        raise DataError(one.path, "cannot be read as a film." if one.path.exists() else "no such file.")
    sidecar, path = outputs.paths(one, predictor.space)
    temporary = path.with_name(f".{os.getpid()}.tmp.mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = outputs.text(one)
    pixels, frames = np.zeros(len(predictor.space.classes), np.int64), 0
    drawn: cv2.VideoWriter | None = None
    bar = tqdm(total=expected if expected > 0 else None, unit="frame", desc=one.path.name, dynamic_ncols=True,
               leave=False, mininterval=0.2 if sys.stderr.isatty() else 10, disable=quiet)  # fmt: skip
    try:
        while images := _frames(film, batch):
            if drawn is None:
                height, width = images[0].shape[:2]
                fourcc = cv2.VideoWriter.fourcc(*"mp4v")
                drawn = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, fourcc, rate or 25.0, (width, height))
                if not drawn.isOpened():
                    raise HrsegError(path, "cannot be written.", "Free space there or choose another --out.")
            for image, band in zip(images, _answers(predictor, images), strict=True):
                drawn.write(cv2.cvtColor(pictures.overlay(image, band.labels, predictor.space), cv2.COLOR_RGB2BGR))
                if outputs.frames:
                    name = f"{one.name}/{frames:06}"
                    with PredictionWriter(
                        outputs.folder, name, predictor.space, image.shape[:2], colors=False, overlay=False
                    ) as file:
                        file.write(band)
                pixels += pictures.pixels_per_class(band.labels, predictor.space)
                done.add([band], predictor.space)
                frames += 1
                bar.update()
            _show(bar, done)
        if not frames:
            raise DataError(one.path, "holds no frame that can be decoded.")
        assert drawn is not None
        drawn.release()
        found = shares(pixels, frames * height * width, predictor.space)
        about = text | {"frames": frames, "frames_a_second": rate, "shares": found}
        temporary.replace(path)
        write_json(sidecar, about)
    finally:
        bar.close()
        film.release()
        if drawn is not None:
            drawn.release()
        temporary.unlink(missing_ok=True)
    if frames < expected - 1:
        done.notes[f"{one.path}: {frames} of the {expected} frames it announces could be read"] += 1


def _frames(film: cv2.VideoCapture, count: int) -> list[np.ndarray]:
    """The next frames, uint8 RGB [H, W, 3]; fewer at the end."""
    found = []
    for _ in range(count):
        there, frame = film.read()
        if not there:
            break
        found.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return found


def _answers(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Band]:
    seen = [predictor.open(image) for image in images]
    size = seen[0].size
    if predictor.at_once(size):
        return predictor.same_size([one.rows(0, size[0]) for one in seen])
    return [predictor.whole(one) for one in seen]


def require_free(legend: Path) -> None:
    """Raise DataError where a file that is no legend has its name."""
    if legend.exists() and LEGEND not in said(legend):
        raise DataError(legend, "is no legend of hrseg; it is not written over.", "Give another --out.")


def write_legend(path: Path, space: LabelSpace) -> None:
    """The classes beside their colours."""
    picture = pictures.legend({c.name: c.color for c in space.classes})
    with PngWriter(path, picture.shape[:2], RGB, text={LEGEND: "of classes.json"}) as file:
        file.write(picture)


def predict_everywhere(
    predictor: Predictor, inputs: Sequence[Input], outputs: Outputs, *, batch: int = 1, workers: int = 4
) -> list[Done]:
    """Segment the inputs with all processes, and write classes.json and legend.png; what each process did.

    Raises DataError where a result would replace a file that is not a result of the same input.
    """
    inputs = own_names(inputs, outputs, predictor.space)
    require_free(outputs.folder / "legend.png")
    distributed.barrier()  # names are found before any process writes
    parts = distributed.gather(predict_all(predictor, inputs, outputs, batch=batch, workers=workers))
    if distributed.is_main() and any(part.images or part.films or part.there for part in parts):
        write_json(outputs.folder / "classes.json", _classes(predictor.space))
        write_legend(outputs.folder / "legend.png", predictor.space)
    return parts


def made_by(checkpoints: Sequence[str | Path], predictor: Predictor) -> str:
    """Stands for the weights and all else that changes the answer."""
    sums = [sha256(find_file(source)) for source in checkpoints]
    return f"{sums} {predictor.inference} {predictor.short_side} {predictor.tile} {predictor.precision}"


def _classes(space: LabelSpace) -> dict[str, Any]:
    classes = [{"index": i, "name": c.name, "color": list(c.color)} for i, c in enumerate(space.classes)]
    return {"task": space.task.value, "classes": classes}


def summary(parts: Sequence[Done], outputs: Outputs, space: LabelSpace) -> str:
    """What was done and what was seen, of all processes."""
    images, films, there = (sum(getattr(part, name) for part in parts) for name in ("images", "films", "there"))
    made = [counted(number, noun) for number, noun in ((images, "image"), (films, "film")) if number]
    before = f", {there} {'was' if there == 1 else 'were'} there already" if there else ""
    lines = [f"{' and '.join(made) or 'nothing'} predicted{before}: {outputs.folder}"]
    pixels = np.sum([part.pixels for part in parts], axis=0)
    total = int(pixels.sum()) if space.task is not Task.MULTILABEL else 0
    if total:
        most = list(shares(pixels, total, space).items())[:5]
        lines.append("mostly " + ", ".join(f"{name} {share:.1%}" for name, share in most))
    notes: Counter[str] = sum((part.notes for part in parts), Counter())
    lines += [f"{count} of them: {note}" for note, count in notes.items()]
    return "\n".join(lines)
