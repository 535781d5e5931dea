"""The tables of settings on docs/configuration.md, printed from the schema."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hrseg.config.schema import Config, TypeName
from hrseg.config.yaml_files import yaml_text
from hrseg.errors import HrsegError

TYPE_NAMES = {bool: "true, false", int: "integer", float: "number", str: "text", Path: "path", dict: "settings"}
BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
BLOCK = re.compile(r"(<!-- settings of (\S+), printed by .*? -->\n).*?(<!-- end of settings -->)", re.DOTALL)


def sections(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every group of settings by its dotted name, a group within a group too (augment.jitter)."""
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(kind) and issubclass(kind, BaseModel):
                yield f"{prefix}{name}", kind
                yield from sections(kind, f"{prefix}{name}.")


def table(section: type[BaseModel]) -> str:
    """One row per setting: name, type, default, meaning."""
    annotations = get_type_hints(section, include_extras=True)
    rows = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in section.model_fields.items():
        cells = (
            f"`{name}`",
            type_name(annotations[name]),
            _default(field),
            " ".join((field.description or "").split()),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def type_name(annotation: Any) -> str:
    """A type as a person who writes YAML calls it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        names = [extra.text for extra in inner[1:] if isinstance(extra, TypeName)]
        return names[0] if names else " ".join([type_name(inner[0]), *_bounds(inner[1:])])
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(kind) for kind in inner if kind is not type(None))
    if origin is Literal:
        return ", ".join(inner)
    if origin is list:
        head, _, rest = type_name(inner[0]).partition(" ")
        plural = f"{head}s" if head in ("number", "integer") else head
        return f"list of {plural} {rest}".rstrip()
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return TYPE_NAMES[dict]
    return TYPE_NAMES[origin or annotation]


def _bounds(extras: tuple[Any, ...]) -> list[str]:
    constraints = [c for extra in extras if isinstance(extra, FieldInfo) for c in extra.metadata]
    said = [f"{word} {getattr(c, key)}" for c in constraints for key, word in BOUNDS.items() if hasattr(c, key)]
    return [f"{said[0]}," if len(said) > 1 and said[1].startswith("below") else said[0], *said[1:]] if said else []


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    text = yaml_text(str(value) if isinstance(value, Path) else value)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def renewed(page: str) -> str:
    """The page with the table of every section between its markers printed anew.

    Raises HrsegError where a section has no markers, or markers no section.
    """
    tables = {name: table(section) for name, section in sections()}
    marked = [match[2] for match in BLOCK.finditer(page)]
    if sorted(marked) != sorted(tables):
        odd = sorted({*marked} ^ {*tables}) or sorted(marked)
        raise HrsegError("settings page", f"not one pair of markers for each section: {', '.join(odd)}.")
    return BLOCK.sub(lambda match: f"{match[1]}{tables[match[2]]}{match[3]}", page)
