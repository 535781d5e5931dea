"""Files that are whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hrseg.errors import HrsegError


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary one beside it, then renamed. Its folder is made.

    Raises HrsegError where it cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        way_out = "Make room there, give leave to write, or choose another place."
        raise HrsegError(path, f"cannot be written: {error.strerror}.", way_out) from error


def write_json(path: Path, content: Any) -> None:
    """The same with JSON, which has no NaN."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False))
