"""Many names or paths in two blocks of memory, instead of one object for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np

T = TypeVar("T")
BLOCK = 4096  # strings that are decoded at a time
ENCODING = ("utf-8", "surrogatepass")  # holds any string, in any locale


class CompactStrings(Sequence[T], Generic[T]):
    """A read-only sequence of strings, or of what `convert` makes of each when it is asked for.

    A forked process that reads a Python object writes its reference count, and so copies the page it lies on: a list of
    200 000 paths would be copied, bit by bit, into every worker. Here there is nothing to count.
    """

    def __init__(self, values: Iterable[Any], convert: Callable[[str], T]):
        self._text, self._convert = "\0".join([*map(os.fspath, values), ""]).encode(*ENCODING), convert
        ends = np.flatnonzero(np.frombuffer(self._text, np.uint8) == 0)  # no name or path contains a zero byte
        self._starts = np.concatenate([[0], ends + 1])

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        if isinstance(i, slice):
            return [self[place] for place in range(*i.indices(len(self)))]
        place = range(len(self))[i]  # counts from the end where negative; IndexError outside
        return self._convert(self._text[self._starts[place] : self._starts[place + 1] - 1].decode(*ENCODING))

    def __iter__(self) -> Iterator[T]:
        return map(self._convert, self.strings())

    def strings(self) -> Iterator[str]:
        """All of them as plain strings, without `convert`."""
        for first in range(0, len(self), BLOCK):
            last = min(first + BLOCK, len(self))
            yield from self._text[self._starts[first] : self._starts[last] - 1].decode(*ENCODING).split("\0")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


def _equal(one: object, other: object) -> bool:
    return one == other


def plain_strings(values: Sequence[str | Path]) -> Iterable[str | Path]:
    """The names or paths of a sequence; as strings, without a Path for each, if it is compact."""
    return values.strings() if isinstance(values, CompactStrings) else values


def compact_names(values: Iterable[str]) -> CompactStrings[str]:
    return CompactStrings(values, str)


def compact_paths(values: Iterable[str | Path]) -> CompactStrings[Path]:
    return CompactStrings(values, Path)
