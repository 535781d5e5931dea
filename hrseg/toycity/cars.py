"""Cars: driving, crossing and parked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hrseg.toycity.layers import MIN_WIDTH, SUPERSAMPLE, dimmed, hull, quad_part
from hrseg.toycity.street import BLACK, DARK, PAINTS, Street

# name: length, width, height in metres; height of the hood, and the cabin's corners along the length from the tail:
# foot behind, roof behind, roof in front, foot in front, as shares.
CARS = {
    "hatchback": (3.9, 1.80, 1.55, 0.54, (0.02, 0.10, 0.55, 0.74)),
    "saloon": (4.5, 1.85, 1.50, 0.54, (0.13, 0.27, 0.57, 0.73)),
    "estate": (4.5, 1.85, 1.55, 0.54, (0.01, 0.06, 0.58, 0.74)),
    "offroader": (4.4, 1.95, 1.80, 0.56, (0.01, 0.05, 0.60, 0.72)),
    "van": (4.8, 2.00, 2.15, 0.50, (0.00, 0.01, 0.76, 0.93)),
}


def draw_cars(street: Street) -> None:
    rng, lane = street.rng, street.half / 2
    for x, heading, z in ((-lane, np.pi, rng.uniform(9, 16)), (lane, 0.0, rng.uniform(11, 22))):
        while z < 45:
            draw_car(street, street.middle + x + rng.uniform(-0.3, 0.3), z, heading + rng.normal(0, 0.05))
            z += rng.uniform(10, 24)
    if street.crossing and rng.random() < 0.7:
        heading = street.pick((-1, 1))
        draw_car(street, rng.uniform(-8, 8), street.crossing + heading * 1.6, heading * np.pi / 2 + rng.normal(0, 0.1))
    for side, heading in enumerate((np.pi, 0.0)):  # parked
        for z in np.arange(rng.uniform(6.5, 11), 32, 6.3) if rng.random() < 0.45 else ():
            if rng.random() < 0.7 and not street.at_crossing(z, 9):
                draw_car(street, street.outward(side, -1.05), z, heading + rng.normal(0, 0.03))


def draw_car(street: Street, x: float, z: float, heading: float) -> None:
    if not street.free(x, z, 2.0):
        return
    length, width, height, hood, cabin = CARS[street.pick(list(CARS))]
    color, layer = street.vary(street.pick(PAINTS), 12), street.layer("car", z, grain=0.02)
    frame = np.array([[np.sin(heading) * length, 0, np.cos(heading) * length],
                      [np.cos(heading) * width / 2, 0, -np.sin(heading) * width / 2], [0, height, 0]])  # fmt: skip

    def at(a: Any, b: Any, y: Any) -> np.ndarray:
        """a: share of the length from the tail; b: share of the half width to the right; y: share of the height."""
        a, b, y = (np.asarray(v)[..., None] for v in (a, b, y))
        return (x, 0, z) + (a - 0.5) * frame[0] + b * frame[1] + y * frame[2]

    def prism(a: Sequence[float], y: Sequence[float], inset: Sequence[float]) -> list[np.ndarray]:
        """Left, right, then a face for each edge of the profile."""
        left, right = at(a, -np.asarray(inset), y), at(a, inset, y)
        edges = zip(left, np.roll(left, -1, 0), np.roll(right, -1, 0), np.roll(right, 0, 0), strict=True)
        return [left, right, *(np.stack(edge) for edge in edges)]

    turn = np.linspace(0, 2 * np.pi, 18, endpoint=False)

    def wheel(a: float, b: float, radius: float) -> np.ndarray:
        return street.project(at(a + radius / length * np.cos(turn), b, (0.36 + radius * np.sin(turn)) / height))

    for a in (0.19, 0.81):
        for b in (-1, 1):
            layer.polygon(hull(np.concatenate([wheel(a, 0.98 * b, 0.36), wheel(a, 0.75 * b, 0.36)])), BLACK)
    chassis = [at(a, b, y) for a in (0.1, 0.9) for b in (-0.9, 0.9) for y in (0.08, 0.3)]
    layer.polygon(hull(street.project(chassis)), dimmed(BLACK, 0.8))
    body = ((0, 0, 0.03, cabin[3], 0.97, 1, 1), (0.17, 0.52, 0.6, 0.6, hood, hood - 0.1, 0.17))
    left, right, tail, *_, nose, _ = street.faces(layer, prism(*body, (1,) * 7), at(0.5, 0, 0.4), color)
    top = prism(cabin, (0.6, 1, 1, 0.6), (0.94, 0.76, 0.76, 0.94))
    *sides, back, _, front, _ = street.faces(layer, top, at(0.45, 0, 0.7), color)

    glass = street.lit(street.vary((62, 74, 88), 8))
    for side in sides:
        if side is not None:
            layer.polygon(quad_part(side, (0.08, 0.5), (0.12, 0.84)), glass)
            layer.polygon(quad_part(side, (0.55, 0.93), (0.12, 0.84)), glass)
    for window in (back, front):
        if window is not None:
            pane = quad_part(window, (0.07, 0.93), (0.12, 0.88))
            layer.polygon(pane, glass)
            layer.polygon(pane[[0, 1, 2]], [0.6 * g + 0.4 * s for g, s in zip(glass, street.sky_low, strict=True)])
    for b, side in ((-1, left), (1, right)):
        if side is not None:
            for hub in (0.19, 0.81):
                for radius, tone in ((0.36, BLACK), (0.22, (172, 172, 174)), (0.07, (94, 94, 96))):
                    layer.polygon(wheel(hub, 0.99 * b, radius), street.lit(tone))
            seam = street.project([at(0.24, b, 0.36), at(0.76, b, 0.36)])
            layer.line(seam, 0.04 * street.scale(z), dimmed(street.lit(color), 0.7))
    for end, lamp in ((tail, (212, 48, 42)), (None if nose is None else nose[[1, 0, 3, 2]], (246, 242, 224))):
        if end is not None:
            for s in ((0.04, 0.24), (0.76, 0.96)):
                layer.polygon(quad_part(end, s, (0.68, 0.95)), lamp)
            layer.polygon(quad_part(end, (0, 1), (0.02, 0.24)), street.lit(DARK))
            plate = quad_part(end, (0.36, 0.64), (0.3, 0.5))
            layer.polygon(plate, street.lit((238, 238, 232)))
            if np.ptp(plate[:, 0]) >= MIN_WIDTH * SUPERSAMPLE:
                layer.plates.append((plate // SUPERSAMPLE).astype(int).tolist())
    street.add(layer)
    for along, out, y in ((0.49, 1.0, 0.6), (0.3, 0.8, 1.0)):  # body, roof
        street.shadow([at(0.5 + i * along, j * out, k) for i in (-1, 1) for j in (-1, 1) for k in (0.05, y)])
