"""Settings by dotted name: `key=value` sets them, and a comparison lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hrseg.config.text_settings import is_text, takes_list
from hrseg.config.yaml_files import NotYaml, parse_yaml
from hrseg.errors import ConfigError


def override(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `plain` with each "dotted.key=value" set."""
    result: dict[str, Any] = _copied(plain)
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{item}'", "is not key=value.", "For example train.iterations=200.")
        keys = key.split(".")
        _set(result, keys, _value(text, keys, item), item)
    return result


def _value(text: str, keys: list[str], item: str) -> Any:
    """A text or a path is what stands there, null and nothing at all are None; other values are YAML."""
    listed = text.lstrip().startswith("[") and takes_list(keys)
    if text and is_text(keys) and text != "null" and not listed:
        return text
    try:
        return parse_yaml(text, is_text, keys)
    except NotYaml as error:
        raise ConfigError(f"'{item}'", f"the value is not YAML: {error.problem}.") from None


def flattened(plain: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name, as `key=value` sets them.

    A list of sections is taken apart by number (loss.0.name); a list of values is one value.
    """
    if isinstance(plain, list) and any(isinstance(item, Mapping) for item in plain):
        plain = dict(enumerate(plain))
    if not isinstance(plain, Mapping):
        return {prefix: plain}
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _copied(value: Any) -> Any:
    """A copy in which nothing is shared: YAML's aliases (*name) otherwise change together."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _set(node: Any, keys: list[str], value: Any, item: str) -> None:
    *path, last = keys
    for key in path:
        if isinstance(node, list):
            node = node[_index(node, key, item)]
        else:
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        if not isinstance(node, dict | list):
            raise ConfigError(f"'{item}'", f"'{key}' holds a value, not settings.")
    if isinstance(node, list):
        node[_index(node, last, item)] = value
    else:
        node[last] = value


def _index(node: list, key: str, item: str) -> int:
    if not key.isdigit() or int(key) >= len(node):
        raise ConfigError(f"'{item}'", f"'{key}' is not the number of an entry: the list has {len(node)}.")
    return int(key)
