"""Images, folders and videos to result files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hrseg import distributed
from hrseg.console import progress
from hrseg.data.images.large_images import ModelInput, Rows
from hrseg.files import write_json
from hrseg.made_files import require_replaceable
from hrseg.predict.bands import Band, different_notes
from hrseg.predict.input_files import Input
from hrseg.predict.outputs import (
    Outputs,
    classes_to_plain,
    is_complete,
    require_own_legend,
    with_free_names,
    write_legend,
)
from hrseg.predict.predictor import Predictor
from hrseg.predict.tally import Tally, noted_problems, show_confidence
from hrseg.predict.videos import predict_video
from hrseg.predict.writer import PredictionWriter
from hrseg.weights.source import find_file, sha256


def predict_files(
    predictor: Predictor, inputs: Sequence[Input], outputs: Outputs, *, batch: int = 1, workers: int = 4
) -> list[Tally]:
    """Segment the inputs with all processes, and write classes.json and legend.png; what each process did.

    Raises DataError where a result would replace a file that is not a result of the same input.
    """
    inputs = with_free_names(inputs, outputs, predictor.space)
    require_own_legend(outputs.folder / "legend.png")
    require_replaceable(outputs.folder / "classes.json")
    distributed.barrier()  # names are found before any process writes
    parts = distributed.gather(predict_share(predictor, inputs, outputs, batch=batch, workers=workers))
    if distributed.is_main() and any(part.images or part.videos or part.already_there for part in parts):
        write_json(outputs.folder / "classes.json", classes_to_plain(predictor.space, ids=outputs.label_ids))
        write_legend(outputs.folder / "legend.png", predictor.space)
    return parts


def made_by(checkpoints: Sequence[str | Path], predictor: Predictor) -> str:
    """Stands for the weights and all else that changes the answer."""
    sums = [sha256(find_file(source)) for source in checkpoints]
    sure = "" if predictor.sure is None else f" sure {predictor.sure}"
    return f"{sums} {predictor.inference} {predictor.short_side} {predictor.tile} {predictor.precision}{sure}"


def predict_share(
    predictor: Predictor, inputs: Sequence[Input], outputs: Outputs, *, batch: int = 1, workers: int = 4
) -> Tally:
    """Segment this process's share of the inputs. A file that cannot be read is kept as a problem, and left out.

    Files are read and written by `workers` threads beside the network. Raises HrsegError where a result cannot be
    written.
    """
    space = predictor.space
    mine = inputs[distributed.rank() :: distributed.world_size()]
    tally = Tally(np.zeros(len(space.classes), np.int64))
    todo = [one for one in mine if not is_complete(one, outputs, space)]
    tally.already_there = len(mine) - len(todo)
    videos = [one for one in todo if one.is_video]
    images = [one for one in todo if not one.is_video]
    bar = progress(len(todo), "predicting", "image", shown=bool(todo) and distributed.is_main())
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            _predict_images(predictor, images, outputs, batch, pool, workers, tally, bar)
            for one in videos:
                with noted_problems(tally, bar):
                    predict_video(predictor, one, outputs, batch, tally, quiet=bool(bar.disable))
                    tally.videos += 1
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tally


def _predict_images(
    predictor: Predictor,
    images: Sequence[Input],
    outputs: Outputs,
    batch: int,
    pool: ThreadPoolExecutor,
    workers: int,
    tally: Tally,
    bar: tqdm,
) -> None:
    def read(one: Input) -> tuple[ModelInput, Rows | None]:
        seen = predictor.model_input(one.path)
        small = predictor.fits_one_pass(seen.size)  # others are decoded when their turn comes, one at a time
        return seen, seen.rows(0, seen.size[0]) if small else None

    def write(one: Input, seen: ModelInput, bands: Sequence[Band]) -> None:
        with writer(one, seen) as file:
            for band in bands:
                file.write(band)

    def writer(one: Input, seen: ModelInput) -> PredictionWriter:
        chosen = {name: getattr(outputs, name) for name in ("colors", "overlay", "probabilities", "label_ids", "masks")}
        chosen["nodata"] = seen.may_lack_data or predictor.sure is not None
        return PredictionWriter(outputs.folder, one.name, predictor.space, seen.size, text=outputs.text(one), **chosen)

    def answer(group: list[tuple[Input, ModelInput, Rows]]) -> None:
        if not group:
            return
        bands = predictor.batch_bands([whole for _, _, whole in group], probabilities=outputs.probabilities)
        for (one, seen, _), band in zip(group, bands, strict=True):
            written.append(pool.submit(write, one, seen, [band]))
            finished(seen, [band])
        while len(written) > 2 * workers:
            written.popleft().result()

    def finished(seen: ModelInput, bands: Sequence[Band]) -> None:
        tally.add(bands, predictor.space)
        tally.images += 1
        tally.notes.update((*seen.notes, *different_notes(bands)))
        show_confidence(bar, tally)

    written: deque[Future] = deque()
    group: list[tuple[Input, ModelInput, Rows]] = []
    for one, result in _read_ahead(read, images, pool, 2 * workers + batch):
        with noted_problems(tally, bar):
            seen, whole = result()
            if whole is None:
                answer(group)
                group = []
                slim = []
                with writer(one, seen) as file:
                    for band in predictor.bands(seen, probabilities=outputs.probabilities):
                        file.write(band)
                        slim.append(band._replace(image=band.image[:0], probabilities=None))
                        share = (band.top + band.image.shape[0]) / seen.size[0]
                        show_confidence(bar, tally, f"{one.path.name} {share:.0%}")
                finished(seen, slim)
                continue
            if group and not _alike(group[0][2].image, whole.image):
                answer(group)
                group = []
            group.append((one, seen, whole))
            if len(group) == batch:
                answer(group)
                group = []
    answer(group)
    for future in written:
        future.result()


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _read_ahead(
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
