"""People on foot."""

from __future__ import annotations

import numpy as np

from hrseg.toycity.cities import Color
from hrseg.toycity.layers import Layer, dimmed
from hrseg.toycity.street import PAINTS, SKINS, Street

HAIRS: tuple[Color, ...] = ((44, 34, 28), (92, 62, 40), (180, 142, 86), (154, 152, 150), (134, 68, 42))


def draw_people(street: Street) -> None:
    rng = street.rng
    for _ in range(rng.integers(5, 9)):
        z, side = rng.uniform(6.0, 14.5), int(rng.integers(2))
        x = street.outward(side, rng.uniform(*street.walks[side]))
        if rng.random() < 0.2:
            x = rng.uniform(street.kerbs[0] + 0.5, street.kerbs[1] - 0.5)
        if street.free(x, z, 0.5):
            layer = street.layer("person", z, grain=0.06)
            draw_person(street, layer, x, z)
            street.add(layer)
    if rng.random() < 0.3:
        z, side = rng.uniform(13, 17), int(rng.integers(2))
        x = street.outward(side, float(np.mean(street.walks[side])))
        if street.free(x, z, 1.2):
            layer = street.layer("persongroup", z, grain=0.06)
            for step in (-0.9, -0.3, 0.25, 0.8):
                draw_person(street, layer, x + step, z)
            street.add(layer)


def draw_person(street: Street, layer: Layer, x: float, z: float) -> None:
    rng = street.rng
    tall = rng.uniform(1.6, 1.9) * (0.75 if rng.random() < 0.12 else 1.0)
    s, foot = street.scale(z) * tall / 1.75, street.project([(x, 0, z)])[0]
    top, legs, shoes, bag = (street.lit(street.vary(street.pick(PAINTS), 14)) for _ in range(4))
    skin, hair = street.lit(street.vary(street.pick(SKINS), 6)), street.lit(street.pick(HAIRS))
    step, swing, face = rng.uniform(0.06, 0.26), rng.uniform(-0.05, 0.22), street.pick((-1, 1))
    coat, backpack, shopping = rng.random(3) < (0.3, 0.25, 0.3)

    def p(*points: tuple[float, float]) -> np.ndarray:
        return foot + np.array(points) * (face * s, -s)

    layer.line(p((-0.22, 1.36), (-0.3 - swing / 2, 1.1), (-0.26 - swing, 0.86)), 0.14 * s, dimmed(top, 0.78))
    layer.line(p((-0.09, 0.85), (-0.1 - step / 2, 0.48), (-0.1 - step, 0.08)), 0.2 * s, dimmed(legs, 0.78))
    layer.line(p((-0.12 - step, 0.05), (0.02 - step, 0.05)), 0.12 * s, shoes)
    layer.line(p((0.09, 0.85), (0.12 + step / 2, 0.48), (0.08 + step, 0.08)), 0.2 * s, legs)
    layer.line(p((0.08 + step, 0.05), (0.2 + step, 0.05)), 0.12 * s, shoes)
    if coat:
        layer.polygon(p((-0.19, 0.95), (0.19, 0.95), (0.27, 0.5), (-0.27, 0.5)), top)
    layer.polygon(p((-0.2, 0.8), (0.2, 0.8), (0.25, 1.36), (0.15, 1.46), (-0.15, 1.46), (-0.25, 1.36)), top)
    layer.polygon(p((-0.2, 0.8), (-0.05, 0.8), (-0.1, 1.44), (-0.15, 1.46), (-0.25, 1.36)), dimmed(top, 0.88))
    if backpack:
        layer.line(p((-0.24, 1.0), (-0.24, 1.3)), 0.24 * s, bag)
    layer.line(p((0.22, 1.34), (0.3 + swing / 2, 1.1), (0.28 + swing, 0.86)), 0.14 * s, dimmed(top, 0.9))
    hand, head = p((0.28 + swing, 0.82), (0.02, 1.64))
    layer.ellipse(hand, (0.075 * s, 0.075 * s), skin)
    if shopping:
        layer.polygon(hand + s * np.array([[-0.15, 0.02], [0.15, 0.02], [0.17, 0.36], [-0.17, 0.36]]), bag)
    layer.line(p((0, 1.42), (0, 1.52)), 0.13 * s, dimmed(skin, 0.78))
    layer.ellipse(head, (0.15 * s, 0.18 * s), skin)
    layer.ellipse(head - (0.03 * face * s, 0.03 * s), (0.16 * s, 0.18 * s), hair, (150, 390 if face > 0 else 330))
    street.shadow([(x - 0.2, 0, z), (x + 0.2, 0, z), (x - 0.22, 1.45, z), (x + 0.22, 1.45, z), (x, 1.75, z)])
