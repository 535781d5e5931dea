"""What a person writes for a text or a path is taken as it stands, on the command line and in a file."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from hrseg import config as settings
from hrseg.config.text_settings import TEXT_OPTIONS
from hrseg.console import expand_home, split_settings
from hrseg.data import DATASETS
from hrseg.errors import ConfigError

WORDS = ["/data/Project #3", "007", "1.10", "20261127", "2026-11-27", "no", "off", "1e3", "0x10", "true", "a: b",
         "{x}", "a b", "*star", "&and", "!bang", "% 5", "- dash", "'quoted'", "1_000", "12:30", "[a"]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("key", ["run.dir", "data.root", "data.val_split", "track.name", "data.cache_dir", "base_dir"])
def test_a_text_on_the_command_line_is_what_was_typed(key, word):
    if key == "base_dir":
        with pytest.raises(ConfigError, match="no such setting"):
            settings.parse(settings.override({}, [f"{key}=x"]))
        return
    section, name = key.split(".")
    config = settings.parse(settings.override({}, [f"{key}={word}"]))
    assert str(getattr(getattr(config, section), name)) == word


@pytest.mark.parametrize("word", ["007", "1.10", "20261127", "2026-11-27", "no", "off", "1e3", "0x10", "true"])
def test_a_text_in_a_file_is_what_was_written(tmp_path, word):
    path = tmp_path / "c.yaml"
    path.write_text(
        f"run: {{dir: {word}}}\ndata:\n  root: {word}\n  mask_suffix: {word}\n"
        f"track: {{tags: [{word}, b], name: {word}}}\n"
        f"loss: [{{name: {word}}}]\n"
    )
    config = settings.load(path)
    assert str(config.run.dir) == str(config.data.root) == config.track.name == config.track.tags[0] == word
    assert config.data.options["mask_suffix"] == config.loss[0].name == word


def test_null_and_nothing_are_none_and_a_list_is_a_list():
    config = settings.parse(settings.override({}, ["run.dir=null", "track.name=", "track.tags=[a, 007, no]"]))
    assert config.run.dir is None and config.track.name is None and config.track.tags == ["a", "007", "no"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = settings.parse(
        settings.override({"data": {"root": "~/a"}}, ["run.dir=~/b", "model.weights=~/c.pt#encoder"])
    )
    assert (config.data.root, config.run.dir) == (tmp_path / "a", tmp_path / "b")
    assert config.model.weights == f"{tmp_path}/c.pt#encoder"
    assert expand_home("~/photos") == f"{tmp_path}/photos" and expand_home("--out=~/x") == f"--out={tmp_path}/x"
    assert expand_home("a~/b") == "a~/b" and expand_home("data.root=~/a") == "data.root=~/a"


def test_values_that_are_not_texts_are_yaml_as_before():
    words = [
        "train.ema=0.90",
        "run.seed=7",
        "optim.lr=1e-3",
        "run.deterministic=no",
        "augment.flip=0",
        "train.epochs=null",
    ]
    config = settings.parse(settings.override({"train": {"epochs": 3}}, words))
    assert (config.train.ema, config.run.seed, config.optim.lr) == (0.9, 7, 1e-3)
    assert config.run.deterministic is False and config.train.epochs is None


def test_settings_that_were_read_are_read_again_the_same(tmp_path):
    config = settings.parse(settings.override({}, ["run.dir=007", "data.root=/a #b", "track.name=no"]))
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    assert settings.load(tmp_path / "c.yaml") == config


def test_the_text_options_are_those_of_the_data_sets():
    texts = {str(kind) for kind in (str, "str", "str | Path | None", "Path")}
    named = {
        ("data", name)
        for piece in DATASETS.values()
        for name, parameter in inspect.signature(piece).parameters.items()
        if str(parameter.annotation) in texts and name not in ("root", "split")
    }
    assert named == TEXT_OPTIONS


def test_a_path_with_an_equals_sign_is_no_setting():
    words = ["runs/lr=0.1/config.yaml", "optim.lr=0.1", "--x", "a=b/c"]
    assert split_settings(words) == (["runs/lr=0.1/config.yaml", "--x"], ["optim.lr=0.1", "a=b/c"])
    assert Path(words[0]).name == "config.yaml"
