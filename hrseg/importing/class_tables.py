"""Tables of classes in CSV or JSON: a name, and the colour or the value that it has in masks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hrseg.errors import DataError
from hrseg.importing.records import Color
from hrseg.importing.text_files import read_csv, read_json

IGNORED_NAMES = ("ignore", "ignored", "__ignore__", "void")
WAY_OUT = 'For example lines of name,red,green,blue or of name,value; or JSON: {"road": [128, 64, 128]}.'


class Entry(NamedTuple):
    """One class: its colour or its value."""

    name: str
    color: Color | None = None
    value: int | None = None

    @property
    def ignored(self) -> bool:
        return self.name.lower() in IGNORED_NAMES


def read_table(path: Path) -> list[Entry]:
    """The classes of a table. Raises DataError where it is none, or where two have the same name, colour or value."""
    rows = _json_rows(path, read_json(path)) if path.suffix.lower() == ".json" else _csv_rows(path)
    entries = [_entry(path, row) for row in rows]
    if not entries:
        raise DataError(path, "lists no classes.", WAY_OUT)
    if len({entry.color is None for entry in entries}) > 1:
        raise DataError(path, "gives some classes a colour, others a value.", WAY_OUT)
    names = [entry.name for entry in entries]
    meant = [(entry.color, entry.value) for entry in entries]
    if len(set(names)) < len(names) or len(set(meant)) < len(meant):
        twice = next(e for e in entries if names.count(e.name) > 1 or meant.count((e.color, e.value)) > 1)
        raise DataError(path, f"the name, colour or value of {twice.name} is that of another class too.")
    return entries


def _csv_rows(path: Path) -> Iterable[list[Any]]:
    rows = read_csv(path)
    if rows and len(rows[0]) == 1:
        rows = read_csv(path, delimiter=";")
    if rows and not any(_is_number(cell) or hexadecimal(cell) for cell in rows[0]):
        rows = rows[1:]  # the heads of the columns
    return rows


def _json_rows(path: Path, plain: Any) -> Iterable[list[Any]]:
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield [key, *value] if isinstance(value, list) else [key, value]
        return
    if not isinstance(plain, list):
        raise DataError(path, "is not a table of classes.", WAY_OUT)
    for entry in plain:
        if not isinstance(entry, dict):
            raise DataError(path, f"has an entry that is not a class: {str(entry)[:60]}.", WAY_OUT)
        meant = next((entry[key] for key in ("color", "colour", "rgb", "value", "id") if key in entry), None)
        yield [entry.get("name") or entry.get("label"), *(meant if isinstance(meant, list) else [meant])]


def _entry(path: Path, row: list[Any]) -> Entry:
    cells = [str(cell).strip() for cell in row if cell is not None]
    numbers = [int(cell) for cell in cells if _is_number(cell)]
    colors = [color for cell in cells if (color := hexadecimal(cell))]
    names = [cell for cell in cells if cell and not _is_number(cell) and not hexadecimal(cell)]
    if len(names) >= 1 and max(numbers, default=0) < 65536:
        if colors:
            return Entry(names[0], color=colors[0])
        if len(numbers) in (3, 4) and max(numbers) < 256:  # the fourth: opacity
            return Entry(names[0], color=(numbers[0], numbers[1], numbers[2]))
        if len(numbers) == 1:
            return Entry(names[0], value=numbers[0])
    raise DataError(path, f"has a row that is not a class: {', '.join(cells)[:80]}.", WAY_OUT)


def _is_number(cell: Any) -> bool:
    return re.fullmatch(r"\d{1,9}", str(cell)) is not None


def hexadecimal(cell: Any) -> Color | None:
    """The colour of #rrggbb; None for anything else."""
    found = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", str(cell))
    return (int(found[1], 16), int(found[2], 16), int(found[3], 16)) if found else None
