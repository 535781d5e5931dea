"""Fences, hedges, trees and shrubs."""

from __future__ import annotations

import numpy as np

from hrseg.toycity.cities import Color
from hrseg.toycity.layers import dimmed
from hrseg.toycity.street import UP, Street

FENCES: tuple[Color, ...] = ((230, 228, 220), (126, 88, 60), (74, 78, 78), (156, 122, 88), (92, 114, 96))


def draw_gardens(street: Street) -> None:
    """Along the edge of a garden a fence, a hedge or nothing; behind it shrubs and trees."""
    rng = street.rng
    for side, width in enumerate(street.gardens):
        if not width:
            continue
        edge, kind = street.outward(side, street.walks[side][1] + 0.15), rng.choice(["fence", "fence", "hedge", "none"])
        paint, z = street.pick(FENCES), 2.5
        while z < 45:
            length = rng.uniform(6, 9)
            if kind != "none" and not street.at_crossing(z + length / 2, 4 + length / 2):
                if kind == "fence":
                    draw_fence(street, edge, z, z + length, paint)
                else:
                    draw_hedge(street, edge, z, z + length)
            z += length + 0.8
        for _ in range(rng.integers(4)):
            draw_tree(street, street.outward(side, street.walks[side][1] + 0.55 * width), rng.uniform(6, 25), bush=0.7)


def draw_fence(street: Street, x: float, z0: float, z1: float, color: Color) -> None:
    layer, height = street.layer("fence", (z0 + z1) / 2), 1.25
    shade = street.lit(color, (-np.sign(x), 0, 0))
    layer.cover(street.project([(x, 0, z0), (x, height, z0), (x, height, z1), (x, 0, z1)]))
    for y in (0.35, 0.95):
        rail = [(x, y, z0), (x, y + 0.12, z0), (x, y + 0.12, z1), (x, y, z1)]
        layer.polygon(street.project(rail), dimmed(shade, 0.85))
    for z in np.arange(z0, z1 - 0.1, 0.28):
        picket = [
            (x, 0, z),
            (x, height - 0.1, z),
            (x, height, z + 0.08),
            (x, height - 0.1, z + 0.16),
            (x, 0, z + 0.16),
        ]
        layer.polygon(street.project(picket), shade)
    street.add(layer)
    street.shadow([(x, y, z) for y in (0, height) for z in (z0, z1)])


def draw_hedge(street: Street, x: float, z0: float, z1: float) -> None:
    layer, height, back = street.layer("vegetation", (z0 + z1) / 2, grain=0.3), 1.1, x + np.sign(x) * 0.9
    sides = (
        [(x, 0, z0), (x, height, z0), (x, height, z1), (x, 0, z1)],
        [(x, 0, z0), (x, height, z0), (back, height, z0), (back, 0, z0)],
        [(x, height, z0), (x, height, z1), (back, height, z1), (back, height, z0)],
    )
    street.faces(layer, sides, ((x + back) / 2, 0.5, (z0 + z1) / 2), street.vary(street.pick(street.city.leaves)))
    street.add(layer)
    street.shadow([(x, y, z) for y in (0, height) for z in (z0, z1)])


def draw_street_trees(street: Street) -> None:
    rng = street.rng
    for side in (0, 1):
        if rng.random() < 0.6:
            for z in np.arange(rng.uniform(9, 15), 50, 9):
                if rng.random() < 0.8:
                    draw_tree(street, street.outward(side, 0.9), z + rng.uniform(-1, 1))


def draw_tree(street: Street, x: float, z: float, bush: float = 0.0) -> None:
    """A tree, or by the chance `bush` a shrub."""
    rng, s = street.rng, street.scale(z)
    if z < 4 or street.at_crossing(z, 5) or not street.free(x, z, 0.5):
        return
    layer, foot = street.layer("vegetation", z, grain=0.3), street.project([(x, 0, z)])[0]
    shrub = rng.random() < bush
    r, trunk = (rng.uniform(0.5, 0.9), 0.3) if shrub else (rng.uniform(1.2, 2.0), rng.uniform(2.2, 2.9))
    if not shrub:
        stem = np.array([[-0.19, 0], [0.19, 0], [0.13, trunk + 0.6], [-0.13, trunk + 0.6]])
        layer.polygon(foot + stem * (s, -s), street.lit(street.vary((112, 88, 70))))
    color, heart = street.lit(street.vary(street.pick(street.city.leaves), 12), UP), np.array([0.0, trunk + 0.75 * r])
    for step, tone in enumerate((0.66, 0.84, 1.0)):  # from the dark inside out to the lit tips
        turn, reach = rng.uniform(0, 2 * np.pi, 11), rng.uniform(0.2, 0.78, 11) * r
        spots = heart + np.stack([np.cos(turn), 0.85 * np.sin(turn)], -1) * reach[:, None]
        spots = foot + (spots + step * 0.13 * r * np.array([street.sun_direction[0], 0.8])) * (s, -s)
        for spot, radius in zip(spots, rng.uniform(0.26, 0.46, 11) * r * s * (1 - 0.25 * step), strict=True):
            layer.ellipse(spot, (radius, 0.9 * radius), dimmed(color, tone))
    street.add(layer)
    ring = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    street.shadow([(x + r * np.cos(t), heart[1] + r * np.sin(t), z + a) for t in ring for a in (-0.4 * r, 0.4 * r)])
    street.shadow([(x - 0.15, 0, z), (x + 0.15, 0, z), (x, trunk, z)])
