"""What a setting names: a piece of hrseg, or by a dotted path one from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hrseg.config import Config, import_piece, is_dotted_path
from hrseg.errors import ConfigError, nearest


def piece(name: str, known: Mapping[str, Any], *, where: str, what: str) -> Any:
    """What a setting names: a member of `known`, or by a dotted path something outside hrseg."""
    if is_dotted_path(name):
        found = import_piece(name, where)
        if not callable(found):
            raise ConfigError(where, f"'{name}' is a {type(found).__name__}, not a class or function.")
        return found
    if name not in known:
        raise ConfigError(where, f"no {what} '{name}'.", nearest(name, known))
    return known[name]


def dotted_paths(config: Config) -> list[str]:
    """The code outside hrseg that the settings name."""
    names = [config.model.arch, config.data.dataset, config.optim.name, *(term.name for term in config.loss)]
    return [name for name in names if is_dotted_path(name)]
