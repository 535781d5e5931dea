"""What CONTRIBUTING.md asks of every file of hrseg, as far as a program can see it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "hrseg").rglob("*.py"))
COMMANDS = [path for path in FILES if path.parent.name != "benchmark"]
MOST_LINES = 400


def name_of(path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_longer_than_a_reader_likes(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign_private_names(tree: ast.AST) -> Iterator[str]:
    """Private names that a module takes from other modules of hrseg: imported, or as attributes of imported modules."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hrseg"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name))
            modules |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        of_name = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if of_name and node.value.id in modules and is_private(node.attr):
            yield f"{node.value.id}.{node.attr}"


def test_private_names_are_found():
    code = "from hrseg.data import cache\nfrom hrseg.task import _hidden\ncache._folder()\nself._own"
    assert list(foreign_private_names(ast.parse(code))) == ["hrseg.task._hidden", "cache._folder"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_uses_private_names_of_another(path):
    assert list(foreign_private_names(ast.parse(path.read_text(encoding="utf-8")))) == []


def names_taken_by_benchmarks() -> set[str]:
    """Names that hrseg/benchmark imports from elsewhere in hrseg."""
    names = set()
    for path in set(FILES) - set(COMMANDS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = (isinstance(node, ast.ImportFrom) and node.module) or ""
            if module.startswith("hrseg.") and not module.startswith("hrseg.benchmark"):
                names |= {alias.name for alias in node.names}
    return names


def used_outside_benchmarks() -> Counter[str]:
    """How often the code outside hrseg/benchmark uses each name; imports and definitions do not count."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in COMMANDS)
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return Counter([*names, *(node.attr for node in nodes if isinstance(node, ast.Attribute))])


USED = used_outside_benchmarks()


def test_what_only_a_benchmark_would_use_is_found():
    assert USED["nothing_that_any_command_calls"] == 0
    assert USED["ConfusionMatrix"] > 0


@pytest.mark.parametrize("name", sorted(names_taken_by_benchmarks()))
def test_benchmarks_measure_only_what_is_used_elsewhere(name):
    assert USED[name] > 0, f"{name} is used by hrseg/benchmark alone"


def test_tests_stand_where_their_rooms_do():
    rooms = {path.parent.name for path in (ROOT / "hrseg").glob("*/__init__.py")}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders - {"gpu"} <= rooms, "a folder of tests/ without a room in hrseg/"
    untested = rooms - folders
    assert not untested, "a room of hrseg/ without a folder in tests/"
