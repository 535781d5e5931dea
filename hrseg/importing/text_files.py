"""JSON, XML, CSV and YAML of others: read within bounds, with errors that name the file. The door of defusedxml."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hrseg.errors import DataError, HrsegError, first_line
from hrseg.importing.records import Problem

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MOST_BYTES = 4 * 2**30  # of a text file
Model = TypeVar("Model", bound=BaseModel)


def missing_extra(package: str, extra: str) -> HrsegError:
    """The error where an optional package is not installed."""
    return HrsegError("hrseg import", f"needs {package}.", f"Install it with: pip install 'hrseg[{extra}]'")


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark. Raises DataError where it cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(path, f"is larger than {MOST_BYTES // 2**30} GiB.", "Export it in parts.")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(path, "no such file.") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise DataError(path, "is not a text file in UTF-8.") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file, not to be changed. Raises DataError where it is not JSON."""
    try:
        status = path.stat()
    except OSError:
        raise DataError(path, "no such file.") from None
    return _parsed(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=2)
def _parsed(path: Path, changed_ns: int, size: int) -> Any:
    """A file is looked at to see which format it has, and then read: it is parsed once."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError; so are numbers of 5000 digits
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise DataError(path, f"is not JSON: {reason}.", "Is it whole? Export it again.") from None


def read_xml(path: Path) -> Element:
    """The root of an XML file; entities are refused. Raises DataError where it is not XML."""
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise missing_extra("defusedxml", "import") from None
    try:
        return fromstring(read_text(path), forbid_dtd=True)
    except DefusedXmlException:
        raise DataError(path, "declares entities or a document type, which may do harm.", "Export it again.") from None
    except (ParseError, ValueError, RecursionError) as error:
        raise DataError(path, f"is not XML: {first_line(error)}.", "Is it whole? Export it again.") from None


def read_csv(path: Path, *, delimiter: str = ",") -> list[list[str]]:
    """The rows of a CSV file without spaces around the cells; empty rows are left out."""
    try:
        rows = csv.reader(io.StringIO(read_text(path)), delimiter=delimiter)
        return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(path, f"is not CSV: {first_line(error)}.") from None


def checked(model: type[Model], plain: Any, where: str) -> Model | Problem:
    """Plain values as a model, or the problem that says what does not fit."""
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        explained = (f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()[:3])
        return Problem(where, f"{'; '.join(explained)}.")


def required(model: type[Model], plain: Any, path: Path) -> Model:
    """The same for what the rest of a file depends on. Raises DataError."""
    found = checked(model, plain, str(path))
    if isinstance(found, Problem):
        raise DataError(path, found.what, "Is it of this format? --format says which one it is.")
    return found


def each(
    model: type[Model], plain: list[Any], path: Path, name: str, problems: list[Problem]
) -> Iterator[tuple[str, Model]]:
    """The entries of a list that fit the model, each with its place; a problem for each other one."""
    for number, entry in enumerate(plain):
        where = f"{path}, {name} {_entry_id(entry, number)}"
        found = checked(model, entry, where)
        if isinstance(found, Problem):
            problems.append(found._replace(kind="image") if name == "image" else found)
        else:
            yield where, found


def _entry_id(entry: Any, number: int) -> str:
    """The id of an entry where it has one, otherwise its number in the list."""
    known = entry.get("id") if isinstance(entry, dict) else None
    return f"id {known}" if isinstance(known, int | str) else f"number {number}"
