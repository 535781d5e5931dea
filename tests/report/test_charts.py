"""Axes that enclose what they show, and names that are shown and not run."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hrseg.report import charts

FLOATS = st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6)


@given(FLOATS, FLOATS)
def test_ticks_are_few_and_enclose_the_values(a, b):
    low, high = sorted((a, b))
    ticks = charts.nice_ticks(low, high)
    slack = 1e-6 * (high - low or abs(high) or 1)
    assert 2 <= len(ticks) <= 8 and ticks == sorted(ticks)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack


def test_a_long_line_is_drawn_in_bins_with_the_band_of_its_values():
    x = np.arange(5000)
    svg = charts.lines("loss", [charts.Line("run", "ours", x, np.sin(x) + 2)])
    assert svg.count("L") < 4 * charts.BINS and 'class="band ours"' in svg


def test_a_chart_of_anything_is_well_formed_and_escaped():
    name = "<script>\"&'"
    for chart in (
        charts.lines(name, [charts.Line(name, "ours", [3], [0.5], points=True)], percent=True),
        charts.lines(name, [charts.Line(name, "ours", [1, 2], [1e-5, 1e-5])]),
        charts.histogram(name, [(name, "ours", np.array([0.0, 1.0, 1.0]))]),
    ):
        root = ElementTree.fromstring(chart)
        assert root.get("aria-label") == name and "<script" not in chart
