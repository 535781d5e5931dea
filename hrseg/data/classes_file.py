"""classes.yaml: the classes of a folder of images, and the values and colours that they have in its masks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hrseg.config import read_yaml_as_text
from hrseg.errors import ConfigError, DataError

Color = tuple[int, int, int]
LARGEST_ID = 2**31 - 1
NULL = ("", "~", "null", "Null", "NULL")  # of YAML
SYNTAX = (
    "It is a list of names, [road, sky], or of entries, {name: road, id: 7, color: [128, 64, 128]}; "
    "id may be a list of values."
)


class ClassEntry(NamedTuple):
    """A class: its name, its values in masks (the first is written; none: its position), its colour, if it has one."""

    name: str
    values: tuple[int, ...] = ()
    color: Color | None = None


class ClassesFile(NamedTuple):
    """The content of classes.yaml. ignored_values, ignored_colors: of pixels that do not count.

    Three numbers under `ignore` are in both: three values in masks of ids, one colour in masks of colours.
    """

    classes: tuple[ClassEntry, ...]
    ignored_values: tuple[int, ...] = ()
    ignored_colors: tuple[Color, ...] = ()

    @property
    def all_have_colors(self) -> bool:
        return all(entry.color is not None for entry in self.classes)


def read_classes_file(path: Path) -> ClassesFile:
    """The classes as the file has them, each name as it is written. Raises DataError with all that is wrong in it."""
    try:
        plain = read_yaml_as_text(path)
    except ConfigError as error:
        raise DataError(error.where, error.what, error.way_out) from None
    reading = _Reading()
    file = reading.file(plain)
    if reading.problems:
        raise DataError(path, "; ".join(reading.problems) + ".", SYNTAX)
    return file


class _Reading:
    """Reads the parts of the file, all scalars being text, and notes in `problems` what they should not be."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def file(self, plain: Any) -> ClassesFile:
        listed, ignore = plain, None
        if isinstance(plain, dict) and "classes" in plain:
            self._known_keys("", plain, ("classes", "ignore"))
            listed, ignore = plain["classes"], plain.get("ignore")
        if isinstance(listed, dict):
            entries = self._mapping(listed)
        elif isinstance(listed, list):
            entries = [self._entry(f"class {i}", entry) for i, entry in enumerate(listed)]
        else:
            self.problems.append("has no list of classes")
            return ClassesFile(())
        if not entries:
            self.problems.append("classes: the list is empty")
        return ClassesFile(tuple(entries), *self._ignored(ignore))

    def _mapping(self, listed: Mapping[str, Any]) -> list[ClassEntry]:
        """{0: road, 1: sky}, or {road: 0, sky: 1}."""
        if all(_whole(key) is not None for key in listed):
            entries = [self._entry(f"class {key}", entry) for key, entry in listed.items()]
            if any(entry.values for entry in entries):
                self.problems.append("a class has an id twice: before the colon and as id")
            return [entry._replace(values=(int(key),)) for key, entry in zip(listed, entries, strict=True)]
        if all(isinstance(value, str) and _whole(value) is not None for value in listed.values()):
            return [ClassEntry(key, (_id(value),)) for key, value in listed.items()]
        known = ("classes", "ignore")
        near = next((key for key in listed if difflib.get_close_matches(key, known, n=1, cutoff=0.7)), None)
        guess = f": '{near}' is misspelt" if near else ""
        self.problems.append(f"has neither a list of classes nor a table from ids to names{guess}")
        return [ClassEntry("?")]

    def _entry(self, where: str, plain: Any) -> ClassEntry:
        if isinstance(plain, str):
            if plain in NULL:
                self.problems.append(f"{where} has no name")
            return ClassEntry(plain)
        if not isinstance(plain, dict):
            self.problems.append(f"{where} is neither a name nor an entry with a name: {_shown(plain)}")
            return ClassEntry("?")
        self._known_keys(where, plain, ("name", "id", "color"))
        name = plain.get("name")
        if not isinstance(name, str) or name in NULL:
            self.problems.append(f"{where} has no name")
            name = "?"
        values, color = plain.get("id"), plain.get("color")
        return ClassEntry(
            name,
            () if _is_null(values) else self._values(f"{where}, id", values),
            None if _is_null(color) else self._color(f"{where}, color", color),
        )

    def _known_keys(self, where: str, plain: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in plain:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                guess = f", did you mean '{close[0]}'?" if close else ""
                self.problems.append(f"{where}{', ' if where else ''}'{key}' is no key{guess or ' of it'}")

    def _values(self, where: str, plain: Any) -> tuple[int, ...]:
        parts = plain if isinstance(plain, list) else [plain]
        values = [_whole(part) for part in parts]
        if not parts or None in values:
            self.problems.append(f"{where} is {_shown(plain)}, not a whole number or a list of them")
            return ()
        return tuple(dict.fromkeys(value for value in values if value is not None))

    def _color(self, where: str, plain: Any) -> Color | None:
        parts = [_whole(part) for part in plain] if isinstance(plain, list) else []
        if len(parts) != 3 or any(part is None or not 0 <= part <= 255 for part in parts):
            self.problems.append(f"{where} is {_shown(plain)}, not red, green and blue from 0 to 255")
            return None
        return tuple(int(part) for part in parts if part is not None)  # type: ignore[return-value]  # three of them

    def _ignored(self, plain: Any) -> tuple[tuple[int, ...], tuple[Color, ...]]:
        if _is_null(plain):
            return (), ()
        parts = plain if isinstance(plain, list) else [plain]
        numbers = [part for part in parts if not isinstance(part, list)]
        values = self._values("ignore", numbers) if numbers else ()
        colors = [self._color("ignore", part) for part in parts if isinstance(part, list)]
        if not colors and isinstance(plain, list) and len(plain) == 3 and all(0 <= value <= 255 for value in values):
            colors = [self._color("ignore", plain)] if values else []
        return values, tuple(color for color in colors if color is not None)


def _whole(plain: Any) -> int | None:
    """A whole number that a text stands for; None for any other text."""
    try:
        number = float(plain) if not plain.lower().startswith("0x") else int(plain, 16)
    except (ValueError, AttributeError):
        return None
    return int(number) if abs(number) <= LARGEST_ID and number == int(number) else None


def _id(text: str) -> int:
    value = _whole(text)
    assert value is not None  # it was asked before
    return value


def _is_null(plain: Any) -> bool:
    return plain is None or (isinstance(plain, str) and plain in NULL)


def _shown(plain: Any) -> str:
    text = str(plain).replace("'", "") if isinstance(plain, list | dict) else f"'{plain}'"
    return text if len(text) < 60 else f"{text[:57]}..."
