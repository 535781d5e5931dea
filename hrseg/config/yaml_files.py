"""YAML files as plain values, and files that build on another one with `base`. The only module that imports yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hrseg.config.shipped import find_config
from hrseg.errors import ConfigError
from hrseg.files import read_text

MOST_BYTES = 16 * 2**20  # of a YAML file
MOST_ENTRIES = 100_000
MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Plain types only. YAML's usual reader silently drops the first of two equal keys; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands here twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _TextLoader(_Loader):
    """Every scalar is text, as it is written: no, 007 and 2026-11-27 are names."""

    yaml_implicit_resolvers = {"<": [(MERGE, re.compile("^(?:<<)$"))]}


class NotYaml(Exception):
    """A text that is not plain YAML. line: where in it, counted from 1, if that is known."""

    def __init__(self, problem: str, line: int | None):
        self.problem, self.line = problem, line
        super().__init__(problem)


def parse_yaml(text: str, *, as_text: bool = False) -> Any:
    """The plain values that a text in YAML stands for. Raises NotYaml for anything else.

    as_text: numbers, dates and truth values stay the text that they are.
    """
    try:
        content = yaml.load(text, _TextLoader if as_text else _Loader)
        _size(content, {})
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise NotYaml(problem, mark.line + 1 if mark else None) from error
    return content


def yaml_text(plain: Any) -> str:
    """Plain values as YAML, which reads back as the same values."""
    style: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "width": 120}
    text = yaml.safe_dump(plain, allow_unicode=True, **style)
    # Unescaped, some rare line separators are read back as spaces.
    return text if yaml.safe_load(text) == plain else yaml.safe_dump(plain, **style)


def _size(value: Any, known: dict[int, int | None]) -> int:
    """How many entries there are when aliases are written out. Raises ValueError for too many, or for a circle."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = None
        known[id(value)] = 1 + sum(_size(v, known) for v in (value.values() if isinstance(value, dict) else value))
    size = known[id(value)]
    if size is None:
        raise ValueError("an alias (*name) refers to what it is part of")
    if size > MOST_ENTRIES:
        raise ValueError(f"it holds more than {MOST_ENTRIES:,} entries when its aliases (*name) are written out")
    return size


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file, plain types only. Raises ConfigError where it cannot be read."""
    return _read_yaml(Path(path), as_text=False)


def read_yaml_as_text(path: str | Path) -> Any:
    """The same with every number, date and truth value as the text that stands there."""
    return _as_text(_read_yaml(Path(path), as_text=True))


def _as_text(plain: Any) -> Any:
    """Also what an explicit tag (`!!int 7`) made of a text."""
    if isinstance(plain, dict):
        return {str(key): _as_text(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_as_text(value) for value in plain]
    return plain if plain is None else str(plain)


def _read_yaml(path: Path, *, as_text: bool) -> Any:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(path, f"is larger than {MOST_BYTES // 2**20} MiB.", "Is it a file of settings?")
        return parse_yaml(read_text(path), as_text=as_text)
    except FileNotFoundError:
        raise ConfigError(path, "no such file.", "Give the path of a YAML file.") from None
    except IsADirectoryError:
        raise ConfigError(path, "is a folder.", "Give the path of a YAML file.") from None
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(path, "is not a text file in UTF-8.", "Is it a checkpoint? Settings are YAML.") from None
    except NotYaml as error:
        where = f"{path}, line {error.line}" if error.line else path
        raise ConfigError(where, f"is not plain YAML: {error.problem}.", "Python tags are not read.") from None


def read_with_base(path: str | Path, _above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file's mapping merged over the one named by its `base` (relative to the file).

    path: a file, or the name of a config that comes with hrseg.
    """
    path = Path(path) if _above else find_config(Path(path))
    plain = read_yaml(path)
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
    return merge(read_with_base(path.parent / base, (*_above, path.resolve())), plain)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings merge key by key, everything else (lists too) is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
