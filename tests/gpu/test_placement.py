"""On a GPU nothing is left on the CPU: shown on any machine, by tensors without values that know their device."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from hrseg import config as settings
from hrseg import losses
from hrseg.build.trained_model import load_trained_models
from hrseg.build.training import training_plan
from hrseg.data.loader import Batch, Normalise
from hrseg.evaluate import evaluation
from hrseg.losses import LOSSES, TASKS, CombinedLoss, make_term
from hrseg.metrics import confusion_matrix, multilabel_confusion
from hrseg.predict import predictor as predicting
from hrseg.task import LabelSpace, SegmentationClass, Task
from hrseg.train.nonfinite import FiniteWatch
from hrseg.train.run import Run
from hrseg.train.step import iterate
from tests.gpu.fake import CUDA, fake_gpu

# Their number of values depends on the values, which are not there: test_losses.py of this folder has them on a GPU.
OF_UNKNOWN_SIZE = ("lovasz", "mcc", "dice", "jaccard", "tversky", "focal", "soft_ce")


@pytest.fixture(autouse=True)
def quiet():
    """torch says that there is no CUDA wherever autocast and the scaler are asked for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def space(task: Task = Task.MULTICLASS) -> LabelSpace:
    classes = 2 if task is Task.BINARY else 4
    return LabelSpace(tuple(SegmentationClass(f"class {i}", (i, i, i)) for i in range(classes)), task)


def loss_on_gpu(name: str, task: Task) -> torch.Tensor:
    of, weighted = space(task), name in ("ohem", "cross_entropy")
    loss = CombinedLoss([(name, make_term(name, of, {"class_weights": [1, 2, 3, 4]} if weighted else {}), 1.0, "main")])
    shape = (2, 4, 12, 16) if task is Task.MULTILABEL else (2, 12, 16)
    logits = torch.zeros(2, of.outputs, 12, 16, device=CUDA)
    return loss.to(CUDA)(logits, torch.zeros(shape, dtype=torch.uint8, device=CUDA)).total


@pytest.mark.parametrize(
    ("name", "task"),
    [(n, t) for t in Task for n in LOSSES if t in TASKS.get(n, tuple(Task)) and n not in OF_UNKNOWN_SIZE],
)
def test_losses(name, task):
    with fake_gpu():
        assert loss_on_gpu(name, task).device == CUDA


def test_a_tensor_of_the_cpu_among_those_of_a_loss_is_found(monkeypatch):
    def broken(hardness, *_):
        return torch.zeros(hardness.shape, device="cpu")

    monkeypatch.setattr(losses, "_easiest_kept", broken)
    with fake_gpu(), pytest.raises(RuntimeError, match="same device"):
        loss_on_gpu("ohem", Task.MULTICLASS)


def test_confusion_matrices():
    with fake_gpu():
        labels, target = (torch.zeros(2, 8, 8, dtype=torch.uint8, device=CUDA) for _ in range(2))
        assert confusion_matrix(labels, target, 3).shape == (3, 3)
        assert confusion_matrix(labels.long(), target.cpu(), 3).shape == (3, 3)
        assert multilabel_confusion(labels, target, 2).shape == (2, 2, 2)


def plan_of(root, *, arch="hrnetv2", **train):
    return training_plan(
        settings.parse(
            {
                "model": {"encoder": "hrnetv2_w18_small_v1", "arch": arch},
                "data": {"dataset": "folder", "root": str(root), "workers": 0, "check": False},
                "augment": {"crop": [48, 64]},
                "loss": [
                    {"name": "ohem", "class_weights": [1, 2, 3]},
                    {"name": "cross_entropy", "output": "aux" if arch == "ocrnet" else "main", "weight": 0.4},
                ],
                "optim": {"name": "adamw"},  # torch's fused SGD knows no tensors without values
                "train": {"iterations": 3, "batch_size": 2, "ema": 0.9, **train},
            }
        ),
        CUDA,
    )


def one_iteration(root, **train) -> None:
    with fake_gpu() as learning:
        plan = plan_of(root, **train)
        learning.extend(plan.model.parameters())
        run = Run(plan)
        watch = FiniteWatch(run, root)
        (batch,) = run.batches(0, 1)
        result = iterate(run, batch)
        watch.see(result)
        found = [result.loss, result.grad_norm, result.kept_share, *result.terms.values(), *run.ema.model.parameters()]
        assert {x.device for x in [*found, *run.ema.model.buffers()]} == {CUDA}


@pytest.mark.parametrize(
    "train",
    [
        {"accumulate": 2, "clip_norm": 1.0, "precision": "fp16"},
        {"arch": "ocrnet", "recompute": True, "precision": "bf16", "channels_last": False},
    ],
    ids=str,
)
def test_a_training_step(shapes, train):
    one_iteration(shapes, **train)


def test_a_batch_left_on_the_cpu_is_found(shapes, monkeypatch):
    monkeypatch.setattr(Batch, "to", lambda batch, device: batch)
    with pytest.raises(RuntimeError, match="same device"):
        one_iteration(shapes)


@pytest.mark.parametrize(
    "how", [{}, {"mode": "slide", "window": [48, 48], "scales": [1.0, 1.5], "flip": True}], ids=str
)
def test_answers_of_the_fast_form(shapes, monkeypatch, how):
    monkeypatch.setattr(evaluation, "FEW_IMAGES", 1)
    with fake_gpu():
        plan = plan_of(shapes)
        inference = evaluation.Inference.from_config(settings.parse({"eval": how}).eval, Task.MULTICLASS)
        found = answers_of(plan, evaluation.EvaluationPlan(inference, backend="torch", batch_size=2))
    assert [(answer.place, answer.prediction.shape) for answer in found] == [(0, (48, 64)), (1, (48, 64))]


def answers_of(plan, how):
    return list(evaluation.answers(plan.model, plan.val_set, how, plan.normalisation, device=CUDA))


def test_normalisation_left_on_the_cpu_is_found(shapes, monkeypatch):
    monkeypatch.setattr(Normalise, "to", lambda module, device: module)
    with fake_gpu(), pytest.raises(RuntimeError, match="same device"):
        plan = plan_of(shapes)
        answers_of(plan, plan.validation)


def test_predictions_whole_resized_and_in_tiles(saved, monkeypatch):
    members = load_trained_models([saved])
    monkeypatch.setattr(predicting, "load_trained_models", lambda *_, **__: members)
    monkeypatch.setattr(predicting, "FEW_IMAGES", 2)  # the first picture by the model, the others by its fast form
    photo = np.zeros((32, 64, 3), np.uint8)
    with fake_gpu():
        predictor = predicting.Predictor(saved, "cuda", flip=True, tile=0)
        assert predictor(photo, probabilities=True).probabilities.shape == (3, 32, 64)
        predictor.tile, predictor.inference = 128, predicting.Inference(Task.MULTICLASS)
        with monkeypatch.context() as patch:
            patch.setattr(predictor, "_in_tiles", lambda size: True)
            assert predictor(np.zeros((96, 200, 3), np.uint8)).labels.shape == (96, 200)
        predictor.short_side = 48
        assert predictor(photo).labels.shape == (32, 64)
