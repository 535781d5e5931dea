"""Charts as SVG, coloured by the page's style sheet: lines over iterations, and a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from hrseg.console import counted

WIDTH, HEIGHT = 480, 240  # in SVG units; a page shows charts at about this size, so that text stays readable
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 42
BINS = 150  # most points of a line; more are averaged in bins


class Line(NamedTuple):
    """One line of a chart. look: a class of the style sheet. points: a mark at each value, no averaging."""

    name: str
    look: str
    x: Sequence[float]
    y: Sequence[float]
    points: bool = False


def lines(title: str, drawn: Sequence[Line], *, percent: bool = False, x_name: str = "iteration") -> Markup:
    """Lines over iterations, or over what x_name says.

    Many points are drawn as means of bins, in a band from minimum to maximum.
    """
    drawn = [line for line in drawn if len(line.x)]
    values = np.concatenate([np.asarray(line.y, float) for line in drawn])
    x_end = max(max(line.x) for line in drawn) or 1
    ticks = nice_ticks(float(values.min()), float(values.max()))
    low, high = ticks[0], ticks[-1]

    def place(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        across = LEFT + np.asarray(x, float) / x_end * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (np.asarray(y, float) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return np.stack([across, down], axis=1)

    parts = []
    for tick in ticks:
        label = f"{100 * tick:g}" if percent else f"{tick:.4g}"
        parts.append(_rule(place(np.zeros(1), np.array([tick]))[0, 1], label))
    parts += [_x_tick(x, x / x_end) for x in nice_ticks(0, x_end, 4) if x <= x_end]
    for line in drawn:
        x, y = np.asarray(line.x, float), np.asarray(line.y, float)
        if not line.points and len(x) > BINS:
            edges = np.linspace(0, len(x), BINS + 1).astype(int)[:-1]
            counts = np.diff([*edges, len(x)])
            least, greatest = np.minimum.reduceat(y, edges), np.maximum.reduceat(y, edges)
            x, y = np.add.reduceat(x, edges) / counts, np.add.reduceat(y, edges) / counts
            band = _path(np.concatenate([place(x, greatest), place(x, least)[::-1]]))
            parts.append(Markup('<path class="band {}" d="{}Z"/>').format(line.look, band))
        at = place(x, y)
        parts.append(Markup('<path class="line {}" d="{}"/>').format(line.look, _path(at)))
        if line.points or len(x) == 1:
            for (px, py), step, value in zip(at, x, y, strict=True):
                shown = f"{100 * value:.2f} %" if percent else f"{value:.4g}"
                parts.append(
                    Markup('<circle class="point {}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
                        line.look,
                        px,
                        py,
                        f"{line.name}, {x_name} {step:.4g}: {shown}"
                        if x_name != "iteration"
                        else f"{line.name}, iteration {step:g}: {shown}",
                    )
                )
    parts.append(_axis_name(x_name))
    return _figure(title, parts)


def sparkline(title: str, drawn: Sequence[Line]) -> Markup:
    """Lines of shares over iterations, small and without axes; 0 is at the bottom and 1 at the top."""
    width, height = 160, 44
    x_end = max(max(line.x) for line in drawn) or 1
    parts = [Markup('<path class="rule" d="M0 {0}H{1}M0 1H{1}"/>').format(height - 1, width)]
    for line in drawn:
        at = np.stack(
            [np.asarray(line.x, float) / x_end * width, height - 1 - np.asarray(line.y) * (height - 2)], axis=1
        )
        parts.append(Markup('<path class="line {}" d="{}"/>').format(line.look, _path(at)))
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )


def histogram(title: str, drawn: Sequence[tuple[str, str, np.ndarray]], *, bins: int = 20) -> Markup:
    """Images per bin between 0 and 1; a dashed line at the median. drawn: name, look and values of each run."""
    counts = [np.histogram(values, bins=bins, range=(0, 1))[0] for _, _, values in drawn]
    ticks = [t for t in nice_ticks(0, max(int(c.max()) for c in counts)) if t == int(t)]
    top = max(ticks[-1], max(int(c.max()) for c in counts), 1)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [_rule(HEIGHT - BOTTOM - tick / top * high, f"{tick:g}") for tick in ticks]
    parts += [_x_tick(round(100 * share), share) for share in (0, 0.25, 0.5, 0.75, 1)]
    slot = wide / bins
    for number, ((name, look, values), column) in enumerate(zip(drawn, counts, strict=True)):
        bar = (slot - 1) / len(drawn)
        for position, count in enumerate(column):
            if count:
                share = f"from {100 * position / bins:g} to {100 * (position + 1) / bins:g} %"
                told = f"{name}: {counted(int(count), 'image')} {share}"
                x, height = LEFT + position * slot + 0.5 + number * bar, count / top * high
                parts.append(
                    Markup('<path class="bar {}" d="M{:.1f} {}v{:.1f}h{:.1f}V{}"><title>{}</title></path>').format(
                        look, x, HEIGHT - BOTTOM, -height, bar, HEIGHT - BOTTOM, told
                    )
                )
        x = LEFT + float(np.median(values)) * wide
        parts.append(
            Markup(
                '<path class="halo" d="M{0:.1f} {1}V{2}"/>'
                '<path class="median {3}" d="M{0:.1f} {1}V{2}"><title>{4}</title></path>'
            ).format(x, TOP, HEIGHT - BOTTOM, look, f"{name}: median {100 * np.median(values):.2f} %")
        )
    parts.append(_axis_name("mean IoU per image, %"))
    return _figure(title, parts)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values that enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _path(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _rule(y: float, label: str) -> Markup:
    return Markup(
        '<path class="rule" d="M{} {:.1f}H{}"/><text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT, y, WIDTH - RIGHT, LEFT - 7, y + 4, label)


def _x_tick(value: float, share: float) -> Markup:
    label = f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
    return Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM + 17, label
    )


def _axis_name(name: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
        (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, name
    )


def _figure(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )
