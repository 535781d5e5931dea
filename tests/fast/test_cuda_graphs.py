"""Recordings on a GPU: which sizes get one, and what happens where one cannot be had. The recorder is a stand-in."""

from __future__ import annotations

import pytest
import torch

import hrseg
from hrseg.fast import optimize as fast_form
from hrseg.fast.optimize import MAX_SIZES, optimize


@pytest.fixture
def on_gpu(monkeypatch):
    """Every tensor says that it is on a GPU, while it is on the CPU; returns the shapes that were recorded."""
    recorded = []

    class Recorder:
        def __init__(self, module):
            self.module = module

        def record(self, image):
            recorded.append(tuple(image.shape[-2:]))
            return self.module

    fast = optimize(hrseg.HRNetV2("hrnetv2_w18_small_v1", classes=4), "torch")
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(fast_form, "Recorder", Recorder)
    return fast, recorded, Recorder


def test_a_size_that_comes_again_is_recorded_up_to_eight_of_them(on_gpu):
    fast, recorded, _ = on_gpu
    sizes = [(32, 32 * n) for n in range(1, MAX_SIZES + 2)]
    for size in [*sizes, *sizes, *sizes[:1]]:
        fast(torch.zeros(1, 3, *size))
    assert recorded == sizes[:MAX_SIZES]


def test_a_model_that_moves_is_recorded_anew(on_gpu):
    fast, recorded, _ = on_gpu
    for _ in range(2):
        fast(torch.zeros(1, 3, 32, 32))
    fast.to(torch.float32)
    fast(torch.zeros(1, 3, 32, 32))
    assert recorded == [(32, 32)] * 2


@pytest.mark.parametrize("fault", ["other logits", "an error"])
def test_without_a_recording_it_answers_as_before(on_gpu, monkeypatch, caplog, fault):
    fast, recorded, recorder = on_gpu

    def record(self, image):
        recorded.append(image.shape)
        if fault == "an error":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return lambda x: torch.zeros(1, 4, *x.shape[-2:])

    monkeypatch.setattr(recorder, "record", record)
    image = torch.randn(1, 3, 32, 32)
    answers = [fast(image) for _ in range(4)]
    assert all(torch.equal(answer, answers[0]) for answer in answers) and len(recorded) == 1
    assert "one by one" in caplog.text


def test_fp16_is_for_gpus():
    with pytest.raises(hrseg.errors.ConfigError, match="fp16 is for GPUs"):
        optimize(hrseg.HRNetV2("hrnetv2_w18_small_v1"), precision="fp16")


def test_synchronised_batch_norm_is_folded_too():
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(hrseg.HRNetV2("hrnetv2_w18_small_v1").eval())
    fast = optimize(model, "torch")
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in fast.modules())


def test_a_size_seen_once_costs_no_timing_of_kernels(on_gpu, monkeypatch):
    fast, *_ = on_gpu
    timed, form = [], fast._torch.forward

    def forward(x):
        timed.append(torch.backends.cudnn.benchmark)
        return form(x)

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(fast._torch, "forward", forward)
    fast(torch.zeros(1, 3, 32, 32))
    assert timed == [False] and torch.backends.cudnn.benchmark
