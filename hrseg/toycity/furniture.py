"""Street furniture: lamps, bollards, traffic signs and traffic lights."""

from __future__ import annotations

import numpy as np

from hrseg.toycity.cities import Color
from hrseg.toycity.layers import MIN_WIDTH, SUPERSAMPLE, Layer, dimmed
from hrseg.toycity.street import BLACK, Street

POSTS: tuple[Color, ...] = ((134, 136, 138), (88, 92, 94), (174, 174, 172), (78, 100, 88), (116, 102, 92))

# A sign's plates (corners, radius, turn, color; above a radius of 1.2 it is wide) and strokes (width, color, points).
RED, BLUE, YELLOW, FOREST, SNOW = (208, 38, 38), (36, 88, 176), (244, 196, 44), (38, 116, 74), (242, 242, 238)
EIGHTH = np.pi / 4


def _guide_sign(ground: Color, ink: Color) -> tuple:
    lines = ((0.16, ink, ((-0.9, -0.18), (0.5, -0.18))), (0.16, ink, ((-0.9, 0.22), (0.8, 0.22))))
    return ((4, 1.36, EIGHTH, ink), (4, 1.22, EIGHTH, ground)), lines


SIGNS = (
    (((24, 1, 0, RED), (24, 0.74, 0, SNOW)),  # speed limit
     ((0.2, BLACK, ((-0.25, -0.3), (-0.25, 0.3))), (0.2, BLACK, ((0.25, -0.3), (0.25, 0.3))))),
    (((3, 1.15, 0, RED), (3, 0.68, 0, SNOW)), ((0.14, BLACK, ((0, -0.3), (0, 0.15))),)),  # warning
    (((4, 1.1, 0, SNOW), (4, 0.78, 0, YELLOW)), ()),  # priority
    (((8, 1, EIGHTH / 2, SNOW), (8, 0.9, EIGHTH / 2, RED)), ((0.3, SNOW, ((-0.5, 0), (0.5, 0))),)),  # stop
    (((24, 1, 0, SNOW), (24, 0.92, 0, BLUE)),  # straight on
     ((0.2, SNOW, ((0, 0.5), (0, -0.45))), (0.2, SNOW, ((-0.35, -0.1), (0, -0.5), (0.35, -0.1))))),
    (((4, 1.2, EIGHTH, SNOW), (4, 1.05, EIGHTH, BLUE)),  # parking
     ((0.18, SNOW, ((-0.2, 0.5), (-0.2, -0.5), (0.25, -0.4), (0.25, -0.05), (-0.2, 0))),)),
    _guide_sign(BLUE, SNOW), _guide_sign(FOREST, SNOW), _guide_sign(SNOW, BLACK), _guide_sign(YELLOW, BLACK),
)  # fmt: skip


def draw_furniture(street: Street) -> None:
    rng = street.rng
    for side in (0, 1):
        x = street.outward(side, 0.45)
        for z in np.sort(rng.uniform(6.0, 14, rng.integers(2, 4))):
            if not street.at_crossing(z, 3.8) and street.free(x, z, 0.5):
                street.pick((draw_lamp, draw_sign, draw_sign, draw_sign, draw_signal, draw_signal, draw_bollard))(
                    street, x, z
                )


def post_layer(street: Street, x: float, z: float, height: float, width: float, together: int = 0) -> Layer:
    layer, s, foot = street.layer("pole", z, 0.03, together), street.scale(z), street.project([(x, 0, z)])[0]
    color, width = street.lit(street.vary(street.pick(POSTS), 8)), max(width * s, (MIN_WIDTH + 0.8) * SUPERSAMPLE)
    for x0, x1, y, tone in ((-0.5, 0.5, height, 0.8), (-0.3, 0.25, height, 1), (-0.2, 0, height, 1.18),
                            (-0.8, 0.8, 0.25, 0.75)):  # fmt: skip
        bar = np.array([[x0 * width, 0], [x1 * width, 0], [x1 * width, -y * s], [x0 * width, -y * s]])
        layer.polygon(foot + bar, dimmed(color, tone))
    street.shadow([(x - 0.1, 0, z), (x + 0.1, 0, z), (x - 0.1, height, z), (x + 0.1, height, z)])
    return layer


def draw_lamp(street: Street, x: float, z: float) -> None:
    height, s = street.rng.uniform(4.2, 5.4), street.scale(z)
    layer, top = post_layer(street, x, z, height, 0.2), street.project([(x, height, z)])[0]
    reach = -np.sign(x) * street.rng.uniform(0.9, 1.5)
    arm = top + s * np.array([[0, 0], [0.5 * reach, -0.35], [reach, -0.35]])
    layer.line(arm, max(0.17 * s, MIN_WIDTH * SUPERSAMPLE), street.lit((116, 118, 120)))
    layer.ellipse(top + s * np.array([reach, -0.28]), (0.42 * s, 0.2 * s), street.lit((74, 76, 78)))
    layer.ellipse(top + s * np.array([reach, -0.2]), (0.3 * s, 0.12 * s), (250, 244, 220))
    street.add(layer)


def draw_bollard(street: Street, x: float, z: float) -> None:
    layer, s, top = post_layer(street, x, z, 1.1, 0.24), street.scale(z), street.project([(x, 1.1, z)])[0]
    layer.ellipse(top, (0.16 * s, 0.14 * s), street.lit((150, 150, 150)))
    layer.polygon(
        top + s * np.array([[-0.11, 0.15], [0.11, 0.15], [0.11, 0.3], [-0.11, 0.3]]), street.lit((220, 64, 52))
    )
    street.add(layer)


def draw_sign(street: Street, x: float, z: float) -> None:
    rng, s, pair, height = street.rng, street.scale(z), street.pair(), street.rng.uniform(2.5, 3.0)
    street.add(post_layer(street, x, z, height + 0.1, 0.17, pair))
    board = street.layer("traffic sign", z - 0.05, 0.02, pair)
    center, r, face = street.project([(x, height, z)])[0], rng.uniform(0.5, 0.64) * s, (0, 0.5, -0.8)
    plates, strokes = street.pick(SIGNS)
    for corners, radius, turn, color in plates:
        t = turn + np.arange(corners) * 2 * np.pi / corners
        shape = np.stack([np.sin(t), -np.cos(t)], -1) * ((1.45, 0.7) if radius > 1.2 else (1, 1))
        board.polygon(center + radius * r * shape, street.lit(color, face))
    for width, color, points in strokes:
        board.line(center + r * np.array(points), width * r, street.lit(color, face))
    street.add(board)


def draw_signal(street: Street, x: float, z: float) -> None:
    s, pair, center = street.scale(z), street.pair(), street.project([(x, 3.1, z)])[0]
    street.add(post_layer(street, x, z, 2.7, 0.2, pair))
    box, shining = street.layer("traffic light", z - 0.05, 0.02, pair), street.rng.integers(3)
    case = np.array([[-0.38, -0.95], [0.38, -0.95], [0.38, 0.95], [-0.38, 0.95]]) * s
    box.polygon(center + case, street.lit((50, 54, 52)))
    for i, color in enumerate(((240, 56, 48), (250, 196, 60), (68, 220, 118))):
        spot = center + s * np.array([0, (i - 1) * 0.58])
        box.ellipse(spot, (0.24 * s, 0.24 * s), color if i == shining else dimmed(color, 0.32))
    street.add(box)
