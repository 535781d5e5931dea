"""Whole image, sliding window, scales and flips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hrseg.config import EvalConfig
from hrseg.inference import Ensemble, Inference, forward, mean_logits, slide, starts
from hrseg.task import Task


class Pointwise(nn.Module):
    """Logits of a pixel that depend on the pixel alone, so that every way of looking must agree."""

    def forward(self, x):
        return torch.cat([x, x.square(), -x], dim=1)


class Sided(nn.Module):
    """Logits that depend on the place: class 0 on the left, class 1 on the right."""

    def forward(self, x):
        ramp = torch.linspace(-1, 1, x.shape[-1]).expand(x.shape[0], 1, x.shape[2], -1)
        return torch.cat([-ramp, ramp], dim=1)


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(1, 4, 2), (4, 4, 2), (5, 4, 2), (10, 4, 3), (11, 4, 7), (9, 3, 3)]
)
def test_windows_cover_every_pixel_and_stay_inside(length, window, stride):
    covered = torch.zeros(length)
    for start in starts(length, window, stride):
        assert start >= 0 and (start + window <= length or start == 0)
        covered[start : start + window] += 1
    assert covered.min() >= 1


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16), (33, 20)])
def test_sliding_gives_what_the_whole_image_gives(size):
    image = torch.randn(2, 1, *size)
    assert torch.allclose(slide(Pointwise(), image, (16, 16), (10, 10)), Pointwise()(image), atol=1e-6)


def test_flipped_and_scaled_views_are_averaged_as_probabilities():
    image = torch.randn(1, 1, 8, 12)
    inference = Inference(Task.MULTICLASS, scales=(1.0,), flip=True)
    expected = Pointwise()(image).softmax(1)
    assert torch.allclose(inference(Pointwise(), image).softmax(1), expected, atol=1e-6)


def test_flipping_turns_the_answer_back():
    probabilities = Inference(Task.MULTICLASS, flip=True)(Sided(), torch.zeros(1, 1, 4, 9)).softmax(1)
    assert torch.allclose(probabilities, torch.full_like(probabilities, 0.5), atol=1e-6)


def test_scales_give_the_size_asked_for():
    inference = Inference(Task.MULTICLASS, scales=(0.5, 1.0, 1.7), flip=True)
    assert inference(Pointwise(), torch.randn(1, 1, 11, 7), (22, 14)).shape == (1, 3, 22, 14)


def test_binary_and_multilabel_answers():
    logits = torch.tensor([[[[2.0, -2.0]]]])
    assert Inference(Task.BINARY).labels(logits).tolist() == [[[1, 0]]]
    assert Inference(Task.MULTILABEL).labels(logits).tolist() == [[[[1, 0]]]]


def test_averaged_binary_views_are_logits_again():
    image = torch.randn(1, 1, 6, 6)
    once = Inference(Task.BINARY)(nn.Identity(), image)
    assert torch.allclose(Inference(Task.BINARY, flip=True)(nn.Identity(), image), once, atol=1e-5)


def test_a_model_that_needs_whole_strides_sees_a_padded_image():
    class Strict(Pointwise):
        requires_divisible_input_shape = True
        encoder = type("Encoder", (), {"output_stride": 32})

        def forward(self, x):
            assert x.shape[-2] % 32 == 0 and x.shape[-1] % 32 == 0
            return super().forward(x)

    image = torch.randn(1, 1, 33, 50)
    assert torch.equal(forward(Strict(), image), Pointwise()(image))


def test_the_stride_is_two_thirds_of_the_window_unless_set():
    config = EvalConfig(mode="slide", window=(30, 60))
    assert Inference.from_config(config, Task.MULTICLASS).stride == (20, 40)


def test_flips_and_turns_are_the_eight_views_of_a_square():
    seen = []

    class Watching(Pointwise):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    image = torch.randn(1, 1, 5, 9)
    inference = Inference(Task.MULTICLASS, flip=True, turns=True)
    given = inference(Watching(), image).softmax(1)
    assert torch.allclose(given, Pointwise()(image).softmax(1), atol=1e-6)  # each view was turned back
    assert len(seen) == 8
    assert not any(a.shape == b.shape and torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize("task", [Task.MULTICLASS, Task.MULTILABEL])
def test_an_ensemble_is_the_mean_of_the_probabilities_of_models_that_each_see_their_own_normalisation(task):
    half, double = nn.Module(), nn.Module()
    half.forward, double.forward = (lambda x: x / 2), (lambda x: x * 2)
    image = torch.rand(2, 1, 6, 7) * 4
    probabilities = Inference(task).probabilities
    expected = (probabilities(Pointwise()(image / 2)) + probabilities(Pointwise()(image * 2))) / 2
    given = probabilities(Ensemble([Pointwise(), Pointwise()], [half, double], task)(image))
    assert torch.allclose(given, expected, atol=1e-6)


def test_an_ensemble_that_is_certain_stays_finite():
    certain = torch.tensor([1000.0, -1000.0]).reshape(1, 2, 1, 1)
    for task in Task:
        assert mean_logits([certain, certain], task).isfinite().all()
