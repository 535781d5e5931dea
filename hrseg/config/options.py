"""Options of a named piece (a loss, an architecture, ...), checked against its signature, and pieces outside hrseg."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from hrseg.errors import ConfigError, nearest


def check_options(
    piece: Callable, options: Mapping[str, Any], *, where: str, wired: Iterable[str] = (), also: Iterable[str] = ()
) -> dict[str, Any]:
    """The options as the piece's signature wants them, e.g. 1e-2, which YAML reads as a string, as a float.

    wired: parameters that hrseg fills in itself, not to be set. also: settings of the same section that are known
    beside the options, to be suggested for a misspelled one.
    Raises ConfigError for an option that the signature does not have (with the nearest known name), for a missing one,
    and for one of another type.
    """
    parameters = _signature(piece).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = {p.name for p in parameters if p.kind in kinds} - set(wired) - {"self"}
    for name in options:
        if name not in known:
            raise ConfigError(f"{where}.{name}", "no such setting.", nearest(name, {*known, *also}))
    missing = [p.name for p in parameters if p.name in known and p.default is p.empty and p.name not in options]
    if missing:
        raise ConfigError(f"{where}.{missing[0]}", f"is missing: {getattr(piece, '__name__', piece)} needs it.")
    annotations = {p.name: p.annotation for p in parameters}
    return {name: as_type(annotations[name], value, f"{where}.{name}") for name, value in options.items()}


def _signature(piece: Callable) -> inspect.Signature:
    try:
        return inspect.signature(piece, eval_str=True)
    except Exception:  # annotations of a foreign piece that are for type checkers only
        return inspect.signature(piece)


def as_type(annotation: Any, value: Any, where: str) -> Any:
    """The value converted to its annotation's type; unchanged where pydantic does not know the annotation.

    Raises ConfigError if it does not fit.
    """
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=False)).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ConfigError(where, f"{message[0].lower()}{message[1:]}, not {value!r}.") from None
    except PydanticUserError:
        return value


def is_dotted_path(name: str) -> bool:
    """Whether a setting names a piece outside hrseg, as `mylab.losses:focal` does."""
    return ":" in name


def import_piece(path: str, where: str) -> Any:
    """The object that a dotted path such as `mylab.losses:focal` names; modules of the current folder count.

    where: the setting that holds the path. Raises ConfigError if the module or the object is not there.
    """
    module_name, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise  # an import inside that module fails: its own traceback says more
        raise ConfigError(
            where, f"no module '{error.name}'.", "Install it, or start from the folder it is in."
        ) from None
    except (ValueError, TypeError):
        raise ConfigError(where, f"'{path}' is not a dotted path.", "Write package.module:name.") from None
    try:
        return getattr(module, name)
    except AttributeError:
        defined = [
            known
            for known, value in vars(module).items()
            if not known.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        raise ConfigError(where, f"'{module_name}' has no '{name}'.", nearest(name, defined)) from None
