"""The houses along the street."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hrseg.toycity.cities import Color
from hrseg.toycity.gardens import draw_tree
from hrseg.toycity.layers import dimmed
from hrseg.toycity.noise import noise_piece
from hrseg.toycity.street import PAINTS, Points, Street

TRIMS: tuple[Color, ...] = ((232, 230, 224), (126, 118, 110), (196, 184, 166), (88, 88, 92))
ROOFS: tuple[Color, ...] = ((160, 86, 66), (102, 96, 98), (128, 74, 60), (90, 98, 110))


def draw_houses(street: Street) -> None:
    rng = street.rng
    for side in (0, 1):
        line, z, before = street.outward(side, street.walks[side][1] + street.gardens[side]), rng.uniform(0.5, 4.0), 0
        while z < street.end:
            length, floors = rng.uniform(6, 12), int(rng.integers(street.city.floors[0], street.city.floors[1] + 1))
            if street.crossing and z < street.crossing + 4.5 < z + length + 9:
                length = street.crossing - 4.5 - z
                if length < 3:
                    z, before = street.crossing + 4.5, 0
                    continue
            if rng.random() < 0.16:  # a small park
                for _ in range(3):
                    x = street.outward(side, street.walks[side][1] + street.gardens[side] + rng.uniform(1, 6))
                    draw_tree(street, x, z + rng.uniform(0, length), bush=0.3)
                z, before = z + length, 0
                continue
            if abs(line) * street.focal / (z + length) < 0.75 * street.canvas[1]:
                draw_house(street, side, line, max(z, 1.3), z + length, floors, end=floors > before)
            before, z = floors, z + length
            if rng.random() < 0.25:
                z, before = z + rng.uniform(1.5, 4), 0


def draw_house(street: Street, side: int, line: float, z0: float, z1: float, floors: int, end: bool) -> None:
    """A house along the street, from z0 to z1; end: the wall that looks at the camera can be seen."""
    rng, out, top = street.rng, 1 if side else -1, floors * 3.0
    back, ridge, rise = line + out * 9.0, line + out * 4.5, rng.uniform(2.0, 4.5) if rng.random() < 0.7 else 0.0
    layer, ppm = street.layer("building", (z0 + z1) / 2 + 6, grain=0.02), 20 if z0 < 30 else 10
    roof = [(line, top, z1), (line, top, z0), (ridge, top + rise, z0), (ridge, top + rise, z1)]
    street.faces(layer, [roof], (ridge, top, z0), street.vary(street.pick(ROOFS), 8))
    if end:
        wall = facade_texture(street, 9.0, floors, ppm, (0, 0, -1))
        layer.polygon(
            street.project([(line, top, z0), (ridge, top + rise, z0), (back, top, z0)]), wall[-ppm, 0].tolist()
        )
        layer.warp(wall, street.project([(line, top, z0), (back, top, z0), (back, 0, z0), (line, 0, z0)]))
    front = facade_texture(street, z1 - z0, floors, ppm, (-out, 0, 0), shop=rng.random() < 0.35)
    layer.warp(front, street.project([(line, top, z0), (line, top, z1), (line, 0, z1), (line, 0, z0)]))
    street.add(layer)
    street.shadow([(x, y, z) for x in (line, back) for y in (0, top) for z in (z0, z1)])


def facade_texture(
    street: Street, width: float, floors: int, ppm: int, normal: Sequence[float], shop: bool = False
) -> np.ndarray:
    """A house front as a texture of ppm pixels per metre, three metres per floor."""
    rng, w, h = street.rng, int(width * ppm), floors * 3 * ppm
    tone = 1 + 0.06 * noise_piece(rng, "grain", h, w)
    if rng.random() < 0.4 and ppm >= 16:  # bricks
        rows, columns = np.ogrid[0:h, 0:w]
        tone -= 0.12 * ((rows % 6 < 1) | ((columns + 6 * (rows // 6 % 2)) % 12 < 1))
    base = np.array(street.lit(street.vary(street.pick(street.city.facades), 12), normal), np.float32)
    texture = np.clip(tone[..., None] * base, 0, 255).astype(np.uint8)
    trim = street.lit(street.vary(street.pick(TRIMS), 8), normal)
    pane, sky = np.array(street.lit(street.vary((74, 84, 98), 12), normal)), 0.78 * np.array(street.sky_low)

    def box(x0: float, y0: float, x1: float, y1: float, color: Points) -> None:
        """From the left edge and up from the ground, in metres."""
        corners = (round(x0 * ppm), h - round(y1 * ppm)), (round(x1 * ppm) - 1, h - round(y0 * ppm) - 1)
        cv2.rectangle(texture, *corners, [float(c) for c in color], -1)

    line = 1.01 / ppm  # one pixel
    count = max(1, int(width // rng.uniform(1.9, 2.8)))
    wide, high, balcony = rng.uniform(0.9, 1.25), rng.uniform(1.3, 1.8), rng.random() < 0.25
    for floor in range(1 if shop else 0, floors):
        y = floor * 3 + 2.35 - high
        for i in range(count):
            x, mix = (i + 0.5) * width / count - wide / 2, rng.uniform(0.1, 0.75)
            glass = pane * (1 - mix) + sky * mix if rng.random() < 0.93 else np.array((250, 222, 156))
            box(x - 0.1, y - 0.1, x + wide + 0.1, y + high + 0.1, trim)
            box(x, y, x + wide, y + high, glass)
            if ppm < 16:
                continue
            box(x, y + 0.7 * high, x + wide, y + high, 0.85 * glass)
            box(x + wide / 2, y, x + wide / 2 + line, y + high, trim)
            box(x, y + 0.65 * high, x + wide, y + 0.65 * high + line, trim)
            if balcony and floor:
                box(x - 0.3, y - 0.2, x + wide + 0.3, y + 0.25 * high, dimmed(trim, 0.6))
    if shop:
        box(0.2, 0.4, width - 0.25, 2.3, trim)
        box(0.4, 0.5, width - 0.45, 2.1, 0.5 * pane + 0.5 * sky)
        for x in np.arange(0.4, width - 0.4, 2.2):
            box(x, 0.5, x + 0.1, 2.1, trim)
        box(0.1, 2.25, width - 0.15, 2.9, street.lit(street.pick(PAINTS), normal))
    if width > 4:
        x = rng.uniform(1, width - 2.4)
        box(x - 0.15, 0, x + 1.25, 2.3, trim)
        box(x, 0, x + 1.1, 2.15, street.lit(street.pick(PAINTS), normal))
    box(0, 0, width, 0.4, dimmed(trim, 0.7))
    box(0, floors * 3 - 0.5, width, floors * 3 - 0.35, dimmed(trim, 0.55))
    box(0, floors * 3 - 0.35, width, floors * 3, trim)
    return texture
