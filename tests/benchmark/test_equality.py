"""The comparisons behind the benchmark's rows, at a small size."""

from __future__ import annotations

import pytest

from hrseg.benchmark import measure, model, train
from hrseg.benchmark.measure import Options

OPTIONS = Options("w18_small_v1", size=(64, 128), short=True)
# A step sees half of it: at 1/32 there must be more than a few pixels, or batch norm enlarges every rounding.
LARGER = Options("w18_small_v1", size=(256, 256), short=True)
CASES = {
    "network": lambda: model.network(OPTIONS),
    "head": lambda: model.head(OPTIONS, backward=False),
    "head, both ways": lambda: model.head(OPTIONS, backward=True),
    "training": lambda: next(train.cases(LARGER)),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_textbook(name):
    case = CASES[name]()
    evidence = [measure.compare_results(row, case) for row in case.rows]
    assert not [text for text in evidence if text.startswith("DIFFERENT")]
    assert any("within" in text or "of the maximum" in text for text in evidence)
