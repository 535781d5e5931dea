"""Errors in what the user gave: where, what is wrong, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HrsegError(Exception):
    """Bad input: the commands print the message and end with exit code 2, without a traceback.

    where: a file, a dotted setting or both. what: what is wrong there. way_out: what to do about it.
    """

    def __init__(self, where: object, what: str, way_out: str = ""):
        self.where, self.what, self.way_out = str(where), what, way_out
        super().__init__(where, what, way_out)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.way_out}" if self.way_out else "")


class ConfigError(HrsegError):
    """A setting is misspelt, of the wrong type, or does not fit the others."""


class DataError(HrsegError):
    """A data set, an image or a mask cannot be used."""


class WeightsError(HrsegError):
    """A checkpoint or a set of pretrained weights does not fit the model."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name, where there is one, and lists the others."""
    known = sorted({str(k) for k in known})
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    guess = f"Did you mean '{close[0]}'? " if close else ""
    return f"{guess}Known: {', '.join(known) if known else 'none'}."


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop, or the error's type where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
