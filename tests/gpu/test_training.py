"""Training on a GPU: against the CPU, in each mode, through an overflow, after a crash, in several processes."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hrseg import config as settings
from hrseg.build.training import training_plan
from hrseg.commands import train as train_command
from hrseg.data.loader import Batch
from hrseg.train import loop as training
from hrseg.train.run import Run
from hrseg.train.step import iterate
from tests.processes import Training
from tests.train.test_loop import same_weights, train, weights_of

pytestmark = pytest.mark.gpu
STEPS = 20


def run_on(device, root, **train) -> Run:
    plain = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"dataset": "folder", "root": str(root), "workers": 0, "check": False},
        "augment": {"crop": [32, 48]},
        "loss": [{"name": "ohem", "min_kept": 0.3, "class_weights": [1, 2, 1.5]}, {"name": "cross_entropy"}],
        "optim": {"name": "sgd", "lr": 0.003},
        "train": {"iterations": STEPS, "batch_size": 4, **train},
    }
    return Run(training_plan(settings.parse(plain), device))


def losses_of(run: Run, steps: int = STEPS) -> list[float]:
    return [float(iterate(run, batch).loss) for batch in run.batches(0, steps)]


@functools.cache
def on_the_cpu(root, accumulate: int) -> tuple[float, ...]:
    return tuple(losses_of(run_on(torch.device("cpu"), root, accumulate=accumulate)))


# Rounding grows: on the CPU, two layouts of memory are 9 % apart after twenty steps.
@pytest.mark.parametrize(
    ("train", "of_first", "of_last"),
    [
        ({}, 1e-4, 0.25),
        ({"accumulate": 2}, 1e-4, 0.25),
        ({"recompute": True}, 1e-4, 0.25),
        ({"channels_last": False, "ema": 0.9}, 1e-4, 0.25),
        ({"precision": "bf16", "clip_norm": 100.0}, 0.02, 0.3),
        ({"precision": "fp16", "clip_norm": 100.0}, 0.02, 0.3),
    ],
    ids=str,
)
def test_twenty_steps_lose_as_on_the_cpu(shapes, device, strict, train, of_first, of_last):
    expected = on_the_cpu(shapes, train.get("accumulate", 1))
    found = losses_of(run_on(device, shapes, **train))
    assert found[0] == pytest.approx(expected[0], rel=of_first)
    assert found[-1] == pytest.approx(expected[-1], rel=of_last)


def test_the_running_average_follows(shapes, device):
    run = run_on(device, shapes, ema=0.5)
    losses_of(run, 3)
    pairs = list(zip(run.ema.model.parameters(), run.plan.model.parameters(), strict=True))
    assert all(a.device == b.device and not torch.equal(a, b) for a, b in pairs)


def test_the_scaler_gets_over_an_overflow(shapes, device):
    run = run_on(device, shapes, precision="fp16")
    run.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**40)
    before = run.plan.model.encoder.conv1.weight.detach().clone()
    batches = iter(run.batches(0, STEPS))
    iterate(run, next(batches))
    assert torch.equal(run.plan.model.encoder.conv1.weight, before) and run.scaler.get_scale() < 2.0**40
    run.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**6)
    iterate(run, next(batches))
    assert not torch.equal(run.plan.model.encoder.conv1.weight, before)
    assert all(parameter.isfinite().all() for parameter in run.plan.model.parameters())


@pytest.mark.parametrize("train", [{}, {"ema": 0.9, "accumulate": 2, "clip_norm": 1.0, "precision": "bf16"}], ids=str)
def test_an_iteration_never_waits_for_the_device(shapes, cuda, train):
    run = run_on(cuda, shapes, **train)
    batches = list(run.batches(0, 6))
    for batch in batches[:3]:
        iterate(run, batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[3:]:
            iterate(run, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.float32], ids=str)
def test_pinned_batches_arrive_whole(cuda, kind):
    for step in range(20):  # the memory of one is that of another soon
        values = torch.full((2, 64, 64, 3), step + 1).to(kind).permute(0, 3, 1, 2)
        target = torch.full((2, 64, 64), step, dtype=torch.uint8)
        there = Batch(values.pin_memory(), target.pin_memory(), ("a", "b"), (0, 1)).to(cuda)
        total = there.image.float().sum() + there.target.float().sum()
        assert there.image.is_contiguous(memory_format=torch.channels_last) and there.image.dtype == kind
        assert total.item() == 2 * 64 * 64 * (3 * (step + 1) + step)


def test_one_process_of_nccl_trains_as_none(shapes, cuda, strict, tmp_path):
    expected = losses_of(run_on(cuda, shapes), 5)
    run = run_on(cuda, shapes)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        run.module.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(run.module.model)
        run.network = DistributedDataParallel(run.module, device_ids=[cuda.index])
        found = losses_of(run, 5)
    finally:
        dist.destroy_process_group()
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_processes_train_as_one(tiny, tmp_path):
    losses = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        run = Training([tiny, f"run.dir={folder}", "loss=[{name: cross_entropy, average: all}]"], folder, processes)
        assert run.wait() == [0] * processes, run.said()
        losses.append(weights_of(folder)["model"]["segmentation_head.conv.weight"])
    assert torch.allclose(*losses, atol=1e-3)


class Crash(Exception):
    """The process is gone."""


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_goes_on_after_a_crash(config_file, device, tmp_path, deterministic):
    words = (f"run.deterministic={str(deterministic).lower()}", f"run.device={device.type}", "train.ema=0.9")
    words = (*words, "train.checkpoint_every=2")

    def crash_at_five(*args, **kwargs):
        crash_at_five.calls += 1
        if crash_at_five.calls == 5:
            raise Crash
        return training.training_step(*args, **kwargs)

    crash_at_five.calls = 0
    try:
        assert train(config_file, tmp_path / "whole", *words) == 0
        folder = tmp_path / "crashed"
        with pytest.raises(Crash):
            training.train(settings.load(config_file, [f"run.dir={folder}", *words]), folder, step=crash_at_five)
        assert train(config_file, folder, *words, resume="auto") == 0
    finally:
        torch.use_deterministic_algorithms(False)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(folder)
    if deterministic:
        assert same_weights(whole, resumed) and same_weights(whole, resumed, "ema")
    else:
        a, b = (torch.cat([t.double().flatten() for t in run["ema"].values()]) for run in (whole, resumed))
        assert (a - b).norm() <= 0.05 * a.norm()


def test_too_little_memory_ends_training_with_one_line(config_file, cuda, tmp_path, capsys):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.002)
    words = [f"run.dir={tmp_path}/run", "run.device=cuda", "augment.crop=[1024, 1024]", "train.batch_size=8"]
    try:
        assert train_command.main([str(config_file), *words]) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    said = capsys.readouterr().err
    assert "error: memory:" in said and "augment.crop" in said and "Traceback" not in said
