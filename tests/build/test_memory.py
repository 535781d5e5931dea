"""What a run needs of memory, told before it is allocated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hrseg
from hrseg.build import memory
from hrseg.config import parse
from hrseg.data.dataset import Dataset
from hrseg.errors import ConfigError
from hrseg.task import LabelSpace, Sample, SegmentationClass

SPACE = LabelSpace(tuple(SegmentationClass(str(i), (i, i, i)) for i in range(3)))
SAMPLE = Sample(np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8), "a")
CPU = torch.device("cpu")


def test_what_a_step_keeps_is_counted_without_doing_it():
    model = hrseg.HRNetV2("hrnetv2_w18_small_v1", classes=3)
    counted = memory.kept_for_backward(model, (2, 3, 64, 96))
    own = {tensor.untyped_storage()._cdata for tensor in model.state_dict(keep_vars=True).values()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage  # held: its address stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()(torch.randn(2, 3, 64, 96))
    assert counted == sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"augment": {"crop": [200_000, 200_000]}}, "augment.crop"),
        ({"augment": {"scale": [1, 20_000]}}, "augment.scale"),
        ({"augment": {"short_side": 2_000_000}}, "augment.short_side"),
        ({"augment": {"crop": [8192, 8192]}, "train": {"batch_size": 512}}, "augment.crop, train.batch_size"),
        ({"eval": {"scales": [1, 100_000]}}, "eval.scales"),
        ({"eval": {"short_side": 10_000_000}}, "eval.short_side"),
    ],
)
def test_sizes_beyond_the_memory_are_refused_by_their_setting(settings, where):
    config = parse(settings)
    with pytest.raises(ConfigError, match=r"needs at least [\d,]+ GiB; this machine has") as caught:
        memory.require_room_for_samples(config.augment, SAMPLE)
        model = hrseg.HRNetV2("hrnetv2_w18_small_v1", classes=3)
        memory.require_room_for_step(
            model,
            SPACE,
            SAMPLE,
            config.train.batch_size,
            CPU,
            crop=config.augment.crop,
            precision=config.train.precision,
        )
        memory.require_room_for_evaluation(config.eval, Images(), CPU)
    assert where in caught.value.where


class Images(Dataset):
    space = SPACE

    def __getitem__(self, i: int) -> Sample:
        return SAMPLE


def test_accumulation_is_a_way_out(monkeypatch):
    config = parse({"augment": {"crop": [256, 256]}})
    model = hrseg.HRNetV2("hrnetv2_w18_small_v1", classes=3)
    monkeypatch.setattr(memory, "room", lambda device: 2**30)
    with pytest.raises(ConfigError, match=r"train\.accumulate"):
        memory.require_room_for_step(model, SPACE, SAMPLE, 64, CPU, crop=config.augment.crop, precision="fp32")
    memory.require_room_for_step(model, SPACE, SAMPLE, 8, CPU, crop=config.augment.crop, precision="fp32")
