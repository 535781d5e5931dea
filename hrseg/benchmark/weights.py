"""Loading a checkpoint of the reference code, against torch.load and load_state_dict alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from hrseg import weights
from hrseg.benchmark.measure import Case, Options, Row
from hrseg.models.hrnetv2 import HRNetV2


def cases(options: Options) -> Iterator[Case]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        stored = HRNetV2("hrnetv2_w48")
        theirs, own = Path(folder) / "official.pth", Path(folder) / "own.pth"
        weights.save(stored, theirs, "official")
        torch.save(stored.state_dict(), own)
        ours, alone = HRNetV2("hrnetv2_w48"), HRNetV2("hrnetv2_w48")

        def plain() -> None:
            alone.load_state_dict(torch.load(own, map_location="cpu", weights_only=True))

        def equal() -> str:
            weights.load(ours, theirs)
            plain()
            others = alone.state_dict()
            assert all(tensor.equal(others[name]) for name, tensor in ours.state_dict().items()), "tensors"
            return "every tensor, bit for bit"

        sides = {"hrseg": lambda: weights.load(ours, theirs), "torch alone": plain}
        what = "loading W48, names and shapes checked"
        yield Case(sides, [Row(what, "torch.load and load_state_dict", ["hrseg"], ["torch alone"], 2.0, equal=equal)])
