from __future__ import annotations

import pytest
import torch

from hrseg import weights
from hrseg.build.trained_model import load_trained_model
from hrseg.commands import convert
from hrseg.commands.convert import main
from hrseg.errors import WeightsError
from hrseg.models.ocrnet import OCRNet
from hrseg.weights.families import ALIASES, FAMILIES
from hrseg.weights.save import SAVED
from tests.weights.made import SMALL, assert_same, built, official


@pytest.fixture
def file(tmp_path):
    return official(built("hrnetv2"), tmp_path)


def test_inspect_names_everything_and_writes_nothing(file, capsys):
    assert main([str(file), "--inspect"]) == 0
    said = capsys.readouterr().out
    for word in ("official: ", "w18_small_v1", "hrnetv2, 19 classes (road,", "fusion bilinear", "435 of 435 tensors"):
        assert word in said
    for row in (
        "matched",
        "renamed",
        "dropped",
        "of the training loss (1): loss",
        "missing",
        "unexpected",
        "wrong shape",
    ):
        assert row in said
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_what_is_written_rebuilds_the_model_with_its_classes(file, tmp_path, ending, capsys):
    out = tmp_path / "new" / f"model.{ending}"
    assert main([str(file), "--out", str(out)]) == 0
    found = weights.inspect(out)
    assert (found.family.name, found.encoder, found.space.names[0]) == ("hrseg", SMALL, "road")
    assert not found.questions
    assert_same(weights.build_model(out), built("hrnetv2"))
    assert_same(load_trained_model(out).model, built("hrnetv2"))  # what tools/test.py reads


@pytest.mark.parametrize("architecture", ["hrnetv2", "ocrnet", "c1"])
def test_a_file_of_another_family_is_scored_as_it_is(tmp_path, architecture):
    family = {"hrnetv2": "mmseg", "ocrnet": "official", "c1": "official"}[architecture]
    if architecture == "c1":  # two files there; in hrseg's own one
        files = weights.save(built("c1"), tmp_path / "theirs.pth", "csail")
        assert main([*map(str, files), "--out", str(tmp_path / "c1.pt")]) == 0
        loaded = load_trained_model(tmp_path / "c1.pt")
    else:
        (file,) = weights.save(built(architecture), tmp_path / "theirs.pth", family)
        loaded = load_trained_model(file)
    assert_same(loaded.model, built(architecture))
    assert (loaded.space.names[0], loaded.config.model.arch) == ({"c1": "wall"}.get(architecture, "road"), architecture)
    assert loaded.classes_assumed == (architecture != "c1")


def test_a_file_that_segments_nothing_is_no_checkpoint_to_score(tmp_path):
    (file,) = weights.save(built("pose"), tmp_path / "pose.pth", "pose")
    with pytest.raises(WeightsError, match=r"is not a segmentation model: .*pose"):
        load_trained_model(file)
    assert main([str(file), "--out", str(tmp_path / "pose.pt")]) == 0
    with pytest.raises(WeightsError, match="is not a segmentation model"):
        load_trained_model(tmp_path / "pose.pt")


@pytest.mark.parametrize("architecture", ["ocrnet", "c1", "classifier", "pose", "detection", "increased"])
def test_every_architecture_comes_back_from_its_own_file(tmp_path, architecture):
    family = {"ocrnet": "official", "c1": "csail", "classifier": "timm", "increased": "timm"}.get(
        architecture, architecture
    )
    files = weights.save(built(architecture), tmp_path / "theirs.pth", family)
    out = tmp_path / "ours.safetensors"
    assert main([*map(str, files), "--out", str(out)]) == 0
    assert_same(weights.build_model(out), built(architecture), (139, 203))


def test_the_encoder_of_a_whole_checkpoint_loads_into_another_model(file, tmp_path):
    whole, alone = tmp_path / "whole.pt", tmp_path / "alone.safetensors"
    assert main([str(file), "--out", str(whole)]) == 0
    assert main([str(whole), "--encoder-only", "--out", str(alone)]) == 0
    model = OCRNet(SMALL, classes=4)
    assert str(weights.load(model, alone)).startswith("426 of 426 tensors")
    assert model.encoder.conv1.weight.equal(built("hrnetv2").encoder.conv1.weight)


def test_to_another_family_and_back(file, tmp_path):
    assert main([str(file), "--to", "mmseg", "--out", str(tmp_path / "mm.pth")]) == 0
    assert main([str(tmp_path / "mm.pth"), "--to", "official", "--out", str(tmp_path / "back.pth")]) == 0
    assert weights.inspect(tmp_path / "back.pth").family.name == "official"
    assert_same(weights.build_model(tmp_path / "back.pth"), built("hrnetv2"))


@pytest.mark.parametrize("gone", ["model.stage3.0.branches.0.0.bn1.weight", "model.last_layer.0.weight"])
def test_a_tensor_without_a_partner_is_exit_code_2_and_no_file(file, tmp_path, capsys, gone):
    state = torch.load(file, weights_only=True)
    del state[gone]
    torch.save(state, file)
    out = tmp_path / "out.safetensors"
    assert main([str(file), "--out", str(out)]) == 2
    assert main([str(file), "--inspect"]) == 2
    given = capsys.readouterr()
    ours = {"model.last_layer.0.weight": "decoder.conv.weight"}.get(gone, gone.replace("model.", "encoder."))
    assert f"1: {ours}" in given.out
    assert "--encoder-only" in given.err
    assert not out.exists()
    # The encoder alone is whole where the head was hurt.
    assert main([str(file), "--out", str(out), "--encoder-only"]) == (0 if "last_layer" in gone else 2)
    assert out.exists() == ("last_layer" in gone)


def test_a_source_is_not_written_over(file, capsys):
    before = file.read_bytes()
    assert main([str(file), "--out", str(file)]) == 2
    assert file.read_bytes() == before


def test_a_file_that_is_not_there_is_exit_code_2(capsys):
    assert main(["nowhere.pth"]) == 2
    assert "nowhere.pth: no such file" in capsys.readouterr().err


def test_the_families_in_the_help_are_those_of_the_code():
    assert set(convert.SAVED) == set(SAVED)
    assert set(convert.READ) == set(FAMILIES)
    assert set(convert.ALIASES) == set(ALIASES)
