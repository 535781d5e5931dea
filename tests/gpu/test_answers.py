"""Prediction and evaluation on a GPU, against the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hrseg import config as settings
from hrseg.build import data_sets
from hrseg.build.evaluation import EvaluationPlan
from hrseg.build.trained_model import load_trained_model
from hrseg.commands import predict as predict_command
from hrseg.evaluate import evaluation
from hrseg.inference import FEW_IMAGES, Inference
from hrseg.predict.predictor import Predictor
from hrseg.task import Task

pytestmark = pytest.mark.gpu
RNG = np.random.default_rng(0)


def picture(height: int, width: int) -> np.ndarray:
    """Soft shapes, uint8 RGB."""
    coarse = RNG.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((32, 32, 1), np.uint8))[:height, :width]


def test_predictions_are_those_of_the_cpu_before_and_after_the_fast_form(saved, device, strict):
    photo = picture(75, 107)
    expected = Predictor(saved, "cpu")(photo).probabilities
    predictor = Predictor(saved, str(device), precision="fp32")
    for _ in range(FEW_IMAGES + 3):
        np.testing.assert_allclose(predictor(photo).probabilities, expected, atol=1e-3)


def test_tiles_on_the_gpu_are_tiles_on_the_cpu(saved, device, strict):
    photo = picture(480, 560)
    here, there = (Predictor(saved, str(d), tile=256, precision="fp32")(photo) for d in (device, "cpu"))
    assert (here.labels == there.labels).mean() > 0.999
    assert here.labels.shape == (480, 560)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_answers_alike(saved, device, precision):
    photo = picture(75, 107)
    expected = Predictor(saved, "cpu")(photo).probabilities
    predictor = Predictor(saved, str(device), precision=precision)
    for _ in range(FEW_IMAGES + 3):
        assert np.abs(predictor(photo).probabilities - expected).mean() < 0.05


@pytest.mark.parametrize(
    "how",
    [{}, {"mode": "slide", "window": [32, 32]}, {"scales": [0.5, 1.0, 1.5], "flip": True, "turns": True}],
    ids=str,
)
@pytest.mark.parametrize("few", [1, 100], ids=["fast form", "the model"])
def test_evaluations_are_those_of_the_cpu(shapes, saved, device, strict, monkeypatch, how, few):
    monkeypatch.setattr(evaluation, "FEW_IMAGES", few)
    loaded = load_trained_model(saved)
    data = settings.parse({"data": {"dataset": "folder", "root": str(shapes), "workers": 0, "check": False}})
    dataset = data_sets(data)["train"]
    plan = EvaluationPlan(Inference.from_config(settings.parse({"eval": how}).eval, Task.MULTICLASS), backend="torch")
    counts = []
    for where in (torch.device("cpu"), device):
        model = loaded.model.to(where).to(memory_format=torch.channels_last)
        found = evaluation.evaluate(model, dataset, dataclasses.replace(plan), loaded.normalisation, device=where)
        counts.append(found.per_image.total())
    assert np.abs(counts[0] - counts[1]).sum() <= 0.002 * counts[0].sum()


def test_too_little_memory_ends_prediction_with_one_line(saved, cuda, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(picture(2048, 2048)).save(tmp_path / "photo.png")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.004)
    try:
        words = ["--checkpoint", str(saved), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--tile", "0"]
        assert predict_command.main([*words, "--device", "cuda"]) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    said = capsys.readouterr().err
    assert "error: memory:" in said and "--tile" in said and "Traceback" not in said
