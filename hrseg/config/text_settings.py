"""Which settings are texts or paths: what a person writes for them is taken as it stands, not as YAML reads it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from hrseg.config.schema import Config

# Options of pieces that come with hrseg, of which the schema knows nothing. A test compares them with the signatures.
TEXT_OPTIONS = {("data", "classes"), ("data", "mask_suffix")}


def is_text(path: Sequence[str]) -> bool:
    """Whether a setting is a text, a path or a list of them; path: its dotted name in parts, numbers in lists too."""
    return _is_text(tuple(path))


@lru_cache(maxsize=1024)
def _is_text(path: tuple[str, ...]) -> bool:
    if path in TEXT_OPTIONS:
        return True
    annotation: Any = Config
    for part in path:
        annotation = _inside(annotation, part)
    return any(kind in (str, Path) or get_origin(kind) is Literal for kind in _kinds(annotation))


def takes_list(path: Sequence[str]) -> bool:
    """Whether a text setting may be a list of texts."""
    annotation: Any = Config
    for part in path:
        annotation = _inside(annotation, part)
    return any(get_origin(kind) is list for kind in _kinds(annotation))


def _inside(annotation: Any, part: str) -> Any:
    """The type of a setting within a group, or of an entry of a list; None where it is not known."""
    for kind in _kinds(annotation):
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            return _hints(kind).get(part)
        if get_origin(kind) is list and part.isdigit():
            return get_args(kind)[0]
    return None


@lru_cache(maxsize=64)
def _hints(model: type[BaseModel]) -> dict[str, Any]:
    return get_type_hints(model, include_extras=True)


def _kinds(annotation: Any) -> list[Any]:
    """The alternatives of a type, without None and annotations."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if annotation is not None and get_origin(annotation) is not None and type(None) in get_args(annotation):
        return [kind for part in get_args(annotation) if part is not type(None) for kind in _kinds(part)]
    if get_origin(annotation) in (list, Literal, dict, tuple) or not get_args(annotation):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _kinds(part)]
