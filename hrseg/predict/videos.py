"""A video with the classes drawn over it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hrseg.console import progress
from hrseg.errors import DataError
from hrseg.files import whole_file, write_json
from hrseg.predict.bands import Band, class_shares
from hrseg.predict.films import WAY_OUT, Film, open_film
from hrseg.predict.input_files import Input
from hrseg.predict.outputs import Outputs
from hrseg.predict.predictor import Predictor
from hrseg.predict.tally import Tally, show_confidence
from hrseg.predict.writer import PredictionWriter
from hrseg.report import pictures
from hrseg.task import LabelSpace


def predict_video(
    predictor: Predictor, one: Input, outputs: Outputs, batch: int, tally: Tally, *, quiet: bool = False
) -> None:
    """A video with the classes over it, overlay/NAME.mp4 or .webm, and overlay/NAME.json: frames, class shares.

    quiet: no bar over its frames.
    Raises DataError where it cannot be read, HrsegError where the result cannot be written.
    """
    video = cv2.VideoCapture(str(one.path), cv2.CAP_FFMPEG)
    expected, rate = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    if not one.path.is_file() or not video.isOpened():
        raise DataError(one.path, "cannot be read as a video." if one.path.exists() else "no such file.")
    sidecar, path = outputs.paths(one, predictor.space)
    text = outputs.text(one)
    pixels, frames = np.zeros(len(predictor.space.classes), np.int64), 0
    film: Film | None = None
    bar = progress(expected if expected > 0 else None, one.path.name, "frame", shown=not quiet)
    try:
        with whole_file(path, way_out=WAY_OUT) as temporary:
            while read := _next_frames(video, batch):
                images, times = zip(*read, strict=True)
                if film is None:
                    height, width = images[0].shape[:2]
                    film = open_film(temporary, one.path, (height, width), rate or 25.0)
                if not frames:
                    tally.notes.update(predictor.model_input(images[0]).notes)
                for image, time_s, band in zip(images, times, _frame_bands(predictor, images), strict=True):
                    film.write(pictures.overlay(image, band.labels, predictor.space), time_s)
                    if outputs.frames:
                        _write_frame(outputs, f"{one.name}/{frames:06}", predictor.space, band)
                    pixels += pictures.pixels_per_class(band.labels, predictor.space)
                    tally.add([band], predictor.space)
                    frames += 1
                    bar.update()
                show_confidence(bar, tally)
            if film is None:
                raise DataError(one.path, "holds no frame that can be decoded.")
            about, film = film.close(), None
        found = class_shares(pixels, frames * height * width, predictor.space)
        write_json(sidecar, text | {"frames": frames, "frames_a_second": rate, "film": about, "shares": found})
        tally.notes[f"film written as {about}"] += 1
    finally:
        bar.close()
        video.release()
        if film is not None:
            film.discard()
    if frames < expected - 1:
        tally.notes[f"{one.path}: {frames} of the {expected} frames it announces could be read"] += 1


def _write_frame(outputs: Outputs, name: str, space: LabelSpace, band: Band) -> None:
    size = band.image.shape[:2]
    ids = outputs.label_ids
    with PredictionWriter(outputs.folder, name, space, size, colors=False, overlay=False, label_ids=ids) as writer:
        writer.write(band)


def _next_frames(video: cv2.VideoCapture, count: int) -> list[tuple[np.ndarray, float]]:
    """The next frames, uint8 RGB [H, W, 3], and their times in seconds; fewer at the end."""
    found: list[tuple[np.ndarray, float]] = []
    while len(found) < count:
        there, frame = video.read()
        if not there:
            break
        found.append((cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), video.get(cv2.CAP_PROP_POS_MSEC) / 1000))
    return found


def _frame_bands(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Band]:
    seen = [predictor.model_input(image) for image in images]
    size = seen[0].size
    if predictor.fits_one_pass(size):
        return predictor.batch_bands([one.rows(0, size[0]) for one in seen])
    return [predictor.whole_band(one) for one in seen]
