"""A user's data set that has neither files nor targets, given to tools/test.py."""

from __future__ import annotations

import numpy as np
import pytest

from hrseg.commands import test as test_command
from hrseg.task import LabelSpace, Sample, SegmentationClass
from tests.shapes import COLORS


class Unlabelled:
    def __init__(self, root, split):
        self.space = LabelSpace(tuple(SegmentationClass(name, (i, 0, 0)) for i, name in enumerate(COLORS)))
        self.names = ["one", "two"]

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return Sample(np.full((40, 56, 3), 90 * i, np.uint8), None, self.names[i])


@pytest.mark.parametrize("short_side", ["null", "32"])
def test_a_data_set_without_files_and_labels_has_no_labels(saved, tmp_path, capsys, short_side):
    words = ["data.dataset=tests.evaluate.test_unlabelled:Unlabelled", "data.workers=0", "run.threads=1"]
    words += ["--out", str(tmp_path), f"eval.short_side={short_side}"]
    assert test_command.main(["--checkpoint", str(saved), *words]) == 2
    assert "one: has no labels to score against." in capsys.readouterr().err
