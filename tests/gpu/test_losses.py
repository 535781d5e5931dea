"""Losses, confusion matrices and labels on a GPU, against the CPU in the same precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hrseg.inference import Inference, resize
from hrseg.losses import CombinedLoss, OhemCrossEntropyLoss, cross_entropy, make_term, ohem_cross_entropy
from hrseg.metrics import confusion_matrix
from hrseg.predict.predictor import enlarged_rows
from hrseg.task import Task
from tests.test_losses import CITYSCAPES_WEIGHTS, every_fitting_loss, example, task_example

pytestmark = pytest.mark.gpu
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5}
KINDS = pytest.mark.parametrize("kind", TOLERANCES, ids=str)
REFERENCES = [Path(__file__).parents[1] / "data/golden"]


def value_and_gradient(loss, logits, target, device, kind):
    x = logits.detach().to(device, kind).requires_grad_()
    value = loss(x, target.to(device))
    assert value.device == x.device
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach().cpu().double(), gradient.cpu().double()


def assert_as_on_the_cpu(make, logits, target, device, kind) -> None:
    """make: gives the loss for a device."""
    value, gradient = value_and_gradient(make(device), logits, target, device, kind)
    expected, wanted = value_and_gradient(make("cpu"), logits, target, "cpu", kind)
    assert value.isfinite() and (value - expected).abs() <= TOLERANCES[kind] * expected.abs().clamp(min=1e-3)
    assert (gradient - wanted).abs().max() <= TOLERANCES[kind] * wanted.abs().max()


@KINDS
@pytest.mark.parametrize(("task", "name"), list(every_fitting_loss()))
def test_every_loss(task, name, device, kind):
    if name == "lovasz" and kind == torch.float64:
        pytest.skip("smp's takes no float64")
    logits, target, space = task_example(task)
    target[..., :5] = 255

    def make(where):
        loss = CombinedLoss([(name, make_term(name, space, {}), 1.0, "main")]).to(where)
        return lambda x, t: loss(x, t).total

    assert_as_on_the_cpu(make, logits, target, device, kind)


def ohem_cases():
    """Early and late in training, few and many kept, ties, hardly any or no valid pixel."""
    for when, spread in (("early", 0.1), ("late", 8.0)):
        for thresh in (0.0, 0.3, 0.9, 0.99):
            for min_kept in (1, 500, 1500):
                yield pytest.param(spread, thresh, min_kept, 0.1, id=f"{when}-{thresh}-{min_kept}")
    for ignored in (0.0, 0.999, 1.0):
        yield pytest.param(1.0, 0.7, 100, ignored, id=f"ignored-{ignored}")


@KINDS
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0, 1.5, 0.1]], ids=["plain", "weighted"])
@pytest.mark.parametrize(("spread", "thresh", "min_kept", "ignored"), list(ohem_cases()))
def test_ohem(spread, thresh, min_kept, ignored, weight, device, kind):
    logits, target = example(spread=spread)
    generator = torch.Generator().manual_seed(1)
    target[torch.rand(target.shape, generator=generator) < ignored] = 255

    def make(where):
        weights = None if weight is None else torch.tensor(weight, device=where)
        return lambda x, t: ohem_cross_entropy(x, t, thresh=thresh, min_kept=min_kept, weight=weights)

    assert_as_on_the_cpu(make, logits, target, device, kind)


@KINDS
def test_ohem_where_all_pixels_are_equally_hard(device, kind):
    target = torch.zeros(2, 8, 8, dtype=torch.int64)
    target[:, 4:] = 255
    for thresh, min_kept in ((0.9, 5), (0.1, 5), (0.1, 500)):
        loss = OhemCrossEntropyLoss(thresh, min_kept)
        assert_as_on_the_cpu(lambda _, loss=loss: loss, torch.zeros(2, 4, 8, 8), target, device, kind)


def test_ohem_equals_the_reference(device):
    folder = REFERENCES[0]
    arrays, cases = np.load(folder / "loss_ohem.npz"), json.loads((folder / "loss_ohem.json").read_text())
    for name, case in cases.items():
        weight = CITYSCAPES_WEIGHTS if case["class_weights"] else None
        loss = OhemCrossEntropyLoss(case["thres"], case["min_kept"], weight=weight).to(device)
        target = torch.from_numpy(arrays[f"labels.{name}"]).to(device)
        logits = torch.from_numpy(arrays[f"logits.{name}"]).to(device)
        value = loss(resize(logits, (target.shape[-2], target.shape[-1])), target)
        assert value.item() == pytest.approx(float(case["ohem"]["value"]), rel=1e-5), name


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_seen_only_where_it_counts(value, device):
    logits, target = (x.detach().to(device) for x in example())
    logits[0, :, 3, 4] = value
    target[0, 3, 4] = 0
    for loss in (ohem_cross_entropy, cross_entropy):
        assert loss(logits, target).isnan()
        assert loss(logits, target.index_fill(0, torch.tensor([0], device=device), 255)).isfinite()


@pytest.mark.parametrize("types", [(torch.uint8, torch.uint8), (torch.int64, torch.int16), (torch.uint8, torch.int32)])
def test_confusion_matrices_are_exact(types, device):
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randint(0, 19, (4, 512, 1024), generator=generator).to(kind) for kind in types)
    target[..., :9] = 255
    expected = confusion_matrix(prediction, target, 19)
    assert (confusion_matrix(prediction.to(device), target.to(device), 19) == expected).all()
    with pytest.raises(ValueError, match="none of 19 classes"):
        confusion_matrix(prediction.to(device) + 1, target.to(device), 19)


def test_more_pixels_than_float32_can_count(device):
    zeros = torch.zeros(2**24 + 3, dtype=torch.uint8, device=device)
    assert confusion_matrix(zeros, zeros, 2)[0, 0] == 2**24 + 3


@pytest.mark.parametrize("task", list(Task))
def test_labels_of_equal_logits_too(task, device):
    logits = torch.randint(-3, 3, (2, 1 if task is Task.BINARY else 7, 33, 65)).float()  # many ties
    inference = Inference(task)
    assert torch.equal(inference.labels(logits.to(device)).cpu(), inference.labels(logits))
    assert torch.allclose(inference.confidence(logits.to(device)).cpu(), inference.confidence(logits), atol=1e-6)


def test_rows_of_enlarged_logits(device):
    logits = torch.randn(1, 5, 13, 17)
    expected = torch.nn.functional.interpolate(logits, (75, 107), mode="bilinear")
    assert torch.allclose(enlarged_rows(logits.to(device), (75, 107), 20, 40).cpu(), expected[..., 20:40, :], atol=1e-5)
