"""Bicycles and their riders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hrseg.toycity.layers import Layer, dimmed
from hrseg.toycity.street import BLACK, PAINTS, SKINS, Street


def draw_cyclists(street: Street) -> None:
    rng = street.rng
    for _ in range(rng.integers(2, 5)):
        x, z = rng.uniform(street.kerbs[0] + 0.8, street.kerbs[1] - 0.4), rng.uniform(6.0, 12.0)
        heading = street.pick((-1, 1)) * np.radians(rng.uniform(35, 125))
        if street.free(x, z, 0.9):
            pair = street.pair()
            bicycle = street.layer("bicycle", z, 0.02, pair)
            draw_bicycle(street, bicycle, x, z, heading)
            street.add(bicycle)
            draw_rider(street, x, z, heading, pair)
    if rng.random() < 0.5:  # parked, alone or in a row
        side, z, heading = int(rng.integers(2)), rng.uniform(6.5, 10), np.radians(rng.uniform(50, 130))
        x, count = street.outward(side, street.walks[side][1] - 0.7), int(street.pick((1, 1, 3)))
        if street.free(x, z, 0.9):
            row = street.layer("bicycle" if count == 1 else "bicyclegroup", z, 0.02)
            for i in reversed(range(count)):
                draw_bicycle(street, row, x, z + 0.5 * i, heading)
            street.add(row)


def draw_bicycle(street: Street, layer: Layer, x: float, z: float, heading: float) -> None:
    s, frame, black = street.scale(z), street.lit(street.vary(street.pick(PAINTS))), street.lit(BLACK)
    p = side_view(street, x, z, heading)
    turn, r = np.linspace(0, 2 * np.pi, 24, endpoint=False), 0.37
    for hub in (-0.56, 0.56):
        rim = np.stack([hub + r * np.cos(turn), r + r * np.sin(turn)], -1)
        for spoke in range(0, 12, 2):
            layer.line(p(rim[spoke], rim[spoke + 12]), 1, street.lit((156, 156, 156)))
        layer.line(p(*rim), 0.085 * s, black, closed=True)
        layer.cover(p(*rim))
    layer.cover(p((-0.56, 0.37), (-0.2, 0.85), (0.42, 0.85), (0.56, 0.37), (0, 0.2)))
    for tube in (((-0.05, 0.3), (-0.56, 0.37), (-0.18, 0.78)), ((-0.2, 0.85), (-0.05, 0.3), (0.4, 0.78)),
                 ((-0.17, 0.76), (0.4, 0.82)), ((0.36, 1.02), (0.56, 0.37))):  # fmt: skip
        layer.line(p(*tube), 0.085 * s, frame)
    layer.line(p((0.28, 1.06), (0.44, 1.04)), 0.09 * s, black)
    layer.line(p((-0.32, 0.92), (-0.1, 0.92)), 0.11 * s, black)
    ahead = np.array([np.sin(heading), 0, np.cos(heading)])
    street.shadow([(x, y, z) + a * ahead for a in (-0.9, 0.9) for y in (0, 0.7)])


def draw_rider(street: Street, x: float, z: float, heading: float, pair: int) -> None:
    rng, s, p = street.rng, street.scale(z), side_view(street, x, z, heading)
    layer = street.layer("rider", z - 0.1, 0.06, pair)
    top, legs = (street.lit(street.vary(street.pick(PAINTS), 14)) for _ in range(2))
    skin, helmet, black = street.lit(street.pick(SKINS)), street.lit(street.pick(PAINTS)), street.lit(BLACK)
    hip, shoulder, phase = (-0.2, 1.0), (rng.uniform(-0.07, 0.1), 1.5), rng.uniform(0, 2 * np.pi)
    elbow, hand = ((shoulder[0] + 0.42) / 2, 1.2), (0.36, 1.08)
    for half, tone in ((np.pi, 0.72), (0.0, 1.0)):  # the far leg and arm first
        pedal = (-0.02 + 0.17 * np.cos(phase + half), 0.32 + 0.17 * np.sin(phase + half))
        knee = ((hip[0] + pedal[0]) / 2 + 0.22, (hip[1] + pedal[1]) / 2 + 0.12)
        layer.line(p(hip, knee, pedal), 0.19 * s, dimmed(legs, tone))
        layer.line(p(pedal, (pedal[0] + 0.14, pedal[1] - 0.02)), 0.12 * s, black)
        if tone == 1.0:
            layer.line(p(hip, shoulder), 0.36 * s, top)
        layer.line(p(shoulder, elbow, hand), 0.14 * s, dimmed(top, 0.86 * tone))
        layer.ellipse(p(hand)[0], (0.075 * s, 0.075 * s), skin)
    head = p((shoulder[0] + 0.06, 1.76))[0]
    layer.line(np.stack([p(shoulder)[0], head]), 0.14 * s, skin)
    layer.ellipse(head, (0.15 * s, 0.18 * s), skin)
    layer.ellipse(head - (0, 0.03 * s), (0.18 * s, 0.18 * s), helmet, (180, 360))
    street.add(layer)
    ahead = np.array([np.sin(heading), 0, np.cos(heading)])
    street.shadow([(x, y, z) + a * ahead for a in (-0.3, 0.35) for y in (0.8, 1.8)])


def side_view(street: Street, x: float, z: float, heading: float) -> Callable[..., np.ndarray]:
    """A function from points (metres ahead of the middle, metres up) to canvas coordinates."""
    ahead = np.array([np.sin(heading), 0, np.cos(heading)])
    return lambda *points: street.project([(x, y, z) + a * ahead for a, y in points])
