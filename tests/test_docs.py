"""What the documents say is so: settings, names, commands, error messages; and their examples run."""

from __future__ import annotations

import inspect
import re
import shlex
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import hrseg
from hrseg import config, losses
from hrseg.commands import compare, convert, export, importing, predict, report, serve
from hrseg.commands import test as test_command
from hrseg.commands import train as train_command
from hrseg.data import checks
from hrseg.data.dataset import as_dataset
from hrseg.models.encoder import SUFFIXES
from hrseg.models.hrnet import VARIANTS
from hrseg.toycity.city_files import write_city
from tests.conftest import ROOT
from tests.models.test_hrnet import PARAMETERS
from tests.test_imports import FLOORS

DOCS = {
    name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "quickstart",
        "architecture",
        "configuration",
        "extending",
        "datasets",
        "import",
        "export",
        "predict",
        "reports",
        "tracking",
        "evaluation",
    )
}
MINE = [name for name in DOCS if name != "datasets"]
COMMANDS = {
    "tools/train.py": train_command.main,
    "tools/import.py": importing.main,
    "tools/test.py": test_command.main,
    "tools/convert.py": convert.main,
    "tools/export.py": export.main,
    "tools/predict.py": predict.main,
    "tools/serve.py": serve.main,
    "tools/report.py": report.main,
    "tools/compare.py": compare.main,
}


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a document in one language; '' is none."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", DOCS[name], flags=re.MULTILINE | re.DOTALL)
    return [inspect.cleandoc("\n" + text) for _, of, text in found if of == language]


def rows(name: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, cells as they stand."""
    text = DOCS[name].split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_loss_is_described_with_its_options():
    text = DOCS["configuration"].split("## `loss`", 1)[1].split("\n## ", 1)[0]
    table = [
        line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `") and line.count("|") == 5
    ]
    described = {
        name: (cells[1], quoted(cells[2])) for cells in table for name in quoted(cells[0]) if name in losses.LOSSES
    }
    assert described.keys() == losses.LOSSES.keys()
    for name, piece in losses.LOSSES.items():
        tasks, options = described[name]
        parameters = inspect.signature(piece).parameters
        known = {"class_weights" if p == "weight" else p for p in parameters}
        own = known - {"logits", "target", "ignore_index"}
        assert set(options) == own if inspect.isfunction(piece) else set(options) <= known, name
        expected = ", ".join(task.value for task in losses.TASKS[name]) if name in losses.TASKS else "all"
        assert tasks.strip() == expected


@pytest.mark.parametrize("name", DOCS)
def test_yaml_blocks_are_settings(name):
    for text in blocks(name, "yaml"):
        plain = yaml.safe_load(text)
        if isinstance(plain, dict) and plain.keys() & config.Config.model_fields.keys():
            plain.pop("base", None)
            config.parse(plain)


def command_lines() -> list[tuple[str, list[str]]]:
    lines = (line for name in DOCS for text in blocks(name, "") for line in text.splitlines())
    words = [shlex.split(line) for line in lines if line.startswith(("tools/", "torchrun "))]
    found = [line[next(i for i, word in enumerate(line) if word.startswith("tools/")) :] for line in words]
    return [(line[0], line[1:]) for line in found if line[0] in COMMANDS]


def test_the_commands_of_the_documents_have_settings_and_options_that_exist(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    helps = {}
    for command, main in COMMANDS.items():
        main(["--help"])
        helps[command] = capsys.readouterr().out
    assert len(command_lines()) >= 20
    for command, words in command_lines():
        assert all(word in helps[command] for word in words if word.startswith("--")), words
        settings = [word for word in words if "=" in word]
        files = [word for word in words if word.endswith(".yaml")]
        config.load(files[0] if files else "configs/cityscapes.yaml", settings)


@pytest.mark.parametrize("name", MINE)
def test_files_that_a_document_names_exist(name):
    linked = re.findall(r"\]\(((?!http)[^)#]+)", DOCS[name])
    assert all((ROOT / "docs" / path).is_file() for path in linked)
    named = re.findall(r"\b((?:configs|tools|hrseg|tests)/[\w/]*\w\.\w+)", DOCS[name])
    assert all((ROOT / path).is_file() for path in named), named


@pytest.fixture(scope="module")
def tiny_city(tmp_path_factory):
    root = tmp_path_factory.mktemp("city") / "toycity"
    write_city(root, train=1, val=1, size=(128, 128), workers=1)
    return root


def test_error_messages_are_those_that_come(tiny_city, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    shown = [text for text in blocks("configuration", "") if text.startswith("$ ")]
    assert len(shown) >= 5
    for text in shown:
        line, _, message = text.partition("\n")
        _, _, *words = shlex.split(line)
        assert (
            train_command.main([*words, f"data.root={tiny_city}", f"run.dir={tmp_path / 'run'}", "train.batch_size=1"])
            == 2
        )
        assert "error: " + capsys.readouterr().err.partition("error: ")[2].strip() == message


def test_each_part_is_on_its_floor_in_the_table():
    table = {
        int(row[0]): {part.strip("/").removesuffix(".py") for part in quoted(row[1])}
        for row in rows("architecture", "## Floors")
    }
    there = {
        path.stem for path in (ROOT / "hrseg").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert table == {floor: parts & there for floor, parts in FLOORS.items()}
    assert set().union(*table.values()) == there - {"__init__", "__main__"}


def test_variants_and_suffixes_are_those_of_the_code():
    expected = [
        [f"`{name}`", str(v.width), ", ".join(map(str, v.modules)), str(v.blocks), f"{PARAMETERS[name]:,}"]
        for name, v in VARIANTS.items()
    ]
    assert rows("architecture", "### Variants") == expected
    table = rows("architecture", "### As an encoder of smp")
    assert [suffix for row in table for suffix in quoted(row[0]) or [""]] == list(SUFFIXES)


@pytest.mark.parametrize("text", blocks("quickstart", "python"))
def test_the_examples_of_the_quickstart_run(text):
    # Where an example is about shapes, 40 million weights need not be drawn.
    with torch.device("meta" if ".shape ==" in text else "cpu"):
        exec(compile(text, "quickstart.md", "exec"), {})


def test_the_data_set_of_datasets_is_sound():
    (text,) = blocks("datasets", "python")
    space: dict = {}
    exec(compile(text, "datasets.md", "exec"), space)
    assert checks.check(as_dataset(space["Tiles"]("unused", "train", size=32)), progress=False) == []


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The run folder of a training with all pieces of extending.md together."""
    folder = tmp_path_factory.mktemp("lab")
    for text in blocks("extending", "python"):
        path = folder / re.match(r"# (mylab/\w+\.py)\n", text)[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    rng = np.random.default_rng(0)
    for scene in ("train/a", "train/b", "val/c"):
        place = folder / "data" / "scenes" / scene
        place.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(place / "rgb.png")
        Image.fromarray(rng.integers(0, 3, (48, 64), dtype=np.uint8)).save(place / "labels.png")
    settings = {"augment": {"crop": [32, 64]}, "train": {"iterations": 2, "batch_size": 2}, "run": {"threads": 1}}
    for text in blocks("extending", "yaml"):
        settings = config.merge(settings, yaml.safe_load(text))
    (folder / "mine.yaml").write_text(yaml.safe_dump(config.merge(settings, {"data": {"workers": 0}})))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        assert train_command.main(["mine.yaml"]) == 0
        yield folder / "runs" / "mine"
    for module in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[module]


def test_the_pieces_of_extending_train_together(extended):
    saved = torch.load(extended / "checkpoints" / "last.pt", weights_only=True)
    assert saved["step"] == 2
    assert saved["config"]["model"]["arch"] == "mylab.heads:SumNet" and saved["config"]["model"]["width"] == 32
    assert saved["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.98)
    assert (extended / "log.jsonl").read_text().count("focal") == 1  # one record of training, with the term by its name


def test_code_outside_hrseg_is_obeyed_only_with_a_word_for_it(extended, tmp_path, capsys):
    words = ["--checkpoint", str(extended / "checkpoints" / "best.pt"), "--out", str(tmp_path)]
    assert test_command.main(words) == 2
    assert "mylab.heads:SumNet" in capsys.readouterr().err
    assert test_command.main([*words, "--trust-code"]) == 0


def test_a_checkpoint_and_a_run_folder_hold_what_architecture_says(extended):
    saved = torch.load(extended / "checkpoints" / "last.pt", weights_only=True)
    assert {entry for row in rows("architecture", "## Checkpoint") for entry in quoted(row[0])} == saved.keys()
    always = [row for row in rows("architecture", "## Run folder") if not re.search(r"\bonly\b|if there were", row[1])]
    patterns = [pattern for row in always for pattern in quoted(row[0])]
    described = {path for pattern in patterns for path in extended.glob(pattern)}
    there = {path for path in extended.rglob("*") if path.is_file()}
    assert all(list(extended.glob(pattern)) for pattern in patterns)
    assert described == there


def test_citation_and_changes_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    latest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == latest[1] == hrseg.__version__
    assert str(citation["date-released"]) == latest[2]


def test_scaling_counts_the_parameters_that_the_networks_have():
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for variant in ("w18", "w48"):
        with torch.device("meta"):
            network = hrseg.HRNetV2(f"hrnetv2_{variant}")
        assert f"| {sum(p.numel() for p in network.parameters()):,} |" in text


def test_reliability_names_tests_that_exist():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    files = [*(ROOT / "tests").rglob("test_*.py")]
    there = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)}
    assert set(re.findall(r"`(test_\w+)`", text)) <= there
    paths = {str(path.relative_to(ROOT / "tests")) for path in files}
    assert set(re.findall(r"`((?!tools/)(?:\w+/)*test_\w+\.py)`", text)) <= paths
