"""Weights that are one small step from fitting: other input channels, wrappers, models of smp."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch

from hrseg import HRNetV2, weights
from hrseg.commands import convert
from hrseg.errors import WeightsError
from hrseg.models.hrnet import HRNet
from hrseg.weights.matching import with_input_channels

SMALL = "hrnetv2_w18_small_v1"


def model(cls=HRNetV2, channels=3, encoder=SMALL, **options):
    torch.manual_seed(channels)
    return cls(encoder, encoder_weights=None, classes=3, in_channels=channels, **options).eval()


def same(one, other, channels=3):
    image = torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.equal(one(image), other(image))


@pytest.fixture(scope="module")
def trained():
    return model()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m, s: torch.optim.swa_utils.AveragedModel(m).state_dict(),
        lambda m, s: {"state_dict": {f"model._orig_mod.{k}": v for k, v in s.items()}, "hyper_parameters": {"lr": 1}},
        lambda m, s: {"model": {k: v * 0 for k, v in s.items()}, "ema_state_dict": s, "updates": 7},
        lambda m, s: {
            "state_dict": {f"model.{k}": v * 0 for k, v in s.items()}
            | {f"ema_model.module.{k}": v for k, v in s.items()}
            | {"ema_model.n_averaged": torch.tensor(3)}
        },
        lambda m, s: {"mine": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}},
        lambda m, s: {"message_hub": {}, "state_dict": s, "ema_state_dict": {k: v * 0 for k, v in s.items()}},
    ],
    ids=["AveragedModel", "lightning", "ModelEMA", "lightning with average", "bundle", "mmengine"],
)
def test_wrappers_are_taken_off_and_the_average_counts(trained, wrap, tmp_path):
    torch.save(wrap(trained, trained.state_dict()), tmp_path / "file.pth")
    assert same(weights.build_model(tmp_path / "file.pth"), trained)


@pytest.mark.parametrize(("file", "channels"), [(3, 4), (3, 1), (3, 7), (4, 3), (1, 3)])
@pytest.mark.parametrize("cls", [HRNetV2, smp.Unet])
def test_the_first_convolution_fits_any_number_of_channels_as_in_smp(cls, file, channels, tmp_path):
    source, target = model(cls, file), model(cls, channels)
    torch.save(source.state_dict(), tmp_path / "file.pth")
    report = weights.load(target, tmp_path / "file.pth")
    assert f"{file} input channels to the model's {channels}" in str(report)
    if file == 3:  # smp's own way is from three
        source.encoder.set_in_channels(channels, pretrained=True)
        assert same(target, source, channels)
    with pytest.raises(WeightsError, match="conv1"):
        weights.load(model(cls, channels), tmp_path / "file.pth", complete=True)


def test_extra_channels_may_start_at_zero():
    weight = torch.randn(2, 3, 1, 1)
    adapted = with_input_channels(weight, 5, "zero")
    assert torch.equal(adapted[:, :3], weight) and not adapted[:, 3:].any()


@pytest.mark.parametrize("channels", [2, 4])
def test_an_encoder_of_other_channels_takes_weights_of_a_whole_model_of_any_encoder(channels, tmp_path):
    whole = {f"model.{k}": v for k, v in model(smp.Unet, encoder="resnet18").state_dict().items()}
    torch.save({"state_dict": whole}, tmp_path / "file.ckpt")
    report = weights.load(model(smp.FPN, channels, "resnet18"), f"{tmp_path / 'file.ckpt'}#encoder")
    assert report.adapted and not report.missing


@pytest.mark.parametrize("name", ["unet", "fpn", "upernet", "deeplabv3plus"])
def test_a_model_of_smp_from_a_loop_of_ones_own_is_recognised_and_converted_whole(name, tmp_path):
    own = model(smp.MODEL_ARCHITECTURES_MAPPING[name])
    torch.save(own.state_dict(), tmp_path / "file.pth")
    assert convert.main([str(tmp_path / "file.pth"), "--out", str(tmp_path / "out.pt")]) == 0
    assert weights.inspect(tmp_path / "out.pt").architecture == name
    assert same(weights.build_model(tmp_path / "out.pt"), own)


def test_convert_writes_all_of_it_or_nothing(tmp_path, capsys):
    torch.save(model(smp.Unet, decoder_channels=(64, 32, 16, 8, 8)).state_dict(), tmp_path / "file.pth")
    assert convert.main([str(tmp_path / "file.pth"), "--out", str(tmp_path / "out.pt")]) == 2
    assert "without a counterpart" in capsys.readouterr().err and not (tmp_path / "out.pt").exists()
    assert convert.main([str(tmp_path / "file.pth"), "--encoder-only", "--out", str(tmp_path / "out.pt")]) == 0


@pytest.mark.parametrize(
    ("cls", "encoder", "options"),
    [(smp.Unet, SMALL, {"decoder_channels": (64, 32, 16, 8, 8)}), (smp.FPN, "resnet18", {}), (HRNetV2, SMALL, {})],
)
def test_smps_own_folder_is_read_with_its_options(cls, encoder, options, tmp_path):
    own = model(cls, 4, encoder, **options)
    own.save_pretrained(tmp_path / "folder")
    assert same(weights.build_model(tmp_path / "folder"), own, 4)


def test_a_folder_without_a_checkpoint_says_what_was_looked_for(tmp_path):
    with pytest.raises(WeightsError, match=r"checkpoints/best\.pt"):
        weights.read_checkpoint(tmp_path)


def test_a_whole_encoder_is_still_an_encoder(tmp_path):
    torch.save(HRNet("w18_small_v1").state_dict(), tmp_path / "trunk.pth")
    assert weights.inspect(tmp_path / "trunk.pth").architecture == "encoder"
