"""Settings: typed, frozen, merged in a known order; what is wrong is told with its place and the way out."""

from __future__ import annotations

import pytest
import yaml

from hrseg import config
from hrseg.errors import ConfigError


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_survive_yaml():
    settings = config.parse(
        {"augment": {"crop": [4, 8], "jitter": {"hue": 0.1}}, "loss": [{"name": "ohem", "thresh": 0.7}]}
    )
    assert config.parse(yaml.safe_load(settings.to_yaml())) == settings


def test_a_misspelt_setting_is_named_with_file_path_and_nearest_name(tmp_path):
    path = write(tmp_path, "a.yaml", "train: {iteratons: 3}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: train\.iteratons: no such setting\. Did you mean 'iterations'\?"):
        config.load(path)


def test_all_wrong_settings_are_told_together(tmp_path):
    path = write(tmp_path, "a.yaml", "train: {batch_size: x}\noptim: {lr: -1}\n")
    with pytest.raises(ConfigError) as error:
        config.load(path)
    assert "train.batch_size" in str(error.value) and "optim.lr" in str(error.value)


def test_override_beats_file_beats_base(tmp_path):
    write(tmp_path, "base.yaml", "optim: {lr: 1, momentum: 0.5, weight_decay: 0.25}\n")
    path = write(tmp_path, "a.yaml", "base: base.yaml\noptim: {lr: 2, momentum: 0.75}\n")
    optim = config.load(path, ["optim.lr=3"]).optim
    assert (optim.lr, optim.momentum, optim.weight_decay) == (3, 0.75, 0.25)


def test_exponents_without_a_dot_are_numbers(tmp_path):
    assert config.load(write(tmp_path, "a.yaml", "optim: {lr: 1e-2}\n")).optim.lr == 0.01


def test_an_entry_of_a_list_can_be_overridden(tmp_path):
    path = write(tmp_path, "a.yaml", "loss: [{name: ohem}, {name: dice}]\n")
    assert config.load(path, ["loss.1.weight=0.5"]).loss[1].weight == 0.5
    with pytest.raises(ConfigError, match="the list has 2"):
        config.load(path, ["loss.2.weight=0.5"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "holds a list, not settings"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not plain YAML"),
        ("train: {iterations: 1\n", "line 2"),
        ("train: {iterations: 1, epochs: 1}\n", "both set"),
        ("eval: {mode: slide}\n", "eval.window"),
        ("base: a.yaml\n", "circle"),
        ("base: [x.yaml]\n", "one YAML file"),
        ("augment: {scale: [2, 1]}\n", "lower bound"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, "a.yaml", text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.yaml: no such file"):
        config.load(tmp_path / "missing.yaml")


def test_settings_cannot_be_changed_later():
    with pytest.raises(ValueError, match="frozen"):
        config.Config().optim.lr = 1.0


def test_a_dotted_path_finds_a_piece_of_the_current_folder(tmp_path, monkeypatch):
    write(tmp_path, "lab_piece.py", "def focal(): ...\n")
    monkeypatch.chdir(tmp_path)
    assert config.import_piece("lab_piece:focal", "loss.0.name").__name__ == "focal"
    with pytest.raises(ConfigError, match=r"loss\.0\.name: 'lab_piece' has no 'fokal'. Did you mean 'focal'"):
        config.import_piece("lab_piece:fokal", "loss.0.name")
    with pytest.raises(ConfigError, match="no module 'lab_pieces'"):
        config.import_piece("lab_pieces:focal", "loss.0.name")
