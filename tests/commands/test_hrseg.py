"""The command `hrseg`: the commands of tools/ by name, from any folder."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

import hrseg
from hrseg.commands import COMMANDS, main, module_of
from tests.conftest import ROOT


def test_every_script_of_tools_is_a_command():
    assert set(COMMANDS) == {path.stem for path in (ROOT / "tools").glob("*.py")}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_main(name):
    assert callable(importlib.import_module(module_of(name)).main)


def test_help_lists_the_commands_in_the_order_of_the_work(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  (\w+)  +\w", out.split("commands, in the order of the work:")[1], re.MULTILINE) == [
        *COMMANDS
    ]
    assert out.index("  check_data") < out.index("  train") < out.index("  test") < out.index("  predict")


def test_help_of_a_command_shows_calls_of_hrseg_and_not_of_scripts(capsys):
    assert main(["compare", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: hrseg compare") and "\n  hrseg compare runs/ocr runs/plain\n" in out
    assert "tools/" not in out
    assert main(["train", "--help"]) == 0
    assert "torchrun --nproc-per-node=4 -m hrseg train cityscapes.yaml" in capsys.readouterr().out


def test_an_unknown_command_ends_with_2_and_the_nearest_name(capsys):
    assert main(["trian"]) == 2
    assert "error: hrseg trian: no such command. Did you mean 'train'?" in capsys.readouterr().err
    assert main([]) == 2


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hrseg {hrseg.__version__}\n"


@pytest.mark.parametrize("name", ["check_data", "check-data"])
def test_shipped_configs_are_found_in_an_empty_folder(name, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        assert main([name, "camvid.yaml", "data.root=/nowhere"]) == 2
    assert "/nowhere/train" in capsys.readouterr().err and "camvid.yaml: taken from the configs shipped" in caplog.text


def test_python_finds_the_command_as_a_module():
    done = subprocess.run([sys.executable, "-m", "hrseg", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"hrseg {hrseg.__version__}\n" and done.returncode == 0


@pytest.mark.parametrize("kind", ["symlink", "copy"])
def test_a_script_beside_a_clone_called_hrseg_finds_the_package(kind, tmp_path):
    """The folder hrseg/ beside the script is a namespace package at most: the installed package comes first."""
    clone = tmp_path / "hrseg"
    if kind == "symlink":
        clone.symlink_to(ROOT)
    else:
        (clone / "configs").mkdir(parents=True)
        (clone / "setup.cfg").write_text("")
    code = f"import sys; sys.path.append({str(ROOT)!r}); import hrseg; print(hrseg.__version__, hrseg.__file__)"
    environment = {"PATH": "/usr/bin:/bin"}  # without PYTHONPATH, and with -S without what is installed here
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == [hrseg.__version__, str(ROOT / "hrseg" / "__init__.py")], done.stderr


def test_an_editable_installation_is_a_plain_path():
    """Only then does it come before a folder hrseg/ without __init__.py: a finder of setuptools stands behind it."""
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "package_dir =\n    = ./\n" in text
