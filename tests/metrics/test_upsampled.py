"""The labels that full-size logits would give, bit for bit, whatever the sizes and however the classes tie."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hrseg.metrics import confusion_matrix, upsampled_labels

SIDES = st.integers(1, 24)


def expected(logits, size, align_corners):
    full = F.interpolate(logits.float(), size, mode="bilinear", align_corners=align_corners)
    return full.argmax(1).to(torch.uint8)


def values(kind, shape, rng):
    """Logits that make trouble: noise, few distinct values, whole classes that differ in the last bit only."""
    noise = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    if kind == "bf16":
        return noise.bfloat16()
    if kind == "ties":
        return noise.round()
    if kind == "twins":
        return noise[:, :1] + (noise > 0) * 1e-7
    if kind == "steps":
        return torch.cumsum(noise.sign(), dim=3) / 7
    return noise * 10.0 ** rng.integers(-3, 4)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 20), st.sampled_from(["4", "4-", "16", "any"]), st.booleans(), st.booleans(),
       st.sampled_from(["noise", "bf16", "ties", "twins", "steps"]), st.integers(0, 2**32))  # fmt: skip
def test_not_one_pixel_differs(height, width, classes, factor, align_corners, channels_last, kind, seed):
    rng = np.random.default_rng(seed)
    size = {
        "4": (4 * height, 4 * width),
        "4-": (4 * height - 3, 4 * width - 1),
        "16": (16 * height, 16 * width),
        "any": tuple(int(side) for side in rng.integers(1, 260, 2)),
    }[factor]
    logits = values(kind, (2, classes, height, width), rng)
    logits = logits.to(memory_format=torch.channels_last) if channels_last else logits
    found = upsampled_labels(logits, size, align_corners=align_corners)
    assert found.dtype == torch.uint8 and torch.equal(found, expected(logits, size, align_corners))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_left_to_the_reference(bad):
    logits = torch.randn(1, 5, 40, 40, generator=torch.Generator().manual_seed(0))
    logits[0, 3, 7, 9] = bad
    assert torch.equal(upsampled_labels(logits, (160, 160)), expected(logits, (160, 160), False))


def test_the_interior_is_not_interpolated_and_the_confusion_matrix_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    regions = torch.from_numpy(rng.integers(0, 19, (8, 16))).repeat_interleave(16, 0).repeat_interleave(16, 1)
    logits = 5 * F.one_hot(regions, 19).permute(2, 0, 1)[None].float() + torch.from_numpy(
        rng.standard_normal((1, 19, 128, 256)).astype(np.float32)
    )
    target = regions.repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8)
    full = expected(logits, (512, 1024), False)[0]
    asked = []
    monkeypatch.setattr(
        F, "interpolate", lambda x, *a, real=F.interpolate, **k: asked.append(x.numel()) or real(x, *a, **k)
    )
    found = upsampled_labels(logits, (512, 1024))[0]
    assert (confusion_matrix(found, target, 19) == confusion_matrix(full, target, 19)).all()
    assert sum(asked) < logits.numel() / 4  # weights, and a few classes where a lead is in doubt


@pytest.mark.long
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_not_one_pixel_of_full_size_images_differs(align_corners, layout):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        coarse = torch.from_numpy(rng.standard_normal((1, 19, 16, 32)).astype(np.float32))
        logits = F.interpolate(coarse, (256, 512), mode="bicubic") * 3 + torch.from_numpy(
            rng.standard_normal((1, 19, 256, 512)).astype(np.float32) * 0.1
        )
        logits = (logits.bfloat16() if seed % 2 else logits).to(memory_format=layout)
        for size in ((1024, 2048), (1023, 2047), (733, 1999)):
            assert torch.equal(
                upsampled_labels(logits, size, align_corners=align_corners), expected(logits, size, align_corners)
            )
