"""A video with the classes drawn over it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hrseg.console import progress
from hrseg.errors import DataError, HrsegError
from hrseg.files import whole_file, write_json
from hrseg.predict.bands import Band, class_shares
from hrseg.predict.input_files import Input
from hrseg.predict.outputs import Outputs
from hrseg.predict.predictor import Predictor
from hrseg.predict.tally import Tally, show_confidence
from hrseg.predict.writer import PredictionWriter
from hrseg.report import pictures
from hrseg.task import LabelSpace

WAY_OUT = "Free space there or choose another --out."


def predict_video(
    predictor: Predictor, one: Input, outputs: Outputs, batch: int, tally: Tally, *, quiet: bool = False
) -> None:
    """A video with the classes over it, overlay/NAME.mp4 (without sound), and overlay/NAME.json: frames, class shares.

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
    drawn: cv2.VideoWriter | None = None
    bar = progress(expected if expected > 0 else None, one.path.name, "frame", shown=not quiet)
    try:
        with whole_file(path, way_out=WAY_OUT) as temporary:
            while images := _next_frames(video, batch):
                if drawn is None:
                    height, width = images[0].shape[:2]
                    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
                    drawn = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, fourcc, rate or 25.0, (width, height))
                    if not drawn.isOpened():
                        raise HrsegError(path, "cannot be written.", WAY_OUT)
                for image, band in zip(images, _frame_bands(predictor, images), strict=True):
                    overlay = pictures.overlay(image, band.labels, predictor.space)
                    drawn.write(cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
                    if outputs.frames:
                        _write_frame(outputs, f"{one.name}/{frames:06}", predictor.space, band)
                    pixels += pictures.pixels_per_class(band.labels, predictor.space)
                    tally.add([band], predictor.space)
                    frames += 1
                    bar.update()
                show_confidence(bar, tally)
            if drawn is None:
                raise DataError(one.path, "holds no frame that can be decoded.")
            drawn.release()
        found = class_shares(pixels, frames * height * width, predictor.space)
        write_json(sidecar, text | {"frames": frames, "frames_a_second": rate, "shares": found})
    finally:
        bar.close()
        video.release()
        if drawn is not None:
            drawn.release()
    if frames < expected - 1:
        tally.notes[f"{one.path}: {frames} of the {expected} frames it announces could be read"] += 1


def _write_frame(outputs: Outputs, name: str, space: LabelSpace, band: Band) -> None:
    size = band.image.shape[:2]
    with PredictionWriter(outputs.folder, name, space, size, colors=False, overlay=False) as writer:
        writer.write(band)


def _next_frames(video: cv2.VideoCapture, count: int) -> list[np.ndarray]:
    """The next frames, uint8 RGB [H, W, 3]; fewer at the end."""
    images = []
    for _ in range(count):
        there, frame = video.read()
        if not there:
            break
        images.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return images


def _frame_bands(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Band]:
    seen = [predictor.model_input(image) for image in images]
    size = seen[0].size
    if predictor.fits_one_pass(size):
        return predictor.batch_bands([one.rows(0, size[0]) for one in seen])
    return [predictor.whole_band(one) for one in seen]
