"""The examples of docs/examples do what they say."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hrseg.commands import train as train_command
from hrseg.export import export
from hrseg.inference import Inference
from hrseg.task import Task
from tests.conftest import ROOT
from tests.export.conftest import loaded  # noqa: F401 (a fixture)


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smp_trains_over_the_encoder_in_its_own_style():
    assert example("smp_style").train(steps=12) > 0.6


def test_the_head_learns_over_an_encoder_of_timm():
    losses, _ = example("head_over_convnext").train("tu-convnext_atto", steps=5)
    assert min(losses[2:]) < losses[0]


def test_lightning_gives_the_losses_of_the_command(config_file, tmp_path):
    pytest.importorskip("lightning")
    changes = ["train.iterations=20", "train.val_every=20", f"run.dir={tmp_path / 'ours'}"]
    assert train_command.main([str(config_file), *changes]) == 0
    records = map(json.loads, (tmp_path / "ours" / "log.jsonl").read_text().splitlines())
    ours = [record["loss"] for record in records if record["kind"] == "train"]
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    module = example("in_lightning").train(str(config_file), changes, accelerator="cpu", **quiet)
    assert len(ours) == 20 and module.losses == ours
    best = json.loads((tmp_path / "ours" / "metrics.json").read_text())["miou"]
    assert float(module.trainer.callback_metrics["miou"]) == pytest.approx(best, abs=1e-6)


def test_the_exported_model_runs_where_neither_torch_nor_hrseg_is(loaded, tmp_path):  # noqa: F811
    pytest.importorskip("onnxruntime")
    export(loaded(), tmp_path / "m.onnx", "onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['hrseg'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    files = [tmp_path / name for name in ("m.onnx", "photo.png", "labels.png")]
    command = [sys.executable, "-c", code, ROOT / "docs" / "examples" / "onnx_alone.py", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        x = torch.from_numpy(pixels.transpose(2, 0, 1)[None]) / 255
        wanted = loaded().model((x - 0.5) / 0.25)[0].argmax(0).numpy()
    assert (np.asarray(Image.open(files[2])) == wanted).mean() > 0.9999


@pytest.mark.parametrize(("task", "channels", "highest"), [
    ("binary", 1, 65535.0), ("binary", 3, 255.0), ("multilabel", 1, 255.0), ("multiclass", 1, 4095.0),
])  # fmt: skip
def test_the_exported_model_runs_alone_in_every_task_on_grey_and_16_bits(loaded, tmp_path, task, channels, highest):  # noqa: F811
    pytest.importorskip("onnxruntime")
    model = loaded(Task(task), channels=channels, highest=highest)
    shape, kind = (70, 96, 3) if channels == 3 else (70, 96), np.uint8 if highest == 255 else np.uint16
    pixels = np.random.default_rng(0).integers(0, int(highest) + 1, shape).astype(kind)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    x = torch.from_numpy(pixels.reshape(70, 96, channels).astype(np.float32).transpose(2, 0, 1)[None]) / highest
    with torch.inference_mode():
        logits = model.model((x - 0.5) / 0.25)
    if task != "multiclass":  # so that both answers occur, and only the model's own threshold gives them
        model = dataclasses.replace(model, threshold=float(logits.sigmoid().median()))
    export(model, tmp_path / "m.onnx", "onnx", dynamic=True)
    shares = example("onnx_alone").segment(*(str(tmp_path / name) for name in ("m.onnx", "photo.png", "labels.png")))
    wanted = Inference(model.space.task, threshold=model.threshold).labels(logits)[0].numpy()
    if task == "multilabel":
        found = np.stack([np.asarray(Image.open(tmp_path / f"labels_{k}.png")) > 0 for k in range(3)])
        assert list(shares.values()) == pytest.approx([plane.mean() for plane in found])
    else:
        found = np.asarray(Image.open(tmp_path / "labels.png"))
        assert sum(shares.values()) == pytest.approx(1)
    assert (found == wanted).mean() > 0.999 and len(np.unique(wanted)) > 1


@pytest.mark.long
def test_overlapping_labels_over_four_channels_of_16_bits_go_from_files_to_onnx(tmp_path):
    field, water = example("multispectral").run(tmp_path)
    assert field[20, 30] and not water[20, 30]
    assert water[50, 32] and not field[50, 32]
    assert field[36, 32] and water[36, 32]  # both
