"""The ground: grass, pavements, the road and its markings."""

from __future__ import annotations

import cv2
import numpy as np

from hrseg.toycity.cities import Color
from hrseg.toycity.layers import Layer, fixed_point
from hrseg.toycity.noise import noise_texture
from hrseg.toycity.street import UP, Street

GROUND = 900.0  # depth: everything but the sky stands in front of it


def draw_ground(street: Street) -> None:
    rng, (height, width) = street.rng, street.canvas
    top = int(np.ceil(street.horizon)) + 2
    rows, columns = np.arange(top, height, dtype=np.float32), np.arange(width, dtype=np.float32)
    z = (street.focal * street.eye / (rows + 0.5 - street.horizon)).astype(np.float32)[:, None]
    x = (columns + 0.5 - np.float32(street.center)) * z / np.float32(street.focal)
    z = np.broadcast_to(z, x.shape)
    near, dx, dz = np.clip(14 / z, 0, 1), *rng.uniform(30, 38, 2).astype(np.float32)

    def noise(kind: str) -> np.ndarray:
        return cv2.remap(noise_texture(kind), (x + dx) * 30, (z + dz) * 18, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)

    grain, stains = noise("grain") * near, noise("clouds")
    slab = np.float32(rng.uniform(0.7, 1.2))
    a, b = (x + dx) / slab, (z + dz) / slab
    i, j = np.floor(a).astype(np.int32), np.floor(b).astype(np.int32)
    joint = np.maximum(np.abs(a - i - 0.5), np.abs(b - j - 0.5)) > 0.46 - 0.0012 * z
    slabs = rng.normal(0, 0.05, (64, 64)).astype(np.float32)[i % 64, j % 64] - 0.22 * joint

    def surface(label: str, color: Color, shade: np.ndarray) -> Layer:
        layer = street.layer(label, GROUND)
        layer.rgb[top:] = np.array(street.lit(color, UP), np.uint8)
        layer.tone = np.ones(street.canvas, np.float32)
        layer.tone[top:] += shade
        return layer

    def strip(layer: Layer, x0: float, x1: float, z0: float = 1.2, z1: float = 400.0) -> None:
        corners = street.project([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)])
        cv2.fillPoly(layer.paint, [fixed_point(corners)], 1, cv2.LINE_8, 4)

    grass = surface("terrain", street.vary(street.city.grass, 12), 0.30 * grain + 0.14 * stains)
    strip(grass, -400, 400)
    street.add(grass)
    paving, shade = street.vary(street.city.paving, 12), slabs * np.clip(20 / z, 0, 1) + 0.06 * grain + 0.05 * stains
    for side in (0, 1):
        layer = surface("sidewalk", paving, shade)
        inner, outer = street.walks[side]
        strip(layer, street.outward(side, inner), street.outward(side, outer))
        stone, x0, x1 = (
            street.lit(street.vary((184, 182, 178), 8), UP),
            *(street.outward(side, inner + d) for d in (0, 0.22)),
        )
        layer.polygon(street.project([(x0, 0, 1.2), (x1, 0, 1.2), (x1, 0, 200), (x0, 0, 200)]), stone)
        street.add(layer)
    road = surface("road", street.vary(street.city.road, 12), 0.09 * grain + 0.08 * stains)
    strip(road, *street.kerbs)
    if street.crossing:
        strip(road, -400, 400, street.crossing - 3.5, street.crossing + 3.5)
    draw_road_markings(street, road)
    street.add(road)


def draw_road_markings(street: Street, road: Layer) -> None:
    rng, inside, (left, right) = street.rng, road.paint.copy(), street.kerbs
    white = street.lit(street.vary(street.pick(((226, 226, 222), (226, 226, 222), (230, 200, 96))), 6), UP)

    def stripe(x0: float, x1: float, z0: float, z1: float) -> None:
        road.polygon(street.project([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]), white)

    stop = street.crossing - 7.5 if street.crossing else 200.0
    for z in np.arange(rng.uniform(1.5, 4), 60, 4.5):
        if not street.at_crossing(z + 1, 8):
            stripe(street.middle - 0.08, street.middle + 0.08, z, z + 2.2)
    if rng.random() < 0.5:
        for edge in (left + 0.45, right - 0.55):
            stripe(edge, edge + 0.12, 1.5, stop)
    if street.crossing:
        for z in (street.crossing - 6.8, street.crossing + 4.2):
            for x in np.arange(left + 0.5, right - 0.6, 1.0):
                stripe(x, x + 0.5, z, z + 2.6)
    if rng.random() < 0.4:  # an arrow in our lane
        x, z = street.middle + street.half / 2, rng.uniform(6, 9)
        stripe(x - 0.09, x + 0.09, z, z + 2.5)
        road.polygon(street.project([(x - 0.4, 0, z + 2.4), (x + 0.4, 0, z + 2.4), (x, 0, z + 4)]), white)
    if rng.random() < 0.5:  # a manhole cover
        x, z, turn = rng.uniform(left + 1, right - 1), rng.uniform(5, 9), np.linspace(0, 2 * np.pi, 20)
        ring = np.stack([x + 0.4 * np.cos(turn), 0 * turn, z + 0.4 * np.sin(turn)], -1)
        road.polygon(street.project(ring), street.lit((84, 80, 78), UP))
    road.paint &= inside
