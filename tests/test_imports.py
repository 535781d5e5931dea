"""The floors of docs/architecture.md: imports go down only, and each outside library has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

FLOORS = {
    0: {"errors", "config", "task", "cli", "version", "installed", "files"},
    1: {"models", "losses", "metrics", "data", "tracking", "distributed"},
    2: {"build", "weights", "report"},
    3: {"engine"},
    4: {"predictor", "export", "benchmark"},
}
FLOOR_OF = {part: floor for floor, parts in FLOORS.items() for part in parts}
DOORS = {
    "wandb": "hrseg/tracking.py",
    "albumentations": "hrseg/data/transforms.py",
    "yaml": "hrseg/config.py",
}
FILES = sorted((ROOT / "hrseg").rglob("*.py"))


def imported(path) -> Iterator[str]:
    """Full names of the modules that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    if path.parent == ROOT / "hrseg" and path.name == "__init__.py":
        return  # the package's front: it shows public names of all floors
    part = path.relative_to(ROOT / "hrseg").parts[0].removesuffix(".py")
    for module in imported(path):
        if module.startswith("hrseg.") and part_of(module) != part:
            below, own = FLOOR_OF[part_of(module)], FLOOR_OF[part]
            assert below < own or below == own == 0, f"{path.name} must not import {module}"


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_one_door(library):
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(module.partition(".")[0] == library for module in imported(path))
    }
    assert users == {DOORS[library]}
