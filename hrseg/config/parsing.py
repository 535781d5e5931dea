"""From a YAML file or plain values to the typed settings; every wrong setting is reported."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hrseg.config.layers import read_with_base
from hrseg.config.overrides import override
from hrseg.config.schema import Config
from hrseg.errors import ConfigError, nearest


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Settings from a YAML file, those it is based on (`base: other.yaml`), and `key=value` overrides, in rising rank.

    overrides: dotted settings, e.g. "train.iterations=200" or "loss.0.thresh=0.7"; the value is read as YAML;
    that of a text or a path is taken as it stands.
    Raises ConfigError with every unknown or ill-typed setting.
    """
    return parse(override(read_with_base(path), overrides), where=str(path))


def parse(plain: Mapping[str, Any], where: str = "config") -> Config:
    """Settings from plain types. Raises ConfigError with every unknown or ill-typed setting."""
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(where, f"\n{where}, ".join(_explain(e) for e in error.errors())) from None


def _explain(error: Any) -> str:
    """One pydantic error as a sentence with its dotted path."""
    loc = [str(part) for part in error["loc"] if not str(part).startswith(("tuple[", "list[", "function-"))]
    dotted = ".".join(loc) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{dotted}: no such setting. {nearest(loc[-1], _known_settings(loc[:-1]))}"
    if error["type"] == "missing":
        return f"{dotted}: is missing."
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # of a section's own rule, which names the setting
        return f"{dotted}: {message}."
    return f"{dotted}: {message[0].lower() + message[1:]}, not {error['input']!r}."


def _known_settings(path: Iterable[str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in path:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        model = next(a for a in inner if inspect.isclass(a) and issubclass(a, BaseModel))
    return [*model.model_fields, *(["base"] if model is Config else [])]
