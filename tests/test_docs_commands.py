"""Every command that a document shows is executed, or a comment before it says what it needs: <!-- needs: ... -->."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from hrseg import config
from hrseg.commands import train as train_command
from hrseg.toycity.city_files import write_city
from hrseg.train import loop as train
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<before>[^\n]*)\n( *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(tools/|docs/examples/|make |python3? |torchrun |pip |git |mkdocs |srun )")
QUICK = {"tools/test.py", "tools/check_data.py", "tools/report.py"}
# What a training command of the documents gets in addition: it runs as written, but for a moment.
TINY = ["model.encoder=hrnetv2_w18_small_v1", "model.encoder_weights=null", "augment.crop=[64, 64]",
        "train.epochs=null", "train.iterations=1", "train.batch_size=2", "train.val_every=null",
        "data.workers=0"]  # fmt: skip


class Block(NamedTuple):
    """Commands between two fences, and what the comment before them says that they need."""

    where: str
    needs: str | None
    lines: list[str]


def command_blocks(path: Path) -> list[Block]:
    found = []
    text = "\n" + path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        lines = [line.strip() for line in match["text"].splitlines() if line.strip()]
        if match["language"] in ("", "sh", "bash") and any(COMMAND.match(line) for line in lines):
            needs = re.search(r"<!-- needs: (.+?) -->", match["before"])
            where = f"{path.relative_to(ROOT)}:{text[: match.start('text')].count(chr(10)) - 1}"
            found.append(Block(where, needs[1] if needs else None, lines))
    return found


BLOCKS = [block for path in DOCUMENTS for block in command_blocks(path)]
EXECUTED = [block for block in BLOCKS if block.needs is None]


@pytest.mark.parametrize("block", EXECUTED, ids=lambda block: block.where)
def test_a_block_that_says_no_need_has_commands_that_are_executed_here(block):
    others = [line for line in block.lines if not line.startswith("tools/")]
    assert not others, f"{block.where}: {others} is not executed; write <!-- needs: ... --> before the fence"


@pytest.fixture(scope="module")
def workspace(shapes, tmp_path_factory):
    """A folder in which the documents' commands find what they name."""
    root = tmp_path_factory.mktemp("reader")
    for name in ("configs", "docs", "tools"):
        (root / name).symlink_to(ROOT / name)
    for number, path in enumerate(sorted(shapes.glob("images/*/*.png"))):
        for folder in ("images", "masks"):
            target = root / "data" / "mine" / folder / f"scene{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(path).replace("/images/", f"/{folder}/"), target)
    shutil.copy(shapes / "classes.yaml", root / "data" / "mine")
    (root / "data" / "mine" / "all.txt").write_text("".join(f"scene{number}\n" for number in range(8)))
    photo = np.full((64, 96, 3), 90, np.uint8)
    for name in ("photo.png", "photo.jpg"):
        Image.fromarray(photo).save(root / name)
    video = cv2.VideoWriter(str(root / "video.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (96, 64))
    for _ in range(3):
        video.write(photo)
    video.release()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train.train(config.load("configs/folder.yaml", ["data.root=data/mine", *TINY]), Path("runs/folder"))
    shutil.copytree(root / "runs" / "folder", root / "runs" / "mine")
    return root


@pytest.fixture(scope="module")
def demo(workspace):
    """What `make demo` leaves."""
    write_city(workspace / "data" / "toycity", train=2, val=1, size=(128, 128), workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        train.train(config.load("configs/demo.yaml", TINY), Path("runs/demo"))


def run(line: str) -> int:
    """A command in this process."""
    script, *words = shlex.split(line, comments=True)
    if script == "tools/train.py":
        words += TINY
        given = next((word.partition("=")[2] for word in words if word.startswith("run.dir=")), None)
        shutil.rmtree(given or Path("runs") / Path(words[0]).stem, ignore_errors=True)
        return train_command.main(words)
    module = re.search(r"from (hrseg[\w.]+) import main", (ROOT / script).read_text())[1]
    return importlib.import_module(module).main(words)


def is_quick(block: Block) -> bool:
    return all(line.split()[0] in QUICK for line in block.lines)


@pytest.mark.parametrize("block", [b for b in EXECUTED if is_quick(b)], ids=lambda block: block.where)
def test_quick_commands_do_what_they_say(block, workspace, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    for line in block.lines:
        assert run(line) == 0, capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("block", [b for b in EXECUTED if not is_quick(b)], ids=lambda block: block.where)
def test_other_commands_do_what_they_say(block, workspace, demo, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    for line in block.lines:
        assert run(line) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda path: path.stem)
def test_the_python_and_settings_of_a_tutorial_are_sound(path):
    for match in FENCE.finditer("\n" + path.read_text(encoding="utf-8")):
        text = re.sub(rf"^ {{{len(match[2])}}}", "", match["text"], flags=re.MULTILINE)
        if match["language"] == "python":
            exec(compile(text, path.name, "exec"), {})
        if match["language"] == "yaml" and isinstance(plain := yaml.safe_load(text), dict):
            config.parse(plain)


def test_the_site_is_built_and_every_link_and_name_in_it_is_known(tmp_path):
    build = pytest.importorskip("mkdocs.commands.build")
    pytest.importorskip("mkdocstrings")
    from mkdocs.config import load_config

    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    page = (tmp_path / "api" / "index.html").read_text()
    assert "hrseg.export.hub.push_to_hub" in page and "OhemCrossEntropyLoss" in page
