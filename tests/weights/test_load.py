from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import threading

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import torch

from hrseg import weights
from hrseg.errors import WeightsError
from hrseg.models.hrnetv2 import HRNetV2
from hrseg.models.ocrnet import OCRNet
from hrseg.task import LabelSpace, Normalisation, SegmentationClass
from tests.weights.made import SMALL, assert_same, built, official


@pytest.fixture
def file(tmp_path):
    return official(built("hrnetv2"), tmp_path)


def edited(file, change) -> None:
    state = torch.load(file, weights_only=True)
    torch.save(change(state), file)


def test_a_whole_file_says_so(file):
    model = HRNetV2(SMALL, classes=19).eval()
    report = weights.load(model, file)
    assert str(report) == f"435 of 435 tensors from {file}"
    assert report.dropped == {"loss.criterion.weight": "of the training loss"}
    assert_same(model, built("hrnetv2"))


def test_a_head_of_other_classes_keeps_its_start_values_and_is_named(file):
    model = HRNetV2(SMALL, classes=7)
    start = model.segmentation_head.conv.weight.clone()
    report = weights.load(model, file)
    assert report.other_classes == ["segmentation_head.conv.weight", "segmentation_head.conv.bias"]
    assert "433 of 435 tensors" in str(report)
    assert "classes differ: segmentation_head.conv.weight" in str(report)
    assert model.segmentation_head.conv.weight.equal(start)
    assert not model.decoder.bn.weight.eq(1).all()


def test_imagenet_weights_load_the_encoder_and_leave_the_head(tmp_path):
    classifier = built("classifier")
    weights.save(classifier, tmp_path / "in1k.safetensors", "timm")
    model = HRNetV2(SMALL, classes=7)
    report = weights.load(model, tmp_path / "in1k.safetensors")
    assert str(report).startswith("426 of 426 tensors from")
    assert "9 tensors of the head keep their initial values: decoder.conv.weight" in str(report)
    assert "its own network fuses by nearest, the model by bilinear, as the reference segmentation recipe does" in str(
        report
    )
    assert set(report.dropped.values()) == {"of the ImageNet classifier"}
    assert model.encoder.conv1.weight.equal(classifier.encoder.conv1.weight)


def test_an_encoder_and_a_shallow_one_take_what_they_have(file):
    encoder = smp.encoders.get_encoder(SMALL, depth=5, weights=None)
    assert weights.load(encoder, file).fits
    shallow = smp.FPN(SMALL, encoder_weights=None, encoder_depth=4)
    report = weights.load(shallow, file, encoder_only=True)
    assert set(report.dropped.values()) >= {"leads to features that the model does not compute"}
    assert report.fits


def test_ocr_weights_do_not_half_load_into_the_plain_network(tmp_path):
    ocr = official(built("ocrnet"), tmp_path)
    model = HRNetV2(SMALL, classes=19)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"missing: decoder\.conv\.weight.* unexpected: model\.aux_head") as error:
        weights.load(model, ocr)
    assert "FILE#encoder" in str(error.value)
    assert all(tensor.equal(before[key]) for key, tensor in model.state_dict().items())
    assert str(weights.load(model, f"{ocr}#encoder")).startswith("426 of 426 tensors")


def test_a_plain_file_does_not_half_load_into_ocr(file):
    with pytest.raises(WeightsError, match="missing"):
        weights.load(OCRNet(SMALL, classes=19), file)


def test_an_encoder_of_other_depth_or_width_is_refused(file):
    with pytest.raises(WeightsError, match=r"wrong shape: encoder\.layer1\.0\.conv1\.weight \(32, 64, 1, 1\)"):
        weights.load(HRNetV2("hrnetv2_w18_small_v2", classes=19), file)
    big = HRNetV2("hrnetv2_w18", classes=19)
    torch.save(big.state_dict(), file)
    # Every tensor of small v2 is in W18, in its shape: only what is left over tells.
    with pytest.raises(WeightsError, match=r"unexpected: encoder\.layer1\.2"):
        weights.load(HRNetV2("hrnetv2_w18_small_v2", classes=19), file)


def test_pose_weights_are_not_taken_for_a_whole_encoder(tmp_path):
    weights.save(built("pose"), tmp_path / "pose.pth", "pose")
    with pytest.raises(WeightsError, match=r"missing: encoder\.stage4\.0\.fuse_layers\.1\.0\.0\.0\.weight"):
        weights.load(HRNetV2(SMALL), tmp_path / "pose.pth", encoder_only=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda s: {k.replace("stage4.0.branches.1", "stage4.0.branch.1"): v for k, v in s.items()},
            r"stage4\.0\.branch\.1",
        ),
        (lambda s: {k: v for k, v in s.items() if ".bn2." not in k}, r"bn2\.weight"),
        (lambda s: dict(list(s.items())[:300]), r"missing: .*stage"),
        (lambda s: dict(zip(s, reversed(list(s.values())), strict=True)), "wrong shape"),
        (lambda s: {k: v for k, v in s.items() if "last_layer.3" not in k}, r"segmentation_head\.conv\.weight"),
        (lambda s: {**s, "model.extra_head.weight": torch.ones(3)}, r"extra_head"),
    ],
    ids=["renamed", "missing", "truncated", "shuffled", "headless in part", "too much"],
)
def test_damaged_state_dicts_are_refused_by_name(file, change, named):
    edited(file, change)
    with pytest.raises(WeightsError, match=named):
        weights.load(HRNetV2(SMALL, classes=19), file)
    with pytest.raises(WeightsError, match=named):
        weights.build_model(file)


def test_a_file_in_another_order_loads(file):
    edited(file, lambda s: dict(reversed(list(s.items()))))
    assert weights.load(HRNetV2(SMALL, classes=19), file).fits


def test_files_that_are_no_checkpoints_are_refused(tmp_path, file):
    empty = tmp_path / "empty.pth"
    empty.touch()
    text = tmp_path / "text.pth"
    text.write_text("not found")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(file.read_bytes()[:100_000])
    for path in (empty, text, cut):
        with pytest.raises(WeightsError, match=path.name):
            weights.read_checkpoint(path)
    with pytest.raises(WeightsError, match="is a folder"):
        weights.read_checkpoint(tmp_path)
    torch.save({"a": torch.ones(2)}, text)
    with pytest.raises(WeightsError, match=r"no HRNet that hrseg knows.*Its first names: a"):
        weights.inspect(text)


def test_a_width_that_hrseg_does_not_know_is_named(file):
    edited(file, lambda s: {k: v[:, :12] if ".branches." in k and v.ndim == 4 else v for k, v in s.items()})
    edited(file, lambda s: {k: v[:12] if ".branches." in k and v.ndim == 4 else v for k, v in s.items()})
    with pytest.raises(WeightsError, match=r"width .*Known: w18_small_v1"):
        weights.inspect(file)


def test_any_encoder_s_own_files_load_by_their_own_names(tmp_path):
    unet = smp.Unet("resnet18", encoder_weights=None)
    torch.save({"state_dict": {f"module.{k}": v for k, v in unet.state_dict().items()}}, tmp_path / "unet.pth")
    assert weights.load(smp.Unet("resnet18", encoder_weights=None), tmp_path / "unet.pth").fits
    with pytest.raises(WeightsError):
        weights.load(smp.Unet("resnet34", encoder_weights=None), tmp_path / "unet.pth")


def test_more_input_channels_are_seen(tmp_path):
    model = HRNetV2(SMALL, in_channels=5, classes=3)
    assert weights.inspect(official(model, tmp_path)).in_channels == 5


def test_a_hub_id_is_downloaded_by_its_revision(tmp_path, monkeypatch):
    weights.save(built("classifier"), tmp_path / "model.safetensors", "timm")
    asked = []

    def download(repo, name, revision=None):
        asked.append((repo, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for source in ("hf:owner/name", "owner/name@v1"):
        assert weights.inspect(source).architecture == "classifier"
    assert [one for one in asked if one[1] != "config.json"] == [
        ("owner/name", "model.safetensors", None),
        ("owner/name", "model.safetensors", "v1"),
    ]

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
    with pytest.raises(WeightsError, match="cannot be fetched from the Hugging Face hub: no network"):
        weights.read_checkpoint("hf:owner/name")
    with pytest.raises(WeightsError, match="no such file"):
        weights.read_checkpoint("runs/best.pt")  # a path that is not there is not a hub id


def test_an_address_needs_the_right_checksum(tmp_path, monkeypatch):
    weights.save(built("hrnetv2"), tmp_path / "w.pth", "official")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/w.pth"
        digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
        with pytest.raises(WeightsError, match="needs its file's checksum"):
            weights.read_checkpoint(url)
        with pytest.raises(WeightsError, match=f"its sha256 is {digest}"):
            weights.read_checkpoint(f"{url}#sha256={'0' * 64}")
        assert [p.name for p in (tmp_path / "hub").rglob("*") if p.is_file()] == []
        assert weights.inspect(f"{url}#sha256={digest}").family.name == "official"
        server.shutdown()
    assert weights.inspect(f"{url}#sha256={digest}").report.fits  # from the cache: the server is gone


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_inspecting_a_model_of_an_smp_architecture_fetches_no_imagenet_weights(tmp_path, monkeypatch):
    model = smp.Unet("resnet18", encoder_weights=None, classes=2)
    config = {"model": {"arch": "unet", "encoder": "resnet18"}}
    meaning = LabelSpace((SegmentationClass("a", (0, 0, 0)), SegmentationClass("b", (1, 1, 1)))).to_plain()
    content = {"model": model.state_dict(), "config": config, "normalisation": Normalisation().to_plain(), **meaning}
    torch.save(content, tmp_path / "best.pt")

    def no_network(*_, **__):
        raise AssertionError("asks the network")

    for name in ("connect", "getaddrinfo"):
        monkeypatch.setattr(socket.socket if name == "connect" else socket, name, no_network)
    found = weights.inspect(tmp_path / "best.pt")
    assert (found.architecture, found.report.fits) == ("unet", True)
    assert weights.build_model(found).state_dict().keys() == model.state_dict().keys()
