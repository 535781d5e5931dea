"""A sweep file without a server."""

from __future__ import annotations

import shutil
import sys

import pytest
import yaml

from hrseg import config
from hrseg.commands import sweep
from hrseg.errors import ConfigError
from hrseg.train.sweep import sweep_trials, trial_command
from tests.conftest import ROOT

DEMO = yaml.safe_load((ROOT / "configs" / "sweeps" / "demo.yaml").read_text())


def test_a_grid_is_every_combination_and_a_random_sweep_the_same_for_a_seed():
    grid = {"method": "grid", "parameters": {"a.b": {"values": [1, 2]}, "c": {"values": ["x", "y"]}, "d": {"value": 5}}}
    assert sweep_trials(grid, "f") == [{"a.b": a, "c": c, "d": 5} for a in (1, 2) for c in ("x", "y")]
    first = sweep_trials(DEMO, "f", seed=1)
    assert len(first) == 8 and first == sweep_trials(DEMO, "f", seed=1) != sweep_trials(DEMO, "f", seed=2)
    assert all(1e-3 <= t["optim.lr"] <= 1e-2 and t["loss.1.weight"] in (0.25, 0.5, 1.0) for t in first)


def test_each_run_of_a_sweep_is_made_once_for_each_of_its_seeds():
    grid = {"method": "grid", "parameters": {"optim.lr": {"values": [1, 2]}}, "seeds": [0, 7]}
    expected = [{"optim.lr": lr, "run.seed": s} for lr in (1, 2) for s in (0, 7)]
    assert sweep_trials(grid, "f") == expected and sweep_trials(grid, "f", runs=1) == expected[:2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"method": "bayes"}, "need wandb's server"),
        ({"parameters": {"optim.lr": {"min": "1e-3", "max": 0.1}}}, "min < max"),
        ({"parameters": {"optim.lr": {"min": 1, "max": 2, "distribution": "beta"}}}, "cannot be drawn here"),
        ({"parameters": {"optim.lr": {}}}, "has no values"),
        ({"run_cap": None}, "number of runs"),
        ({"seeds": 3}, "list of whole numbers"),
        ({"seeds": [True]}, "list of whole numbers"),
        ({"seeds": [1], "parameters": {"run.seed": {"value": 1}}}, "beside parameters.run.seed"),
    ],
)
def test_what_cannot_be_done_here_is_told(change, told):
    with pytest.raises(ConfigError, match=told):
        sweep_trials(DEMO | change, "f")


def test_the_commands_of_the_demo_are_settings_that_exist():
    for trial in sweep_trials(DEMO, "f", runs=2):
        words = trial_command(DEMO, trial, "f")
        after = words[words.index("configs/demo.yaml") + 1 :]
        found = config.load(ROOT / "configs" / "demo.yaml", after)
        assert found.track.wandb == "offline" and found.optim.lr == trial["optim.lr"]


def test_a_run_is_done_in_its_own_folder_and_the_best_stands_first(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "sweep.yaml"
    program = tmp_path / "train.py"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        "given = dict(word.split('=', 1) for word in sys.argv[2:])\n"
        "assert given['track.wandb'] == 'offline'\n"
        "folder = pathlib.Path(given['run.dir']); folder.mkdir(parents=True)\n"
        "(folder / 'metrics.json').write_text(json.dumps({'miou': float(given['optim.lr'])}))\n"
        "sys.exit(2 if given['optim.lr'] == '0.3' else 0)\n"
    )
    program.chmod(0o755)
    grid = {"method": "grid", "parameters": {"optim.lr": {"values": [0.1, 0.2, 0.3]}}, "program": str(program)}
    file.write_text(yaml.safe_dump(DEMO | grid))
    assert shutil.which("sh") and sweep.main([str(file)]) == 0
    table = [line for line in capfd.readouterr().out.splitlines() if line.startswith(("mIoU", "no score"))]
    assert [line.split()[-1] for line in table] == ["optim.lr=0.2", "optim.lr=0.1", "optim.lr=0.3"]
    assert len(list((tmp_path / "runs" / "sweep").iterdir())) == 3
