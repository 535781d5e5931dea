"""Films written frame by frame: H.264 with the sound of the source where PyAV is installed, else VP9 in WebM."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from hrseg.errors import HrsegError, first_line

CLOCK = 90_000  # ticks a second in which H.264 films tell the time of a frame: fits the usual rates, 29.97 too
KEPT_SOUND = ("aac", "mp3", "ac3")  # formats that MP4 holds and players know; other sound is written as AAC
WAY_OUT = "Free space there or choose another --out."


class Film(Protocol):
    """A film that is being written, frame by frame."""

    def write(self, frame: np.ndarray, time_s: float) -> None:
        """The next frame, uint8 RGB [H, W, 3], and when it is shown."""

    def close(self) -> str:
        """All frames are there. Returns what was written, for a person: codec, and whether there is sound."""

    def discard(self) -> None:
        """Leave it unfinished."""


@functools.cache
def film_ending() -> str:
    """.mp4 where H.264 can be written, else .webm."""
    try:
        import av
    except ImportError:
        return ".webm"
    return ".mp4" if "libx264" in av.codecs_available else ".webm"


def open_film(path: Path, source: Path, size: tuple[int, int], rate: float) -> Film:
    """A film of the kind that `film_ending` names. source: the film whose sound is kept. size: (height, width).

    A side with an odd number of pixels gets one more: both formats halve the colours.
    Raises HrsegError where it cannot be written.
    """
    size = size[0] + size[0] % 2, size[1] + size[1] % 2
    return H264Film(path, source, size, rate) if film_ending() == ".mp4" else WebmFilm(path, size, rate)


class H264Film:
    """H.264 in MP4, which browsers, phones and office programs play, with the first sound track of the source."""

    def __init__(self, path: Path, source: Path, size: tuple[int, int], rate: float):
        import av

        self._av, self._path, self._size, self._last = av, path, size, -1
        with self._errors_as_messages():
            self._file = av.open(str(path), "w", options={"movflags": "+faststart"})
            self._stream: Any = self._file.add_stream("libx264", rate=Fraction(rate).limit_denominator(CLOCK))
            self._stream.height, self._stream.width = size
            self._stream.pix_fmt, self._stream.options = "yuv420p", {"crf": "20", "preset": "veryfast"}
            self._stream.codec_context.time_base = Fraction(1, CLOCK)
            self._sound = _Sound(av, source, self._file)

    def write(self, frame: np.ndarray, time_s: float) -> None:
        with self._errors_as_messages():
            picture = self._av.VideoFrame.from_ndarray(_enlarged(frame, self._size), format="rgb24")
            self._last = picture.pts = max(self._last + 1, round(time_s * CLOCK))
            picture.time_base = Fraction(1, CLOCK)
            self._file.mux(self._stream.encode(picture))
            self._sound.write_until(time_s)

    def close(self) -> str:
        with self._errors_as_messages():
            self._file.mux(self._stream.encode(None))
            self._sound.write_until(float("inf"))
            self._file.close()
        self._sound.close()
        return f"H.264 in MP4, {self._sound.about}"

    def discard(self) -> None:
        with contextlib.suppress(self._av.FFmpegError):
            self._file.close()
        self._sound.close()

    @contextlib.contextmanager
    def _errors_as_messages(self) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            raise HrsegError(self._path, f"cannot be written: {first_line(error)}.", WAY_OUT) from error


class _Sound:
    """The first sound track of a film, copied packet by packet into another film beside its frames."""

    def __init__(self, av: Any, source: Path, file: Any):
        self._av, self._file = av, file
        self._source: Any = None
        self._ahead: Any = None
        self._packets: Iterator[Any] = iter(())
        self.about = "its source has no sound"
        try:
            self._source = av.open(str(source))
        except av.FFmpegError as error:
            self.about = f"without sound: {first_line(error)}"
        if self._source is None or not self._source.streams.audio:
            return
        heard = self._source.streams.audio[0]
        if heard.codec_context.codec.canonical_name in KEPT_SOUND:
            self._track = file.add_stream_from_template(heard)
        else:
            self._track = file.add_stream("aac", rate=heard.codec_context.sample_rate)
        self.about, self._packets = "with its sound", self._read(heard)

    def write_until(self, time_s: float) -> None:
        """Write what is heard before a time."""
        while True:
            try:
                packet, self._ahead = self._ahead or next(self._packets), None
            except StopIteration:
                return
            if packet.dts is not None and packet.dts * packet.time_base > time_s:
                self._ahead = packet
                return
            self._file.mux(packet)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    def _read(self, heard: Any) -> Iterator[Any]:
        """The packets of the new track; a track that is damaged ends there."""
        seen = self._source.streams.video[0]
        # Frames are counted from the first one of the source, so sound is too.
        start = round((seen.start_time or 0) * seen.time_base / heard.time_base)
        try:
            if heard.codec_context.codec.canonical_name in KEPT_SOUND:
                for packet in self._source.demux(heard):
                    if packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, self._track
                        yield packet
                return
            for frame in self._source.decode(heard):
                frame.pts = None if frame.pts is None else frame.pts - start
                yield from self._track.encode(frame)
            yield from self._track.encode(None)
        except self._av.FFmpegError as error:
            self.about = f"with its sound as far as it can be read ({first_line(error)})"


class WebmFilm:
    """VP9 in WebM, which browsers play, by OpenCV; without sound."""

    def __init__(self, path: Path, size: tuple[int, int], rate: float):
        self._size = size
        self._file = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"vp09"), rate, size[::-1])
        if not self._file.isOpened():
            raise HrsegError(path, "cannot be written as VP9 in WebM.", WAY_OUT)

    def write(self, frame: np.ndarray, time_s: float) -> None:
        self._file.write(cv2.cvtColor(_enlarged(frame, self._size), cv2.COLOR_RGB2BGR))

    def close(self) -> str:
        self._file.release()
        return "VP9 in WebM, without sound; pip install 'hrseg[video]' for H.264 with sound"

    def discard(self) -> None:
        self._file.release()


def _enlarged(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frame at a size that is at most a pixel larger, its last row and column repeated."""
    more = [(0, side - own) for side, own in zip(size, frame.shape, strict=False)]
    return np.ascontiguousarray(np.pad(frame, (*more, (0, 0)), mode="edge"))
