"""Configs that come with hrseg: by name from anywhere, after a file of that name."""

from __future__ import annotations

import shutil

import pytest

from hrseg import config
from hrseg.config import shipped
from hrseg.errors import ConfigError
from tests.conftest import ROOT


def test_a_name_finds_a_shipped_config_with_its_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = config.load("cityscapes_ohem.yaml", ["train.batch_size=4"])
    assert settings.loss[0].name == "ohem" and settings.model.encoder == "hrnetv2_w48"  # the second from its base
    assert config.load("configs/cityscapes_ohem.yaml").loss == settings.loss


def test_a_file_comes_before_a_shipped_config(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cityscapes.yaml").write_text("optim: {lr: 7}\n")
    with caplog.at_level("INFO"):
        assert config.load("cityscapes.yaml").optim.lr == 7
    assert "shipped" not in caplog.text


def test_the_error_for_an_unknown_config_lists_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"citiscapes\.yaml: no such file\..*Did you mean 'cityscapes.yaml'\?.*camvid"
    ):
        config.load("citiscapes.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "cityscapes.yaml")  # a folder was given: only there


@pytest.mark.parametrize("packages", ["lib/python3.11/site-packages", "."], ids=["environment", "target"])
def test_an_installation_finds_them_in_share(packages, tmp_path, monkeypatch):
    """Where pip puts the data files of a wheel: share/ of the environment, or of the folder given as --target."""
    shutil.copytree(ROOT / "configs", tmp_path / "share" / "hrseg" / "configs")
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / packages / "hrseg" / "config" / "shipped.py"))
    found = shipped.shipped_configs()
    assert found.keys() == {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert found["demo.yaml"] == tmp_path / "share" / "hrseg" / "configs" / "demo.yaml"


def test_without_any_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "hrseg" / "config" / "shipped.py"))
    with pytest.raises(ConfigError, match="Known: none"):
        config.load("cityscapes.yaml")
