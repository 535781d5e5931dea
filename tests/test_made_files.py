"""No command replaces what it did not make; what hrseg made is replaced as before."""

from __future__ import annotations

import json

import pytest

from hrseg.commands import check_data, compare, convert, export, folds, predict, report
from hrseg.commands import test as test_command
from hrseg.errors import HrsegError
from hrseg.made_files import is_made_by_hrseg, require_own_folder
from tests.train.test_loop import train

FOREIGN = {
    "config.yaml": "my: settings\n",
    "metrics.json": '{"accuracy": 1}',
    "report.html": "<html>mine</html>",
    "notes.txt": "mine",
    "log.jsonl": '{"mine": 1}\n',
    "data.png": "mine",
    "per_image.npz": "mine",
    "m.onnx": "mine",
}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def scored(shapes, tmp_path_factory):
    """A short run with its scores."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    path = folder.with_name("c.yaml")
    path.write_text(
        f"model: {{encoder: hrnetv2_w18_small_v1}}\ndata: {{root: '{shapes}', workers: 0}}\n"
        f"augment: {{crop: [32, 48]}}\ntrain: {{iterations: 1, batch_size: 2}}\nrun: {{dir: '{folder}'}}\n"
    )
    assert train(path, folder) == 0
    return folder


@pytest.fixture
def foreign(tmp_path):
    """A folder of somebody's own files, under the names that hrseg uses."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in FOREIGN.items():
        (folder / name).write_text(text)
    return folder


def test_everything_in_a_run_folder_is_known_as_hrsegs(scored):
    for name in ("log.jsonl", "metrics.json", "per_image.npz", "report.html", "checkpoints/best.pt", "examples.npz"):
        assert is_made_by_hrseg(scored / name), name
    assert is_made_by_hrseg(scored / "config.yaml")


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_foreign_is_known_as_such(foreign, name):
    assert not is_made_by_hrseg(foreign / name)


def test_training_and_scoring_refuse_a_foreign_folder_before_any_work(config_file, scored, foreign, capsys):
    before = contents(foreign)
    best = str(scored / "checkpoints" / "best.pt")
    calls = [
        lambda: train(config_file, foreign),
        lambda: train(config_file, foreign, resume="auto"),
        lambda: test_command.main(["--checkpoint", best, "--out", str(foreign)]),
        lambda: test_command.main(["--checkpoint", best, f"run.dir={foreign}"]),
        lambda: folds.main([str(scored), str(scored), "--out", str(foreign)]),
    ]
    for call in calls:
        assert call() == 2
        error = capsys.readouterr().err
        assert "config.yaml, data.png, log.jsonl and 5 more" in error and "Nothing was written" in error
    assert contents(foreign) == before


@pytest.mark.parametrize("name", [name for name in FOREIGN if name not in ("m.onnx", "notes.txt")])
def test_one_foreign_file_is_enough(config_file, tmp_path, capsys, name):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / name).write_text(FOREIGN[name])
    assert train(config_file, folder) == 2
    assert name in capsys.readouterr().err
    assert contents(folder) == {(folder / name).relative_to(folder): FOREIGN[name].encode()}


def test_a_foreign_file_under_a_results_name_in_a_run_folder_is_kept(scored, tmp_path, capsys):
    metrics = (scored / "metrics.json").read_text()
    (scored / "metrics.json").write_text('{"mine": 1}')
    try:
        assert test_command.main(["--checkpoint", str(scored / "checkpoints" / "best.pt")]) == 2
        assert "metrics.json" in capsys.readouterr().err
        assert json.loads((scored / "metrics.json").read_text()) == {"mine": 1}
    finally:
        (scored / "metrics.json").write_text(metrics)


def test_commands_that_write_one_file_keep_a_foreign_one(config_file, scored, foreign, capsys):
    best = str(scored / "checkpoints" / "best.pt")
    out = {name: str(foreign / name) for name in FOREIGN}
    calls = {
        "data.png": lambda: check_data.main([str(config_file), "--sheet", out["data.png"]]),
        "report.html": lambda: report.main([str(scored), "--out", out["report.html"]]),
        "metrics.json": lambda: compare.main([str(scored), str(scored), "--json", out["metrics.json"]]),
        "m.onnx": lambda: export.main(["--checkpoint", best, "--format", "onnx", "--out", out["m.onnx"]]),
        "per_image.npz": lambda: convert.main([best, "--out", out["per_image.npz"]]),
    }
    before = contents(foreign)
    for name, call in calls.items():
        assert call() == 2
        assert name in capsys.readouterr().err
    assert contents(foreign) == before


def test_predictions_keep_a_foreign_classes_json(saved, shapes, tmp_path, capsys):
    (tmp_path / "classes.json").write_text("[1]")
    picture = next((shapes / "images" / "val").glob("*.png"))
    assert predict.main(["--checkpoint", str(saved), str(picture), "--out", str(tmp_path)]) == 2
    assert "classes.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["classes.json"]


def test_own_results_are_replaced_and_added_files_do_not_matter(scored, config_file, tmp_path):
    (scored / "notes.txt").write_text("added")
    best = str(scored / "checkpoints" / "best.pt")
    for _ in range(2):
        assert test_command.main(["--checkpoint", best, "--out", str(tmp_path / "out")]) == 0
        assert report.main([str(scored)]) == 0
        assert check_data.main([str(config_file), "--sheet", str(tmp_path / "sheet.png")]) == 0
        assert compare.main([str(scored), str(scored), "--json", str(tmp_path / "c.json")]) == 0
        assert convert.main([best, "--out", str(tmp_path / "w.safetensors")]) == 0
        assert convert.main([best, "--out", str(tmp_path / "w.pt")]) == 0


def test_a_run_of_an_earlier_version_is_known_by_its_log(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {}\n")
    with pytest.raises(HrsegError):
        require_own_folder(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "kind": "train", "loss": 1.0}\n')
    require_own_folder(tmp_path)


def test_hidden_files_and_an_empty_folder_are_no_hindrance(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    require_own_folder(tmp_path)
    require_own_folder(tmp_path / "new")
