"""Settings in layers: YAML files that build on another one with `base`, and `key=value` over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hrseg.config.shipped import find_config
from hrseg.config.text_settings import is_text
from hrseg.config.yaml_files import read_yaml
from hrseg.errors import ConfigError


def read_with_base(path: str | Path, _above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file's mapping merged over the one named by its `base` (relative to the file).

    path: a file, or the name of a config that comes with hrseg.
    """
    path = Path(path) if _above else find_config(Path(path).expanduser())
    plain = read_yaml(path, is_text)
    if plain is None:
        plain = {}
    if not isinstance(plain, dict):
        raise ConfigError(path, f"holds a {type(plain).__name__}, not settings.", "Write 'section: {key: value}'.")
    base = plain.pop("base", None)
    if base is None:
        return plain
    if not isinstance(base, str):
        raise ConfigError(f"{path}, base", f"must be the path of one YAML file, not {base!r}.")
    if path.resolve() in _above:
        raise ConfigError(f"{path}, base", "the files name each other in a circle.")
    return merge(read_with_base(path.parent / Path(base).expanduser(), (*_above, path.resolve())), plain)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings merge key by key, everything else (lists too) is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
