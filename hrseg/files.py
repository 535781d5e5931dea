"""Files that are written whole or not at all; text of other systems, and names of files as text."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import os
import unicodedata
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
    """Write a text file in UTF-8, whole or not at all; bytes of a file name that are no text are written escaped.

    Raises HrsegError where it cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """The same with JSON, which has no NaN."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False))


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 with its mark (as PowerShell writes it); without the mark (BOM).

    Raises OSError, and UnicodeDecodeError for a file in another encoding.
    """
    return decoded_text(path.read_bytes())


def decoded_text(content: bytes) -> str:
    """The same of a file's bytes."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def name_as_text(name: str) -> str:
    """The name of a file, as the system gives it, as text that can be shown, hashed and written anywhere.

    Letters are composed (Unicode NFC): file systems of macOS give the same name in another form. Bytes that are not
    UTF-8 become `\\xe9`. The result is the same in every locale.
    """
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def text_as_name(text: str) -> str:
    """Text as the name of a file that can be made in every locale: the bytes of the name are its UTF-8."""
    return text if text.isascii() else os.fsdecode(text.encode("utf-8", "backslashreplace"))


def spelled_out(text: str) -> str:
    """Text in which everything that the eye cannot see, or takes for a part of another letter, is escaped."""
    visible = ("L", "N", "P", "S")  # letters, numbers, punctuation, symbols; not marks, spaces, controls, surrogates
    shown = (
        c if c == " " or unicodedata.category(c)[0] in visible else c.encode("unicode_escape").decode() for c in text
    )
    return "".join(shown)
