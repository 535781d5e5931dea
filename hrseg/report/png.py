"""A PNG written band by band, for pictures that do not fit into memory; written whole or not at all."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hrseg.files import whole_file

GREY, RGB, PALETTE = 0, 2, 3  # colour types (RFC 2083, section 4.1.1)
_UP = b"\2"  # the filter of each row: what differs from the row above, which in label maps is little
_LEVEL = 3


class PngWriter:
    """Writes rows to a temporary file, which `close` renames. As a context, it leaves nothing after an error.

    color: GREY (8 bits; 16 for uint16 rows), RGB or PALETTE, which needs `palette`, uint8 [n, 3]. text: short notes, by
    keyword, kept in the file.
    Raises HrsegError where the disk is full or the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        color: int,
        *,
        bits: int = 8,
        palette: np.ndarray | None = None,
        text: Mapping[str, str] | None = None,
    ):
        self.path = path
        self._above: np.ndarray | None = None
        self._zip = zlib.compressobj(_LEVEL)
        with contextlib.ExitStack() as opened:
            temporary = opened.enter_context(whole_file(path, way_out="Free space there or choose another --out."))
            self._file = opened.enter_context(temporary.open("wb"))
            self._opened = opened.pop_all()
        self._raw(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], bits, color, 0, 0, 0))
        if palette is not None:
            self._chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        for key, value in (text or {}).items():  # before the pixels, so that a reader finds it without decoding
            self._chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + value.encode())

    def write(self, rows: np.ndarray) -> None:
        """The next rows: uint8 or uint16 [h, W], or uint8 [h, W, 3]."""
        values = rows.astype(">u2") if rows.dtype == np.uint16 else rows
        data = np.ascontiguousarray(values).view(np.uint8).reshape(len(rows), -1)
        above = np.zeros((1, data.shape[1]), np.uint8) if self._above is None else self._above
        filtered = np.empty((len(data), data.shape[1] + 1), np.uint8)
        filtered[:, 0] = _UP[0]
        np.subtract(data[:1], above, out=filtered[:1, 1:])
        np.subtract(data[1:], data[:-1], out=filtered[1:, 1:])
        self._above = data[-1:].copy()
        self._chunk(b"IDAT", self._zip.compress(filtered.data), keep_empty=False)

    def close(self) -> None:
        """All rows are there: finish the file and give it its name."""
        self._chunk(b"IDAT", self._zip.flush())
        self._chunk(b"IEND", b"")
        self._opened.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._fail(Exception("discarded"))

    def _fail(self, error: BaseException) -> None:
        """Delete the temporary file. Raises HrsegError where writing failed."""
        self._opened.__exit__(type(error), error, error.__traceback__)

    def __enter__(self) -> PngWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def _chunk(self, kind: bytes, data: bytes, *, keep_empty: bool = True) -> None:
        if data or keep_empty:
            self._raw(struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

    def _raw(self, *parts: bytes) -> None:
        try:
            for part in parts:
                self._file.write(part)
        except OSError as error:
            self._fail(error)
