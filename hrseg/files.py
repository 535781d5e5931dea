"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hrseg.errors import HrsegError, first_line

_numbers = itertools.count()


@contextlib.contextmanager
def whole_file(
    path: Path, *, way_out: str = "Make room there, allow writing, or choose another place."
) -> Iterator[Path]:
    """A temporary path beside `path`, with its ending, to write to.

    When the block ends, the temporary file takes the place of `path`; after an error it is deleted and `path` is as it
    was. The folder is made. Raises HrsegError with `way_out` where the file cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}-{next(_numbers)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise HrsegError(path, f"cannot be written: {error.strerror or first_line(error)}.", way_out) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises HrsegError where it cannot be written."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """The same with JSON, which has no NaN."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False))
