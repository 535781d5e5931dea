"""YAML files as plain values. The only module that imports yaml."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from hrseg.errors import ConfigError
from hrseg.files import read_text

MOST_BYTES = 16 * 2**20  # of a YAML file
MOST_ENTRIES = 100_000
MERGE = "tag:yaml.org,2002:merge"
TYPED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}


IsText = Callable[[Sequence[str]], bool]


class _Loader(yaml.SafeLoader):
    """Plain types only, as YAML 1.2 has them: no, off and 2026-11-27 are texts, and so are numbers like 007 and 1:30.

    YAML's usual reader silently drops the first of two equal keys; here they are an error.
    """

    # A copy, because it belongs to the base class otherwise; resolvers are listed by the first letter of a value.
    yaml_implicit_resolvers = {
        letter: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp",
                                                           "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }  # fmt: skip

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands here twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^([-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$"), "-+0123456789"
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    "-+0123456789.",
)


class _TextLoader(_Loader):
    """Every scalar is text, as it is written: no, 007 and 2026-11-27 are names."""

    yaml_implicit_resolvers = {"<": [(MERGE, re.compile("^(?:<<)$"))]}


class NotYaml(Exception):
    """A text that is not plain YAML. line: where in it, counted from 1, if that is known."""

    def __init__(self, problem: str, line: int | None):
        self.problem, self.line = problem, line
        super().__init__(problem)


def parse_yaml(text: str, is_text: IsText | None = None, prefix: Sequence[str] = (), *, as_text: bool = False) -> Any:
    """The plain values that a text in YAML stands for. Raises NotYaml for anything else.

    is_text: whether the value under these keys and list numbers (below `prefix`) is a text: a number or a word such as
    true is then taken as it is written. Null stays null. as_text: all of them, and the keys, are texts.
    """
    try:
        loader = _TextLoader(text) if as_text else _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if is_text is not None:
                _take_texts(node, is_text, [*prefix], set())
            content = loader.construct_document(node)
        finally:
            loader.dispose()
        _size(content, {})
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise NotYaml(problem, mark.line + 1 if mark else None) from error
    return content


def _take_texts(node: yaml.Node, is_text: IsText, path: list[str], seen: set[int]) -> None:
    """Make text nodes of the unquoted values that are texts."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = [key.value] if isinstance(key, yaml.ScalarNode) and key.tag != MERGE else []
            _take_texts(value, is_text, path + name, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _take_texts(value, is_text, [*path, str(number)], seen)
    elif node.tag in TYPED and is_text(path):
        node.tag = "tag:yaml.org,2002:str"


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


def read_yaml(path: str | Path, is_text: IsText | None = None) -> Any:
    """The content of a YAML file, plain types only. Raises ConfigError where it cannot be read.

    is_text: as in `parse_yaml`.
    """
    return _read_yaml(Path(path), is_text)


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


def _read_yaml(path: Path, is_text: IsText | None = None, *, as_text: bool = False) -> Any:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(path, f"is larger than {MOST_BYTES // 2**20} MiB.", "Is it a file of settings?")
        return parse_yaml(read_text(path), is_text, as_text=as_text)
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
