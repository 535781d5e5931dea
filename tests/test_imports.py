"""The floors of docs/architecture.md: imports go down only, and each outside library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hrseg.commands import COMMANDS
from tests.conftest import ROOT

FLOORS = {
    0: {"errors", "config", "task", "console", "version", "installed_packages", "files", "made_files", "runtime"},
    1: {"models", "losses", "metrics", "data", "tracking", "distributed"},
    2: {"fast", "weights", "report", "inference", "distillation", "toycity", "registration"},
    3: {"build"},
    4: {"train", "evaluate", "predict", "export", "importing", "doctor"},
    5: {"commands", "benchmark"},
}
SAME_FLOOR = {("inference", "fast"), ("train", "evaluate"), ("commands", "benchmark")}
FLOOR_OF = {part: floor for floor, parts in FLOORS.items() for part in parts}
DOORS = {
    "wandb": "hrseg/tracking.py",
    "albumentations": "hrseg/data/transforms.py",
    "yaml": "hrseg/config/yaml_files.py",
    "tifffile": "hrseg/data/images/tiff.py",
    "faster_coco_eval": "hrseg/importing/rle.py",
    "shapely": "hrseg/importing/polygons.py",
    "label_studio_converter": "hrseg/importing/label_studio.py",
    "pyogrio": "hrseg/importing/vectors.py",
    "defusedxml": "hrseg/importing/text_files.py",
    "av": "hrseg/predict/films.py",
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
    if path.parent == ROOT / "hrseg" and path.name in ("__init__.py", "__main__.py"):
        return  # the package's front: it shows public names of all floors
    part = path.relative_to(ROOT / "hrseg").parts[0].removesuffix(".py")
    for module in imported(path):
        if module.startswith("hrseg.") and part_of(module) != part:
            below, own = FLOOR_OF[part_of(module)], FLOOR_OF[part]
            allowed = below < own or below == own == 0 or (part, part_of(module)) in SAME_FLOOR
            assert allowed, f"{path.name} must not import {module}"


# The benchmark's plain scripts are written without hrseg, as its peers.
OWN_FILES = [path for path in FILES if path.parent.name != "plain_scripts"]
# Libraries that several rooms need, and which: reading and drawing images, smp's base classes, timm's encoders.
ROOMS = {
    "segmentation_models_pytorch": {"models", "losses", "build", "weights", "benchmark"},
    "timm": {"models", "build"},
    "cv2": {"data", "metrics", "report", "export", "train", "predict", "toycity", "benchmark", "importing", "doctor"},
    "PIL": {"data", "report", "evaluate", "predict", "toycity", "tracking", "benchmark", "importing", "doctor"},
    "rasterio": {"importing", "benchmark"},
}


@pytest.mark.parametrize("library", ROOMS)
def test_no_other_room_takes_to_a_library(library):
    rooms = {
        path.relative_to(ROOT / "hrseg").parts[0].removesuffix(".py")
        for path in OWN_FILES
        if any(module.partition(".")[0] == library for module in imported(path))
    }
    assert rooms == ROOMS[library]


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_one_door(library):
    users = {
        str(path.relative_to(ROOT))
        for path in OWN_FILES
        if any(module.partition(".")[0] == library for module in imported(path))
    }
    assert users == {DOORS[library]}


def imports_of(code: str) -> set[str]:
    """Which of the slow libraries are imported by a program."""
    code += (
        "; import sys; print(*({'torch', 'segmentation_models_pytorch', 'timm', 'albumentations'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", ["train", "test", "predict", "serve"])
def test_help_is_printed_without_torch(name):
    code = f"import sys; from hrseg.commands.{name} import main; out, sys.stdout = sys.stdout, sys.stderr"
    assert imports_of(f"{code}; main(['--help']); sys.stdout = out") == set()


# Commands that still import slow libraries before they parse their words. Each is taken off when it no longer does.
@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_no_slow_library(name):
    slow = {"torch", "segmentation_models_pytorch", "timm", "albumentations", "cv2", "scipy"}
    code = f"from hrseg.commands import main; assert main(['{name}', '--help']) == 0; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not slow & set(done.stdout.split())


def test_commands_on_data_alone_import_no_networks():
    assert imports_of("import hrseg.commands.check_data, hrseg.commands.cache") == set()


def test_smp_knows_the_architectures_of_hrseg_also_where_it_is_imported_later():
    code = (
        "import hrseg, segmentation_models_pytorch as smp; assert 'hrnetv2_w18' in smp.encoders.encoders; smp.HRNetV2"
    )
    assert "torch" in imports_of(code)
