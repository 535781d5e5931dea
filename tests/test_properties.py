"""What holds for every size, every label map and every setting: examples are drawn by hypothesis."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hrseg
from hrseg import config
from hrseg.build import train_transform
from hrseg.inference import Inference, slide, starts
from hrseg.losses import _ohem
from hrseg.metrics import confusion_matrix
from hrseg.task import IGNORE_INDEX, LabelSpace, Sample, SegmentationClass, Task

SIDE = st.integers(1, 200)
SPACE = LabelSpace(tuple(SegmentationClass(str(i), (i, i, i)) for i in range(5)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return hrseg.HRNetV2("hrnetv2_w18_small_v1", classes=3).eval()


# Sizes


@given(height=SIDE, width=SIDE)
@torch.inference_mode()
def test_logits_have_the_size_of_any_image(network, height, width):
    logits = network(torch.zeros(1, 3, height, width))
    assert logits.shape == (1, 3, height, width) and logits.isfinite().all()


@given(length=SIDE, window=SIDE, stride=SIDE)
def test_windows_cover_a_side_without_a_gap_and_stay_inside(length, window, stride):
    seen = np.zeros(length, int)
    first = starts(length, window, stride)
    for start in first:
        assert start >= 0 and (start + window <= length or start == 0)
        seen[start : start + window] += 1
    assert seen.min() >= 1 and first == sorted(set(first))


class Identity(torch.nn.Module):
    """Its logits are the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@given(size=st.tuples(SIDE, SIDE), window=st.tuples(SIDE, SIDE), part=st.floats(0.2, 1.5))
def test_a_sliding_window_counts_each_pixel_once(size, window, part):
    # A pixel that is left out gives 0 / 0, one that is counted twice another value than its own.
    image = torch.arange(1.0, 1 + size[0] * size[1]).reshape(1, 1, *size)
    stride = (max(1, round(window[0] * part)), max(1, round(window[1] * part)))
    stride = (max(stride[0], -(-size[0] // 8)), max(stride[1], -(-size[1] // 8)))  # at most some 80 windows
    assert torch.allclose(slide(Identity(), image, window, stride), image, rtol=1e-6)


@given(
    size=st.tuples(SIDE, SIDE),
    scales=st.lists(st.floats(0.3, 2.0), min_size=1, max_size=3),
    flip=st.booleans(),
    sliding=st.booleans(),
    values=st.tuples(*[st.floats(-4, 4)] * 3),
)
def test_a_constant_image_has_constant_logits_through_scales_flips_and_windows(size, scales, flip, sliding, values):
    image = torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1).expand(1, 3, *size).contiguous()
    window = (64, 48) if sliding else None
    inference = Inference(Task.MULTICLASS, window, (40, 40) if sliding else None, tuple(scales), flip)
    answer = inference(Identity(), image)
    assert answer.shape == image.shape
    assert torch.allclose(answer.log_softmax(1), image.log_softmax(1), atol=1e-4)


# Slow references


@st.composite
def label_maps(draw):
    """Logits' argmax-like predictions and targets of one size, classes, and the ignore index."""
    classes = draw(st.integers(1, 12))
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([np.uint8, np.int16, np.int64]))
    target = rng.integers(0, classes, shape)
    target[rng.random(shape) < draw(st.sampled_from([0, 0.3, 1]))] = IGNORE_INDEX
    return rng.integers(0, classes, shape).astype(dtype), target.astype(dtype), classes


@given(maps=label_maps())
def test_a_confusion_matrix_is_a_count_pixel_by_pixel(maps):
    prediction, target, classes = maps
    expected = np.zeros((classes, classes), np.int64)
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t != IGNORE_INDEX:
            expected[t, p] += 1
    assert np.array_equal(confusion_matrix(prediction, target, classes), expected)


def slow_ohem(logits, target, thresh, min_kept):
    """As the reference code does it: the probability of the true class, sorted; the hardest are kept."""
    losses, probabilities = [], []
    for n, y, x in np.ndindex(*target.shape):
        label = int(target[n, y, x])
        if label == IGNORE_INDEX:
            continue
        row = [float(v) for v in logits[n, :, y, x].double()]
        log_sum = max(row) + math.log(sum(math.exp(v - max(row)) for v in row))
        losses.append(log_sum - row[label])
        probabilities.append(math.exp(row[label] - log_sum))
    if not losses:
        return 0.0
    kth = sorted(probabilities)[min(len(losses) - 1, min_kept)]
    threshold = max(thresh, kth)
    kept = [loss for loss, p in zip(losses, probabilities, strict=True) if p < threshold]
    return sum(kept) / len(kept) if kept else 0.0


@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    classes=st.integers(2, 6),
    thresh=st.floats(0.1, 0.95),
    share=st.floats(0, 1.2),
    ignored=st.sampled_from([0, 0.4]),
)
def test_ohem_keeps_what_a_sort_keeps(seed, size, classes, thresh, share, ignored):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size[0], classes, *size[1:], generator=generator) * 2
    target = torch.randint(0, classes, size, generator=generator)
    target[torch.rand(size, generator=generator) < ignored] = IGNORE_INDEX
    min_kept = max(1, round(share * target.numel()))
    loss, _ = _ohem(logits, target, thresh, min_kept, IGNORE_INDEX, None)
    assert loss.item() == pytest.approx(slow_ohem(logits, target, thresh, min_kept), rel=1e-4, abs=1e-6)


# Augmentation


@given(
    size=st.tuples(st.integers(8, 120), st.integers(8, 120)),
    crop=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
    scale=st.none() | st.tuples(st.floats(0.4, 1.0), st.floats(1.0, 2.0)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    extra=st.sampled_from([[], [{"name": "VerticalFlip", "p": 1}], [{"name": "CoarseDropout", "p": 0.5}]]),
    seed=st.integers(0, 2**32),
)
def test_a_marker_stays_under_its_label(size, crop, scale, place, extra, seed):
    # A bright square of class 4 on dark class 0: wherever the label is, inside its edges the image is bright.
    image, target = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    top, left = (round(share * (side - 8)) for share, side in zip(place, size, strict=True))
    image[top : top + 8, left : left + 8], target[top : top + 8, left : left + 8] = 250, 4
    settings = config.AugmentConfig(crop=crop, scale=scale, extra=extra)
    transform = train_transform(settings, SPACE)
    out = transform(Sample(image, target, "a"), np.random.default_rng(seed))
    assert out.image.shape[:2] == out.target.shape and (crop is None or out.target.shape == crop)
    labelled = (out.target == 4).astype(np.uint8)
    dark = ((out.target == 0) & (out.image.max(2) < 250)).astype(np.uint8)
    bright = out.image[..., 0] > 125
    # Resizing blurs image edges over two pixels; what is further inside is unmistakable.
    assert bright[_inside(labelled)].all() and not bright[_inside(dark | (out.target == IGNORE_INDEX))].any()


def _inside(where: np.ndarray) -> np.ndarray:
    """Where all pixels of the 5x5 square around are set, beyond the border too."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(where.astype(bool), 2), (5, 5))
    return windows.all((2, 3))


# Settings


def plain_settings(section: type) -> st.SearchStrategy:
    """Values of the number and yes-or-no settings of a section."""
    simple = {}
    for name, setting in section.model_fields.items():
        kind = st.from_type(bool) if setting.annotation is bool else None
        if setting.annotation is int or setting.annotation is float:
            kind = st.integers(1, 10**6) if setting.annotation is int else st.floats(1e-6, 0.5)
        if kind is not None:
            simple[name] = kind
    return st.fixed_dictionaries({}, optional=simple)


@given(
    settings=st.fixed_dictionaries(
        {},
        optional={
            "train": plain_settings(config.TrainConfig),
            "optim": plain_settings(config.OptimConfig),
            "eval": st.fixed_dictionaries({"scales": st.lists(st.floats(0.1, 3), min_size=1, max_size=3)}),
            "track": st.fixed_dictionaries({"project": st.text(), "tags": st.lists(st.text(), max_size=3)}),
            "data": st.fixed_dictionaries({"root": st.text(st.characters(codec="utf-8", exclude_characters="\0"))}),
            "run": st.fixed_dictionaries({"seed": st.integers(0, 2**63 - 1)}),
        },
    )
)
def test_settings_come_back_from_yaml_as_they_were(settings, tmp_path_factory):
    first = config.parse(settings)
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(first.to_yaml(), encoding="utf-8")
    assert config.load(path) == first
    assert config.parse(first.to_plain()) == first


@given(key=st.sampled_from(["track.project", "data.root", "run.dir"]), value=st.text(st.characters(codec="utf-8")))
def test_a_text_on_the_command_line_is_the_text_that_was_typed(key, value):
    section, name = key.split(".")
    plain = config.override({}, [f"{key}={value}"])
    assert plain == {section: {name: None if value in ("", "null") else value}}
    if value not in ("", "null") and "\0" not in value and not value.startswith("~"):
        assert str(getattr(getattr(config.parse(plain), section), name)) == str(
            Path(value) if name != "project" else value
        )
