"""The streets of toy city: what stands where, how it looks, and the polygon that annotates it.

A scene is a list of layers, far to near. Each layer has colours, where they are, and an extent from which the polygon
of its annotation follows. Colours are drawn at random for nearly everything, so shape, texture and place tell the
classes apart, not colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLE = 2  # colours are painted at this many times the size, labels at the size itself
MIN_WIDTH = 6  # pixels of a counted object that can be seen
MIN_SHARE = 0.35  # of a counted object that can be seen
COUNTED = {"pole", "traffic sign", "traffic light", "person", "rider", "car", "bicycle"}
SKY, GROUND = 1000.0, 900.0  # depths of what everything else stands in front of

Color = Sequence[float]  # red, green, blue in 0..255
Points = Sequence | np.ndarray  # a row each
FRONT, UP = (0.0, 0.4, -0.8), (0.0, 1.0, 0.0)  # normals: of what stands and looks at the camera, of what lies


class City(NamedTuple):
    """How one city looks."""

    name: str
    facades: tuple[Color, ...]
    leaves: tuple[Color, ...]
    road: Color
    paving: Color
    grass: Color
    weather: tuple[float, float, float]  # chances of clear, overcast, evening
    eye: float  # metres of the camera above the road
    horizon: float  # share of the height
    floors: tuple[int, int]


GREEN, OLIVE, DARK_GREEN, LIME = (84, 134, 58), (126, 130, 66), (52, 96, 58), (138, 166, 70)
AMBER, RUST, GOLD, BLOSSOM = (208, 138, 54), (170, 88, 54), (214, 180, 80), (222, 172, 186)
BRICK, SAND, CREAM, GREY, SLATE = (172, 94, 74), (214, 186, 140), (234, 222, 196), (160, 160, 158), (112, 118, 130)
AZURE, MINT, ROSE, OCHRE, WHITE = (150, 184, 212), (164, 198, 170), (216, 158, 150), (214, 166, 84), (230, 230, 228)
CITIES = {
    "train": (
        City("alderburg", (BRICK, SAND, CREAM, GREY), (GREEN, OLIVE), (112, 112, 116), (164, 158, 152), (122, 146, 76),
             (0.6, 0.3, 0.1), 1.55, 0.43, (2, 4)),
        City("birkenhafen", (WHITE, AZURE, GREY, SLATE), (DARK_GREEN, GREEN), (130, 128, 128), (144, 146, 152),
             (108, 132, 72), (0.4, 0.5, 0.1), 1.8, 0.40, (2, 5)),
        City("cedernau", (OCHRE, ROSE, CREAM, MINT), (AMBER, GOLD, OLIVE), (120, 114, 108), (176, 164, 148),
             (156, 146, 86), (0.5, 0.2, 0.3), 1.5, 0.44, (2, 3)),
        City("dornfeld", (BRICK, SLATE, GREY, OCHRE), (RUST, AMBER, GREEN), (100, 102, 108), (136, 130, 126),
             (138, 134, 84), (0.5, 0.3, 0.2), 1.65, 0.42, (3, 5)),
        City("eschwik", (MINT, WHITE, AZURE, ROSE), (LIME, BLOSSOM, GREEN), (140, 138, 138), (178, 176, 174),
             (118, 156, 84), (0.7, 0.2, 0.1), 1.7, 0.45, (1, 3)),
        City("fernau", (SAND, SLATE, BRICK, MINT), (OLIVE, GOLD, DARK_GREEN), (108, 108, 106), (152, 144, 134),
             (146, 142, 96), (0.4, 0.3, 0.3), 1.6, 0.41, (2, 4)),
    ),
    "val": (
        City("ginsterby", (CREAM, BRICK, AZURE, OCHRE), (GREEN, AMBER), (124, 120, 118), (156, 154, 156),
             (130, 144, 80), (0.5, 0.3, 0.2), 1.6, 0.43, (2, 4)),
        City("holmstad", (GREY, ROSE, SAND, WHITE), (OLIVE, DARK_GREEN, RUST), (106, 108, 112), (168, 160, 156),
             (124, 138, 90), (0.5, 0.4, 0.1), 1.75, 0.41, (2, 5)),
        City("ilmstedt", (MINT, SLATE, CREAM, BRICK), (GOLD, LIME), (134, 130, 124), (146, 140, 138),
             (144, 150, 92), (0.5, 0.2, 0.3), 1.55, 0.44, (1, 3)),
    ),
}  # fmt: skip
PAINTS: tuple[Color, ...] = (
    (192, 44, 42), (38, 78, 150), (230, 230, 226), (50, 52, 56), (144, 146, 150), (110, 110, 112), (200, 196, 188),
    (62, 120, 80), (222, 176, 52), (116, 54, 50), (92, 158, 186), (212, 114, 52), (176, 156, 124), (128, 138, 86),
    (174, 136, 158), (74, 80, 106),
)  # fmt: skip
TRIMS: tuple[Color, ...] = ((232, 230, 224), (126, 118, 110), (196, 184, 166), (88, 88, 92))
ROOFS: tuple[Color, ...] = ((160, 86, 66), (102, 96, 98), (128, 74, 60), (90, 98, 110))
POSTS: tuple[Color, ...] = ((134, 136, 138), (88, 92, 94), (174, 174, 172), (78, 100, 88), (116, 102, 92))
FENCES: tuple[Color, ...] = ((230, 228, 220), (126, 88, 60), (74, 78, 78), (156, 122, 88), (92, 114, 96))
SKINS: tuple[Color, ...] = ((240, 198, 168), (210, 160, 124), (154, 108, 78), (102, 70, 50))
HAIRS: tuple[Color, ...] = ((44, 34, 28), (92, 62, 40), (180, 142, 86), (154, 152, 150), (134, 68, 42))
BLACK, DARK = (44, 44, 46), (62, 62, 64)

# A sign's plates (corners, radius, turn, color; above a radius of 1.2 it is wide) and strokes (width, color, points).
RED, BLUE, YELLOW, FOREST, SNOW = (208, 38, 38), (36, 88, 176), (244, 196, 44), (38, 116, 74), (242, 242, 238)
EIGHTH = np.pi / 4


def _guide(ground: Color, ink: Color) -> tuple:
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
    _guide(BLUE, SNOW), _guide(FOREST, SNOW), _guide(SNOW, BLACK), _guide(YELLOW, BLACK),
)  # fmt: skip

# name: length, width, height in metres; height of the hood, and the cabin's corners along the length from the tail:
# foot behind, roof behind, roof in front, foot in front, as shares.
CARS = {
    "hatchback": (3.9, 1.80, 1.55, 0.54, (0.02, 0.10, 0.55, 0.74)),
    "saloon": (4.5, 1.85, 1.50, 0.54, (0.13, 0.27, 0.57, 0.73)),
    "estate": (4.5, 1.85, 1.55, 0.54, (0.01, 0.06, 0.58, 0.74)),
    "offroader": (4.4, 1.95, 1.80, 0.56, (0.01, 0.05, 0.60, 0.72)),
    "van": (4.8, 2.00, 2.15, 0.50, (0.00, 0.01, 0.76, 0.93)),
}

# ambient light, sunlight, sky overhead, sky at the horizon, darkness of shadows
WEATHER = {
    "clear": ((0.62, 0.66, 0.74), (0.66, 0.62, 0.54), (86, 144, 214), (196, 218, 234), 0.46),
    "overcast": ((0.86, 0.87, 0.89), (0.16, 0.16, 0.15), (164, 170, 178), (218, 218, 216), 0.22),
    "evening": ((0.62, 0.59, 0.66), (0.74, 0.57, 0.40), (116, 134, 184), (248, 206, 160), 0.40),
}


class Layer:
    """One object while it is painted, on a canvas of SUPERSAMPLE times the image's size.

    rgb: its colours. paint: where they are. extent: what its label covers, which may be more (between spokes).
    tone: factors on the colours. depth: metres from the camera. grain: strength of its texture. together: layers of one
    number are kept or dropped together. plates: polygons of licence plates.
    """

    def __init__(self, label: str, canvas: tuple[int, int], depth: float, grain: float = 0.05, together: int = 0):
        self.label, self.depth, self.grain, self.together = label, depth, grain, together
        self.rgb = np.zeros((*canvas, 3), np.uint8)
        self.paint, self.extent = np.zeros(canvas, np.uint8), np.zeros(canvas, np.uint8)
        self.tone: np.ndarray | None = None
        self.points: list[list[int]] = []
        self.plates: list[list[list[int]]] = []

    def polygon(self, points: np.ndarray, color: Color) -> None:
        fixed = _fixed(points)
        cv2.fillPoly(self.rgb, [fixed], color, cv2.LINE_8, 4)
        cv2.fillPoly(self.paint, [fixed], 1, cv2.LINE_8, 4)

    def cover(self, points: np.ndarray) -> None:
        """The label covers this polygon, whether it is painted or not."""
        cv2.fillPoly(self.extent, [_fixed(points)], 1, cv2.LINE_8, 4)

    def line(self, points: np.ndarray, width: float, color: Color, closed: bool = False) -> None:
        fixed, thickness = _fixed(points), max(1, round(width))
        cv2.polylines(self.rgb, [fixed], closed, color, thickness, cv2.LINE_8, 4)
        cv2.polylines(self.paint, [fixed], closed, 1, thickness, cv2.LINE_8, 4)

    def ellipse(self, center: np.ndarray, radii: Sequence[float], color: Color, arc: Sequence[int] = (0, 360)) -> None:
        fixed, axes = [int(v * 16) - 8 for v in center], [max(8, int(r * 16)) for r in radii]
        cv2.ellipse(self.rgb, fixed, axes, 0, arc[0], arc[1], color, -1, cv2.LINE_8, 4)
        cv2.ellipse(self.paint, fixed, axes, 0, arc[0], arc[1], 1, -1, cv2.LINE_8, 4)

    def warp(self, texture: np.ndarray, corners: np.ndarray) -> None:
        """A rectangular texture onto four points: its top left, top right, bottom right, bottom left."""
        mask = np.zeros_like(self.paint)
        cv2.fillPoly(mask, [_fixed(corners)], 1, cv2.LINE_8, 4)
        x, y, w, h = cv2.boundingRect(mask)
        if w == 0:
            return
        th, tw = texture.shape[:2]
        source = np.array([[0, 0], [tw, 0], [tw, th], [0, th]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, (corners - (x, y)).astype(np.float32))
        warped = cv2.warpPerspective(texture, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(self.rgb[y : y + h, x : x + w], warped, where=mask[y : y + h, x : x + w, None] > 0)
        self.paint |= mask

    def finish(self) -> bool:
        """Fix the polygon of the annotation and cut to the object's box; False where nothing is left to annotate."""
        self.extent |= self.paint
        x, y, w, h = cv2.boundingRect(self.extent)
        x0, y0 = x - x % SUPERSAMPLE, y - y % SUPERSAMPLE
        x1, y1 = -(-(x + w) // SUPERSAMPLE) * SUPERSAMPLE, -(-(y + h) // SUPERSAMPLE) * SUPERSAMPLE
        self.box = np.s_[y0:y1, x0:x1]
        if w == 0:
            return False
        small = (_shrink(self.extent[self.box].astype(np.float32)) >= 0.5).astype(np.uint8)
        contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        contours = [c for c in contours if len(c) >= 3]
        if not contours:
            return False
        largest = max(contours, key=cv2.contourArea)
        self.points = (largest[:, 0] + (x0 // SUPERSAMPLE, y0 // SUPERSAMPLE)).tolist()
        # What lies off the polygon would be painted without a label.
        keep = cv2.dilate(cv2.drawContours(np.zeros_like(small), [largest], -1, 1, -1), np.ones((3, 3), np.uint8))
        keep = cv2.resize(keep, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
        self.rgb, self.paint = self.rgb[self.box].copy(), np.where(keep > 0, self.paint[self.box], np.uint8(0))
        if self.tone is not None:
            self.tone = self.tone[self.box]
        del self.extent
        return True


def _fixed(points: np.ndarray) -> np.ndarray:
    """Canvas coordinates as the fixed point numbers with four fractional bits that OpenCV draws from."""
    return np.rint(np.minimum(np.maximum(points, -6000), 6000) * 16 - 8).astype(np.int32)


def _shrink(canvas: np.ndarray) -> np.ndarray:
    height, width = canvas.shape[:2]
    return cv2.resize(canvas, (width // SUPERSAMPLE, height // SUPERSAMPLE), interpolation=cv2.INTER_AREA)


def _part(quad: np.ndarray, s: tuple[float, float], t: tuple[float, float]) -> np.ndarray:
    """A part of a quadrilateral: between shares s on the way to its last corner and t on the way to its second."""
    corners = np.array([(s[0], t[0]), (s[0], t[1]), (s[1], t[1]), (s[1], t[0])])
    across, along = corners[:, :1], corners[:, 1:]
    return (1 - across) * ((1 - along) * quad[0] + along * quad[1]) + across * ((1 - along) * quad[3] + along * quad[2])


def _dim(color: Color, share: float) -> Color:
    return [min(255.0, share * c) for c in color]


@cache
def _noise(kind: str) -> np.ndarray:
    """float32 [1024, 2048] of deviation 0.5: "clouds" (slow), "leaves" (clumps) or "grain" (fine)."""
    cells, weights = {
        "clouds": ((256, 128, 64, 32, 16), (1.0, 0.6, 0.35, 0.2, 0.12)),
        "leaves": ((24, 12, 6), (0.6, 1.0, 0.7)),
        "grain": ((96, 24, 6, 2), (0.5, 0.5, 0.6, 1.0)),
    }[kind]
    rng = np.random.default_rng(len(cells))
    total = np.zeros((1024, 2048), np.float32)
    for cell, weight in zip(cells, weights, strict=True):
        grid = rng.standard_normal((1024 // cell + 3, 2048 // cell + 3), dtype=np.float32)
        total += weight * cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)[:1024, :2048]
    return total / (2 * total.std())


def _piece(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """A random piece of the noise, mirrored where it is larger than that."""
    noise = _noise(kind)
    y, x = (rng.integers(max(1, whole - part)) for whole, part in zip(noise.shape, (height, width), strict=True))
    piece = noise[y : y + height, x : x + width]
    return np.pad(piece, ((0, height - piece.shape[0]), (0, width - piece.shape[1])), "symmetric")


class Scene:
    """One street, built from the back to the front. Metres: x to the right, y up, z away from the camera."""

    def __init__(self, rng: np.random.Generator, city: City, size: tuple[int, int]):
        self.rng, self.city, self.size = rng, city, size
        self.canvas = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
        unit = self.canvas[0] / 256
        self.focal = unit * rng.uniform(300, 345)
        self.center = self.canvas[1] / 2 + unit * rng.uniform(-45, 45)
        self.horizon = self.canvas[0] * (city.horizon + rng.uniform(-0.03, 0.03))
        self.eye = city.eye + rng.uniform(-0.1, 0.1)
        self.layers: list[Layer] = []
        self.shadows: list[np.ndarray] = []
        self.taken: list[tuple[float, float, float]] = []  # x, z, radius on the ground
        self.pairs = 0
        self._light()
        self._plan()
        self._sky()
        self._backdrop()
        self._ground()
        background = len(self.layers)
        self._houses()
        self._gardens()
        self._vehicles()
        self._furniture()
        self._cyclists()
        self._people()
        self._trees()
        self.layers[background:] = sorted(self.layers[background:], key=lambda layer: -layer.depth)
        self._drop_hidden()

    @property
    def objects(self) -> list[dict]:
        """The annotation's objects, far to near."""
        objects = []
        for layer in self.layers:
            objects.append({"label": layer.label, "polygon": layer.points})
            objects += [{"label": "license plate", "polygon": plate} for plate in layer.plates]
        return objects

    # Geometry and light

    def project(self, points: Points) -> np.ndarray:
        """Metres [N, 3] to canvas coordinates [N, 2]."""
        p = np.asarray(points, float)
        z = np.maximum(p[:, 2:], 1.0)
        return (self.center, self.horizon) + self.focal * (p[:, :2] - (0, self.eye)) * (1, -1) / z

    def scale(self, z: float) -> float:
        """Canvas pixels a metre at depth z."""
        return self.focal / z

    def lit(self, color: Color, normal: Sequence[float] = FRONT) -> Color:
        """The colour of a matt surface in this light."""
        share = max(0.0, sum(n * s for n, s in zip(normal, self.sun_direction, strict=True)))
        return [min(255.0, c * (a + s * share)) for c, a, s in zip(color, self.ambient, self.sun, strict=True)]

    def vary(self, color: Color, amount: float = 10) -> Color:
        change = self.rng.normal(0, amount) + self.rng.normal(0, amount / 3, 3)
        return [float(v) for v in np.clip(np.asarray(color) + change, 8, 248)]

    def pick(self, options: Sequence):
        return options[int(self.rng.integers(len(options)))]

    def layer(self, label: str, depth: float, grain: float = 0.05, together: int = 0) -> Layer:
        return Layer(label, self.canvas, depth, grain, together)

    def add(self, layer: Layer) -> None:
        if layer.finish():
            self.layers.append(layer)

    def pair(self) -> int:
        """A number for layers that are kept or dropped together."""
        self.pairs += 1
        return self.pairs

    def free(self, x: float, z: float, radius: float) -> bool:
        """Take a spot on the ground, unless it is taken."""
        if any((x - a) ** 2 + (z - b) ** 2 < (radius + r) ** 2 for a, b, r in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True

    def at_crossing(self, z: float, margin: float) -> bool:
        return self.crossing is not None and abs(z - self.crossing) < margin

    def shadow(self, points: Points) -> None:
        """These points throw their hull's shadow on the ground."""
        p, (sx, sy, sz) = np.asarray(points, float), self.sun_direction
        ground = np.stack([p[:, 0] - p[:, 1] * sx / sy, 0 * p[:, 1], np.maximum(p[:, 2] - p[:, 1] * sz / sy, 1.5)], -1)
        self.shadows.append(_hull(self.project(ground)))

    def faces(self, layer: Layer, faces: Sequence, inside: Points, color: Color) -> list[np.ndarray | None]:
        """Paint those faces of a convex solid that look at the camera; returns them projected, None for the others."""
        shown: list[np.ndarray | None] = []
        for face in faces:
            p = np.asarray(face, float)
            (a, b, c), (d, e, f) = p[1] - p[0], p[2] - p[0]
            normal = np.array([b * f - c * e, c * d - a * f, a * e - b * d])
            normal *= (1 if normal @ (p[0] - inside) > 0 else -1) / (np.linalg.norm(normal) + 1e-9)
            if normal @ (p.mean(0) - (0, self.eye, 0)) < 0:
                flat = self.project(p)
                layer.polygon(flat, self.lit(color, normal.tolist()))
                shown.append(flat)
            else:
                shown.append(None)
        return shown

    def _light(self) -> None:
        rng = self.rng
        weather = str(rng.choice(list(WEATHER), p=self.city.weather))
        self.ambient, self.sun, top, low, self.shade = WEATHER[weather]
        azimuth = rng.uniform(-np.pi, np.pi)
        height = np.radians({"clear": rng.uniform(35, 60), "overcast": 70, "evening": rng.uniform(22, 32)}[weather])
        flat = np.cos(height)
        self.sun_direction = [float(v) for v in (flat * np.sin(azimuth), np.sin(height), flat * np.cos(azimuth))]
        self.sky_top, self.sky_low = self.vary(top, 9), self.vary(low, 7)
        self.cloudiness = 0.5 if weather == "overcast" else rng.uniform(0.1, 0.9)

    def _plan(self) -> None:
        """Where road, pavements, gardens and houses lie; pairs are left and right."""
        rng = self.rng
        self.half = rng.uniform(4.0, 5.2)  # of the road's width
        self.middle = -rng.uniform(0.8, 2.2)  # of the road: the camera drives on the right
        self.kerbs = (self.middle - self.half, self.middle + self.half)
        verges, walks = (rng.uniform(1.2, 2.0, 2) * (rng.random(2) < 0.35)), rng.uniform(2.4, 3.4, 2)
        self.walks = tuple(zip(verges, verges + walks, strict=True))  # pavements: from here to there, out from the kerb
        self.gardens = tuple(rng.uniform(2.5, 4.5) if rng.random() < 0.65 else 0.0 for _ in range(2))  # widths
        self.crossing = rng.uniform(15, 24) if rng.random() < 0.4 else None  # depth of a side street's middle
        self.end = rng.uniform(60, 90)

    def outward(self, side: int, metres: float) -> float:
        """x of the place this far out from the kerb of side 0 (left) or 1 (right)."""
        return self.kerbs[side] + (metres if side else -metres)

    # Backdrop and ground

    def _sky(self) -> None:
        height, width = self.canvas
        h, w = height // 4, width // 4
        ramp = np.clip(np.arange(h) / (self.horizon / 4), 0, 1)[:, None, None] ** 1.2
        rgb = (1 - ramp) * np.array(self.sky_top) + ramp * np.array(self.sky_low)
        noise = cv2.resize(_piece(self.rng, "clouds", 2 * h, 2 * w), (w, h))
        cover = np.clip(noise * 1.4 + self.cloudiness - 0.6, 0, 1)[..., None] * 0.75
        cloud = 0.5 * np.array(self.sky_low) + 0.5 * np.array((244, 243, 242))
        layer = self.layer("sky", SKY, grain=0.0)
        layer.rgb[:] = cv2.resize((rgb * (1 - cover) + cloud * cover).astype(np.float32), (width, height))
        layer.paint[:] = 1
        self.add(layer)

    def _backdrop(self) -> None:
        """What closes the street: trees or houses."""
        rng, z, x = self.rng, self.end, -70.0
        if rng.random() < 0.5:
            layer, color = self.layer("vegetation", z, grain=0.3), self.pick(self.city.leaves)
            layer.polygon(self.project([(-200, 2, z), (200, 2, z), (200, 0, z), (-200, 0, z)]), self.lit(color))
            for spot in np.arange(-70, 70, 3.5):
                x, r = spot + rng.uniform(-1, 1), rng.uniform(2.0, 5.0)
                tone = self.lit(self.vary(color))
                layer.ellipse(self.project([(x, 2.5, z)])[0], (r * self.scale(z) * 1.3, r * self.scale(z)), tone)
        else:
            layer = self.layer("building", z)
            while x < 70:
                width, floors = rng.uniform(6, 10), int(rng.integers(2, 6))
                corners = [(x, floors * 3, z), (x + width, floors * 3, z), (x + width, 0, z), (x, 0, z)]
                layer.warp(self._facade(width, floors, 8, (0, 0, -1)), self.project(corners))
                x += width
        self.add(layer)

    def _ground(self) -> None:
        rng, (height, width) = self.rng, self.canvas
        top = int(np.ceil(self.horizon)) + 2
        rows, columns = np.arange(top, height, dtype=np.float32), np.arange(width, dtype=np.float32)
        z = (self.focal * self.eye / (rows + 0.5 - self.horizon)).astype(np.float32)[:, None]
        x = (columns + 0.5 - np.float32(self.center)) * z / np.float32(self.focal)
        z = np.broadcast_to(z, x.shape)
        near, dx, dz = np.clip(14 / z, 0, 1), *rng.uniform(30, 38, 2).astype(np.float32)

        def noise(kind: str) -> np.ndarray:
            return cv2.remap(_noise(kind), (x + dx) * 30, (z + dz) * 18, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)

        grain, stains = noise("grain") * near, noise("clouds")
        slab = np.float32(rng.uniform(0.7, 1.2))
        a, b = (x + dx) / slab, (z + dz) / slab
        i, j = np.floor(a).astype(np.int32), np.floor(b).astype(np.int32)
        joint = np.maximum(np.abs(a - i - 0.5), np.abs(b - j - 0.5)) > 0.46 - 0.0012 * z
        slabs = rng.normal(0, 0.05, (64, 64)).astype(np.float32)[i % 64, j % 64] - 0.22 * joint

        def surface(label: str, color: Color, shade: np.ndarray) -> Layer:
            layer = self.layer(label, GROUND)
            layer.rgb[top:] = np.array(self.lit(color, UP), np.uint8)
            layer.tone = np.ones(self.canvas, np.float32)
            layer.tone[top:] += shade
            return layer

        def strip(layer: Layer, x0: float, x1: float, z0: float = 1.2, z1: float = 400.0) -> None:
            corners = self.project([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)])
            cv2.fillPoly(layer.paint, [_fixed(corners)], 1, cv2.LINE_8, 4)

        grass = surface("terrain", self.vary(self.city.grass, 12), 0.30 * grain + 0.14 * stains)
        strip(grass, -400, 400)
        self.add(grass)
        paving, shade = self.vary(self.city.paving, 12), slabs * np.clip(20 / z, 0, 1) + 0.06 * grain + 0.05 * stains
        for side in (0, 1):
            layer = surface("sidewalk", paving, shade)
            inner, outer = self.walks[side]
            strip(layer, self.outward(side, inner), self.outward(side, outer))
            stone, x0, x1 = (
                self.lit(self.vary((184, 182, 178), 8), UP),
                *(self.outward(side, inner + d) for d in (0, 0.22)),
            )
            layer.polygon(self.project([(x0, 0, 1.2), (x1, 0, 1.2), (x1, 0, 200), (x0, 0, 200)]), stone)
            self.add(layer)
        road = surface("road", self.vary(self.city.road, 12), 0.09 * grain + 0.08 * stains)
        strip(road, *self.kerbs)
        if self.crossing:
            strip(road, -400, 400, self.crossing - 3.5, self.crossing + 3.5)
        self._markings(road)
        self.add(road)

    def _markings(self, road: Layer) -> None:
        rng, inside, (left, right) = self.rng, road.paint.copy(), self.kerbs
        white = self.lit(self.vary(self.pick(((226, 226, 222), (226, 226, 222), (230, 200, 96))), 6), UP)

        def stripe(x0: float, x1: float, z0: float, z1: float) -> None:
            road.polygon(self.project([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]), white)

        stop = self.crossing - 7.5 if self.crossing else 200.0
        for z in np.arange(rng.uniform(1.5, 4), 60, 4.5):
            if not self.at_crossing(z + 1, 8):
                stripe(self.middle - 0.08, self.middle + 0.08, z, z + 2.2)
        if rng.random() < 0.5:
            for edge in (left + 0.45, right - 0.55):
                stripe(edge, edge + 0.12, 1.5, stop)
        if self.crossing:
            for z in (self.crossing - 6.8, self.crossing + 4.2):
                for x in np.arange(left + 0.5, right - 0.6, 1.0):
                    stripe(x, x + 0.5, z, z + 2.6)
        if rng.random() < 0.4:  # an arrow in our lane
            x, z = self.middle + self.half / 2, rng.uniform(6, 9)
            stripe(x - 0.09, x + 0.09, z, z + 2.5)
            road.polygon(self.project([(x - 0.4, 0, z + 2.4), (x + 0.4, 0, z + 2.4), (x, 0, z + 4)]), white)
        if rng.random() < 0.5:  # a manhole cover
            x, z, turn = rng.uniform(left + 1, right - 1), rng.uniform(5, 9), np.linspace(0, 2 * np.pi, 20)
            ring = np.stack([x + 0.4 * np.cos(turn), 0 * turn, z + 0.4 * np.sin(turn)], -1)
            road.polygon(self.project(ring), self.lit((84, 80, 78), UP))
        road.paint &= inside

    # Houses and gardens

    def _facade(self, width: float, floors: int, ppm: int, normal: Sequence[float], shop: bool = False) -> np.ndarray:
        """A house front as a texture of ppm pixels a metre, three metres a floor."""
        rng, w, h = self.rng, int(width * ppm), floors * 3 * ppm
        tone = 1 + 0.06 * _piece(rng, "grain", h, w)
        if rng.random() < 0.4 and ppm >= 16:  # bricks
            rows, columns = np.ogrid[0:h, 0:w]
            tone -= 0.12 * ((rows % 6 < 1) | ((columns + 6 * (rows // 6 % 2)) % 12 < 1))
        base = np.array(self.lit(self.vary(self.pick(self.city.facades), 12), normal), np.float32)
        texture = np.clip(tone[..., None] * base, 0, 255).astype(np.uint8)
        trim = self.lit(self.vary(self.pick(TRIMS), 8), normal)
        pane, sky = np.array(self.lit(self.vary((74, 84, 98), 12), normal)), 0.78 * np.array(self.sky_low)

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
                    box(x - 0.3, y - 0.2, x + wide + 0.3, y + 0.25 * high, _dim(trim, 0.6))
        if shop:
            box(0.2, 0.4, width - 0.25, 2.3, trim)
            box(0.4, 0.5, width - 0.45, 2.1, 0.5 * pane + 0.5 * sky)
            for x in np.arange(0.4, width - 0.4, 2.2):
                box(x, 0.5, x + 0.1, 2.1, trim)
            box(0.1, 2.25, width - 0.15, 2.9, self.lit(self.pick(PAINTS), normal))
        if width > 4:
            x = rng.uniform(1, width - 2.4)
            box(x - 0.15, 0, x + 1.25, 2.3, trim)
            box(x, 0, x + 1.1, 2.15, self.lit(self.pick(PAINTS), normal))
        box(0, 0, width, 0.4, _dim(trim, 0.7))
        box(0, floors * 3 - 0.5, width, floors * 3 - 0.35, _dim(trim, 0.55))
        box(0, floors * 3 - 0.35, width, floors * 3, trim)
        return texture

    def _houses(self) -> None:
        rng = self.rng
        for side in (0, 1):
            line, z, before = self.outward(side, self.walks[side][1] + self.gardens[side]), rng.uniform(0.5, 4.0), 0
            while z < self.end:
                length, floors = rng.uniform(6, 12), int(rng.integers(self.city.floors[0], self.city.floors[1] + 1))
                if self.crossing and z < self.crossing + 4.5 < z + length + 9:
                    length = self.crossing - 4.5 - z
                    if length < 3:
                        z, before = self.crossing + 4.5, 0
                        continue
                if rng.random() < 0.16:  # a small park
                    for _ in range(3):
                        x = self.outward(side, self.walks[side][1] + self.gardens[side] + rng.uniform(1, 6))
                        self._tree(x, z + rng.uniform(0, length), bush=0.3)
                    z, before = z + length, 0
                    continue
                if abs(line) * self.focal / (z + length) < 0.75 * self.canvas[1]:
                    self._house(side, line, max(z, 1.3), z + length, floors, end=floors > before)
                before, z = floors, z + length
                if rng.random() < 0.25:
                    z, before = z + rng.uniform(1.5, 4), 0

    def _house(self, side: int, line: float, z0: float, z1: float, floors: int, end: bool) -> None:
        """A house along the street, from z0 to z1; end: the wall that looks at the camera can be seen."""
        rng, out, top = self.rng, 1 if side else -1, floors * 3.0
        back, ridge, rise = line + out * 9.0, line + out * 4.5, rng.uniform(2.0, 4.5) if rng.random() < 0.7 else 0.0
        layer, ppm = self.layer("building", (z0 + z1) / 2 + 6, grain=0.02), 20 if z0 < 30 else 10
        roof = [(line, top, z1), (line, top, z0), (ridge, top + rise, z0), (ridge, top + rise, z1)]
        self.faces(layer, [roof], (ridge, top, z0), self.vary(self.pick(ROOFS), 8))
        if end:
            wall = self._facade(9.0, floors, ppm, (0, 0, -1))
            layer.polygon(
                self.project([(line, top, z0), (ridge, top + rise, z0), (back, top, z0)]), wall[-ppm, 0].tolist()
            )
            layer.warp(wall, self.project([(line, top, z0), (back, top, z0), (back, 0, z0), (line, 0, z0)]))
        front = self._facade(z1 - z0, floors, ppm, (-out, 0, 0), shop=rng.random() < 0.35)
        layer.warp(front, self.project([(line, top, z0), (line, top, z1), (line, 0, z1), (line, 0, z0)]))
        self.add(layer)
        self.shadow([(x, y, z) for x in (line, back) for y in (0, top) for z in (z0, z1)])

    def _gardens(self) -> None:
        """Along the edge of a garden a fence, a hedge or nothing; behind it shrubs and trees."""
        rng = self.rng
        for side, width in enumerate(self.gardens):
            if not width:
                continue
            edge, kind = self.outward(side, self.walks[side][1] + 0.15), rng.choice(["fence", "fence", "hedge", "none"])
            paint, z = self.pick(FENCES), 2.5
            while z < 45:
                length = rng.uniform(6, 9)
                if kind != "none" and not self.at_crossing(z + length / 2, 4 + length / 2):
                    self._fence(edge, z, z + length, paint) if kind == "fence" else self._hedge(edge, z, z + length)
                z += length + 0.8
            for _ in range(rng.integers(4)):
                self._tree(self.outward(side, self.walks[side][1] + 0.55 * width), rng.uniform(6, 25), bush=0.7)

    def _fence(self, x: float, z0: float, z1: float, color: Color) -> None:
        layer, height = self.layer("fence", (z0 + z1) / 2), 1.25
        shade = self.lit(color, (-np.sign(x), 0, 0))
        layer.cover(self.project([(x, 0, z0), (x, height, z0), (x, height, z1), (x, 0, z1)]))
        for y in (0.35, 0.95):
            rail = [(x, y, z0), (x, y + 0.12, z0), (x, y + 0.12, z1), (x, y, z1)]
            layer.polygon(self.project(rail), _dim(shade, 0.85))
        for z in np.arange(z0, z1 - 0.1, 0.28):
            picket = [
                (x, 0, z),
                (x, height - 0.1, z),
                (x, height, z + 0.08),
                (x, height - 0.1, z + 0.16),
                (x, 0, z + 0.16),
            ]
            layer.polygon(self.project(picket), shade)
        self.add(layer)
        self.shadow([(x, y, z) for y in (0, height) for z in (z0, z1)])

    def _hedge(self, x: float, z0: float, z1: float) -> None:
        layer, height, back = self.layer("vegetation", (z0 + z1) / 2, grain=0.3), 1.1, x + np.sign(x) * 0.9
        sides = (
            [(x, 0, z0), (x, height, z0), (x, height, z1), (x, 0, z1)],
            [(x, 0, z0), (x, height, z0), (back, height, z0), (back, 0, z0)],
            [(x, height, z0), (x, height, z1), (back, height, z1), (back, height, z0)],
        )
        self.faces(layer, sides, ((x + back) / 2, 0.5, (z0 + z1) / 2), self.vary(self.pick(self.city.leaves)))
        self.add(layer)
        self.shadow([(x, y, z) for y in (0, height) for z in (z0, z1)])

    def _trees(self) -> None:
        rng = self.rng
        for side in (0, 1):
            if rng.random() < 0.6:
                for z in np.arange(rng.uniform(9, 15), 50, 9):
                    if rng.random() < 0.8:
                        self._tree(self.outward(side, 0.9), z + rng.uniform(-1, 1))

    def _tree(self, x: float, z: float, bush: float = 0.0) -> None:
        """A tree, or by the chance `bush` a shrub."""
        rng, s = self.rng, self.scale(z)
        if z < 4 or self.at_crossing(z, 5) or not self.free(x, z, 0.5):
            return
        layer, foot = self.layer("vegetation", z, grain=0.3), self.project([(x, 0, z)])[0]
        shrub = rng.random() < bush
        r, trunk = (rng.uniform(0.5, 0.9), 0.3) if shrub else (rng.uniform(1.2, 2.0), rng.uniform(2.2, 2.9))
        if not shrub:
            stem = np.array([[-0.19, 0], [0.19, 0], [0.13, trunk + 0.6], [-0.13, trunk + 0.6]])
            layer.polygon(foot + stem * (s, -s), self.lit(self.vary((112, 88, 70))))
        color, heart = self.lit(self.vary(self.pick(self.city.leaves), 12), UP), np.array([0.0, trunk + 0.75 * r])
        for step, tone in enumerate((0.66, 0.84, 1.0)):  # from the dark inside out to the lit tips
            turn, reach = rng.uniform(0, 2 * np.pi, 11), rng.uniform(0.2, 0.78, 11) * r
            spots = heart + np.stack([np.cos(turn), 0.85 * np.sin(turn)], -1) * reach[:, None]
            spots = foot + (spots + step * 0.13 * r * np.array([self.sun_direction[0], 0.8])) * (s, -s)
            for spot, radius in zip(spots, rng.uniform(0.26, 0.46, 11) * r * s * (1 - 0.25 * step), strict=True):
                layer.ellipse(spot, (radius, 0.9 * radius), _dim(color, tone))
        self.add(layer)
        ring = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        self.shadow([(x + r * np.cos(t), heart[1] + r * np.sin(t), z + a) for t in ring for a in (-0.4 * r, 0.4 * r)])
        self.shadow([(x - 0.15, 0, z), (x + 0.15, 0, z), (x, trunk, z)])

    # Vehicles

    def _vehicles(self) -> None:
        rng, lane = self.rng, self.half / 2
        for x, heading, z in ((-lane, np.pi, rng.uniform(9, 16)), (lane, 0.0, rng.uniform(11, 22))):
            while z < 45:
                self._car(self.middle + x + rng.uniform(-0.3, 0.3), z, heading + rng.normal(0, 0.05))
                z += rng.uniform(10, 24)
        if self.crossing and rng.random() < 0.7:
            heading = self.pick((-1, 1))
            self._car(rng.uniform(-8, 8), self.crossing + heading * 1.6, heading * np.pi / 2 + rng.normal(0, 0.1))
        for side, heading in enumerate((np.pi, 0.0)):  # parked
            for z in np.arange(rng.uniform(6.5, 11), 32, 6.3) if rng.random() < 0.45 else ():
                if rng.random() < 0.7 and not self.at_crossing(z, 9):
                    self._car(self.outward(side, -1.05), z, heading + rng.normal(0, 0.03))

    def _car(self, x: float, z: float, heading: float) -> None:
        if not self.free(x, z, 2.0):
            return
        length, width, height, hood, cabin = CARS[self.pick(list(CARS))]
        color, layer = self.vary(self.pick(PAINTS), 12), self.layer("car", z, grain=0.02)
        frame = np.array([[np.sin(heading) * length, 0, np.cos(heading) * length],
                          [np.cos(heading) * width / 2, 0, -np.sin(heading) * width / 2], [0, height, 0]])  # fmt: skip

        def at(a, b, y) -> np.ndarray:
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
            return self.project(at(a + radius / length * np.cos(turn), b, (0.36 + radius * np.sin(turn)) / height))

        for a in (0.19, 0.81):
            for b in (-1, 1):
                layer.polygon(_hull(np.concatenate([wheel(a, 0.98 * b, 0.36), wheel(a, 0.75 * b, 0.36)])), BLACK)
        chassis = [at(a, b, y) for a in (0.1, 0.9) for b in (-0.9, 0.9) for y in (0.08, 0.3)]
        layer.polygon(_hull(self.project(chassis)), _dim(BLACK, 0.8))
        body = ((0, 0, 0.03, cabin[3], 0.97, 1, 1), (0.17, 0.52, 0.6, 0.6, hood, hood - 0.1, 0.17))
        left, right, tail, *_, nose, _ = self.faces(layer, prism(*body, (1,) * 7), at(0.5, 0, 0.4), color)
        top = prism(cabin, (0.6, 1, 1, 0.6), (0.94, 0.76, 0.76, 0.94))
        *sides, back, _, front, _ = self.faces(layer, top, at(0.45, 0, 0.7), color)

        glass = self.lit(self.vary((62, 74, 88), 8))
        for side in sides:
            if side is not None:
                layer.polygon(_part(side, (0.08, 0.5), (0.12, 0.84)), glass)
                layer.polygon(_part(side, (0.55, 0.93), (0.12, 0.84)), glass)
        for window in (back, front):
            if window is not None:
                pane = _part(window, (0.07, 0.93), (0.12, 0.88))
                layer.polygon(pane, glass)
                layer.polygon(pane[[0, 1, 2]], [0.6 * g + 0.4 * s for g, s in zip(glass, self.sky_low, strict=True)])
        for b, side in ((-1, left), (1, right)):
            if side is not None:
                for hub in (0.19, 0.81):
                    for radius, tone in ((0.36, BLACK), (0.22, (172, 172, 174)), (0.07, (94, 94, 96))):
                        layer.polygon(wheel(hub, 0.99 * b, radius), self.lit(tone))
                seam = self.project([at(0.24, b, 0.36), at(0.76, b, 0.36)])
                layer.line(seam, 0.04 * self.scale(z), _dim(self.lit(color), 0.7))
        for end, lamp in ((tail, (212, 48, 42)), (None if nose is None else nose[[1, 0, 3, 2]], (246, 242, 224))):
            if end is not None:
                for s in ((0.04, 0.24), (0.76, 0.96)):
                    layer.polygon(_part(end, s, (0.68, 0.95)), lamp)
                layer.polygon(_part(end, (0, 1), (0.02, 0.24)), self.lit(DARK))
                plate = _part(end, (0.36, 0.64), (0.3, 0.5))
                layer.polygon(plate, self.lit((238, 238, 232)))
                if np.ptp(plate[:, 0]) >= MIN_WIDTH * SUPERSAMPLE:
                    layer.plates.append((plate // SUPERSAMPLE).astype(int).tolist())
        self.add(layer)
        for along, out, y in ((0.49, 1.0, 0.6), (0.3, 0.8, 1.0)):  # body, roof
            self.shadow([at(0.5 + i * along, j * out, k) for i in (-1, 1) for j in (-1, 1) for k in (0.05, y)])

    # Street furniture

    def _furniture(self) -> None:
        rng = self.rng
        for side in (0, 1):
            x = self.outward(side, 0.45)
            for z in np.sort(rng.uniform(6.0, 14, rng.integers(2, 4))):
                if not self.at_crossing(z, 3.8) and self.free(x, z, 0.5):
                    self.pick(
                        (self._lamp, self._sign, self._sign, self._sign, self._signal, self._signal, self._bollard)
                    )(x, z)

    def _post(self, x: float, z: float, height: float, width: float, together: int = 0) -> Layer:
        layer, s, foot = self.layer("pole", z, 0.03, together), self.scale(z), self.project([(x, 0, z)])[0]
        color, width = self.lit(self.vary(self.pick(POSTS), 8)), max(width * s, (MIN_WIDTH + 0.8) * SUPERSAMPLE)
        for x0, x1, y, tone in ((-0.5, 0.5, height, 0.8), (-0.3, 0.25, height, 1), (-0.2, 0, height, 1.18),
                                (-0.8, 0.8, 0.25, 0.75)):  # fmt: skip
            bar = np.array([[x0 * width, 0], [x1 * width, 0], [x1 * width, -y * s], [x0 * width, -y * s]])
            layer.polygon(foot + bar, _dim(color, tone))
        self.shadow([(x - 0.1, 0, z), (x + 0.1, 0, z), (x - 0.1, height, z), (x + 0.1, height, z)])
        return layer

    def _lamp(self, x: float, z: float) -> None:
        height, s = self.rng.uniform(4.2, 5.4), self.scale(z)
        layer, top = self._post(x, z, height, 0.2), self.project([(x, height, z)])[0]
        reach = -np.sign(x) * self.rng.uniform(0.9, 1.5)
        arm = top + s * np.array([[0, 0], [0.5 * reach, -0.35], [reach, -0.35]])
        layer.line(arm, max(0.17 * s, MIN_WIDTH * SUPERSAMPLE), self.lit((116, 118, 120)))
        layer.ellipse(top + s * np.array([reach, -0.28]), (0.42 * s, 0.2 * s), self.lit((74, 76, 78)))
        layer.ellipse(top + s * np.array([reach, -0.2]), (0.3 * s, 0.12 * s), (250, 244, 220))
        self.add(layer)

    def _bollard(self, x: float, z: float) -> None:
        layer, s, top = self._post(x, z, 1.1, 0.24), self.scale(z), self.project([(x, 1.1, z)])[0]
        layer.ellipse(top, (0.16 * s, 0.14 * s), self.lit((150, 150, 150)))
        layer.polygon(
            top + s * np.array([[-0.11, 0.15], [0.11, 0.15], [0.11, 0.3], [-0.11, 0.3]]), self.lit((220, 64, 52))
        )
        self.add(layer)

    def _sign(self, x: float, z: float) -> None:
        rng, s, pair, height = self.rng, self.scale(z), self.pair(), self.rng.uniform(2.5, 3.0)
        self.add(self._post(x, z, height + 0.1, 0.17, pair))
        board = self.layer("traffic sign", z - 0.05, 0.02, pair)
        center, r, face = self.project([(x, height, z)])[0], rng.uniform(0.5, 0.64) * s, (0, 0.5, -0.8)
        plates, strokes = self.pick(SIGNS)
        for corners, radius, turn, color in plates:
            t = turn + np.arange(corners) * 2 * np.pi / corners
            shape = np.stack([np.sin(t), -np.cos(t)], -1) * ((1.45, 0.7) if radius > 1.2 else (1, 1))
            board.polygon(center + radius * r * shape, self.lit(color, face))
        for width, color, points in strokes:
            board.line(center + r * np.array(points), width * r, self.lit(color, face))
        self.add(board)

    def _signal(self, x: float, z: float) -> None:
        s, pair, center = self.scale(z), self.pair(), self.project([(x, 3.1, z)])[0]
        self.add(self._post(x, z, 2.7, 0.2, pair))
        box, shining = self.layer("traffic light", z - 0.05, 0.02, pair), self.rng.integers(3)
        case = np.array([[-0.38, -0.95], [0.38, -0.95], [0.38, 0.95], [-0.38, 0.95]]) * s
        box.polygon(center + case, self.lit((50, 54, 52)))
        for i, color in enumerate(((240, 56, 48), (250, 196, 60), (68, 220, 118))):
            spot = center + s * np.array([0, (i - 1) * 0.58])
            box.ellipse(spot, (0.24 * s, 0.24 * s), color if i == shining else _dim(color, 0.32))
        self.add(box)

    # People

    def _people(self) -> None:
        rng = self.rng
        for _ in range(rng.integers(5, 9)):
            z, side = rng.uniform(6.0, 14.5), int(rng.integers(2))
            x = self.outward(side, rng.uniform(*self.walks[side]))
            if rng.random() < 0.2:
                x = rng.uniform(self.kerbs[0] + 0.5, self.kerbs[1] - 0.5)
            if self.free(x, z, 0.5):
                layer = self.layer("person", z, grain=0.06)
                self._person(layer, x, z)
                self.add(layer)
        if rng.random() < 0.3:
            z, side = rng.uniform(13, 17), int(rng.integers(2))
            x = self.outward(side, float(np.mean(self.walks[side])))
            if self.free(x, z, 1.2):
                layer = self.layer("persongroup", z, grain=0.06)
                for step in (-0.9, -0.3, 0.25, 0.8):
                    self._person(layer, x + step, z)
                self.add(layer)

    def _person(self, layer: Layer, x: float, z: float) -> None:
        rng = self.rng
        tall = rng.uniform(1.6, 1.9) * (0.75 if rng.random() < 0.12 else 1.0)
        s, foot = self.scale(z) * tall / 1.75, self.project([(x, 0, z)])[0]
        top, legs, shoes, bag = (self.lit(self.vary(self.pick(PAINTS), 14)) for _ in range(4))
        skin, hair = self.lit(self.vary(self.pick(SKINS), 6)), self.lit(self.pick(HAIRS))
        step, swing, face = rng.uniform(0.06, 0.26), rng.uniform(-0.05, 0.22), self.pick((-1, 1))
        coat, backpack, shopping = rng.random(3) < (0.3, 0.25, 0.3)

        def p(*points: tuple[float, float]) -> np.ndarray:
            return foot + np.array(points) * (face * s, -s)

        layer.line(p((-0.22, 1.36), (-0.3 - swing / 2, 1.1), (-0.26 - swing, 0.86)), 0.14 * s, _dim(top, 0.78))
        layer.line(p((-0.09, 0.85), (-0.1 - step / 2, 0.48), (-0.1 - step, 0.08)), 0.2 * s, _dim(legs, 0.78))
        layer.line(p((-0.12 - step, 0.05), (0.02 - step, 0.05)), 0.12 * s, shoes)
        layer.line(p((0.09, 0.85), (0.12 + step / 2, 0.48), (0.08 + step, 0.08)), 0.2 * s, legs)
        layer.line(p((0.08 + step, 0.05), (0.2 + step, 0.05)), 0.12 * s, shoes)
        if coat:
            layer.polygon(p((-0.19, 0.95), (0.19, 0.95), (0.27, 0.5), (-0.27, 0.5)), top)
        layer.polygon(p((-0.2, 0.8), (0.2, 0.8), (0.25, 1.36), (0.15, 1.46), (-0.15, 1.46), (-0.25, 1.36)), top)
        layer.polygon(p((-0.2, 0.8), (-0.05, 0.8), (-0.1, 1.44), (-0.15, 1.46), (-0.25, 1.36)), _dim(top, 0.88))
        if backpack:
            layer.line(p((-0.24, 1.0), (-0.24, 1.3)), 0.24 * s, bag)
        layer.line(p((0.22, 1.34), (0.3 + swing / 2, 1.1), (0.28 + swing, 0.86)), 0.14 * s, _dim(top, 0.9))
        hand, head = p((0.28 + swing, 0.82), (0.02, 1.64))
        layer.ellipse(hand, (0.075 * s, 0.075 * s), skin)
        if shopping:
            layer.polygon(hand + s * np.array([[-0.15, 0.02], [0.15, 0.02], [0.17, 0.36], [-0.17, 0.36]]), bag)
        layer.line(p((0, 1.42), (0, 1.52)), 0.13 * s, _dim(skin, 0.78))
        layer.ellipse(head, (0.15 * s, 0.18 * s), skin)
        layer.ellipse(head - (0.03 * face * s, 0.03 * s), (0.16 * s, 0.18 * s), hair, (150, 390 if face > 0 else 330))
        self.shadow([(x - 0.2, 0, z), (x + 0.2, 0, z), (x - 0.22, 1.45, z), (x + 0.22, 1.45, z), (x, 1.75, z)])

    def _cyclists(self) -> None:
        rng = self.rng
        for _ in range(rng.integers(2, 5)):
            x, z = rng.uniform(self.kerbs[0] + 0.8, self.kerbs[1] - 0.4), rng.uniform(6.0, 12.0)
            heading = self.pick((-1, 1)) * np.radians(rng.uniform(35, 125))
            if self.free(x, z, 0.9):
                pair = self.pair()
                bicycle = self.layer("bicycle", z, 0.02, pair)
                self._bicycle(bicycle, x, z, heading)
                self.add(bicycle)
                self._rider(x, z, heading, pair)
        if rng.random() < 0.5:  # parked, alone or in a row
            side, z, heading = int(rng.integers(2)), rng.uniform(6.5, 10), np.radians(rng.uniform(50, 130))
            x, count = self.outward(side, self.walks[side][1] - 0.7), int(self.pick((1, 1, 3)))
            if self.free(x, z, 0.9):
                row = self.layer("bicycle" if count == 1 else "bicyclegroup", z, 0.02)
                for i in reversed(range(count)):
                    self._bicycle(row, x, z + 0.5 * i, heading)
                self.add(row)

    def _bicycle(self, layer: Layer, x: float, z: float, heading: float) -> None:
        s, frame, black = self.scale(z), self.lit(self.vary(self.pick(PAINTS))), self.lit(BLACK)
        p = self._along(x, z, heading)
        turn, r = np.linspace(0, 2 * np.pi, 24, endpoint=False), 0.37
        for hub in (-0.56, 0.56):
            rim = np.stack([hub + r * np.cos(turn), r + r * np.sin(turn)], -1)
            for spoke in range(0, 12, 2):
                layer.line(p(rim[spoke], rim[spoke + 12]), 1, self.lit((156, 156, 156)))
            layer.line(p(*rim), 0.085 * s, black, closed=True)
            layer.cover(p(*rim))
        layer.cover(p((-0.56, 0.37), (-0.2, 0.85), (0.42, 0.85), (0.56, 0.37), (0, 0.2)))
        for tube in (((-0.05, 0.3), (-0.56, 0.37), (-0.18, 0.78)), ((-0.2, 0.85), (-0.05, 0.3), (0.4, 0.78)),
                     ((-0.17, 0.76), (0.4, 0.82)), ((0.36, 1.02), (0.56, 0.37))):  # fmt: skip
            layer.line(p(*tube), 0.085 * s, frame)
        layer.line(p((0.28, 1.06), (0.44, 1.04)), 0.09 * s, black)
        layer.line(p((-0.32, 0.92), (-0.1, 0.92)), 0.11 * s, black)
        ahead = np.array([np.sin(heading), 0, np.cos(heading)])
        self.shadow([(x, y, z) + a * ahead for a in (-0.9, 0.9) for y in (0, 0.7)])

    def _rider(self, x: float, z: float, heading: float, pair: int) -> None:
        rng, s, p = self.rng, self.scale(z), self._along(x, z, heading)
        layer = self.layer("rider", z - 0.1, 0.06, pair)
        top, legs = (self.lit(self.vary(self.pick(PAINTS), 14)) for _ in range(2))
        skin, helmet, black = self.lit(self.pick(SKINS)), self.lit(self.pick(PAINTS)), self.lit(BLACK)
        hip, shoulder, phase = (-0.2, 1.0), (rng.uniform(-0.07, 0.1), 1.5), rng.uniform(0, 2 * np.pi)
        elbow, hand = ((shoulder[0] + 0.42) / 2, 1.2), (0.36, 1.08)
        for half, tone in ((np.pi, 0.72), (0.0, 1.0)):  # the far leg and arm first
            pedal = (-0.02 + 0.17 * np.cos(phase + half), 0.32 + 0.17 * np.sin(phase + half))
            knee = ((hip[0] + pedal[0]) / 2 + 0.22, (hip[1] + pedal[1]) / 2 + 0.12)
            layer.line(p(hip, knee, pedal), 0.19 * s, _dim(legs, tone))
            layer.line(p(pedal, (pedal[0] + 0.14, pedal[1] - 0.02)), 0.12 * s, black)
            if tone == 1.0:
                layer.line(p(hip, shoulder), 0.36 * s, top)
            layer.line(p(shoulder, elbow, hand), 0.14 * s, _dim(top, 0.86 * tone))
            layer.ellipse(p(hand)[0], (0.075 * s, 0.075 * s), skin)
        head = p((shoulder[0] + 0.06, 1.76))[0]
        layer.line(np.stack([p(shoulder)[0], head]), 0.14 * s, skin)
        layer.ellipse(head, (0.15 * s, 0.18 * s), skin)
        layer.ellipse(head - (0, 0.03 * s), (0.18 * s, 0.18 * s), helmet, (180, 360))
        self.add(layer)
        ahead = np.array([np.sin(heading), 0, np.cos(heading)])
        self.shadow([(x, y, z) + a * ahead for a in (-0.3, 0.35) for y in (0.8, 1.8)])

    def _along(self, x: float, z: float, heading: float):
        """A function from points (metres ahead of the middle, metres up) to canvas coordinates."""
        ahead = np.array([np.sin(heading), 0, np.cos(heading)])
        return lambda *points: self.project([(x, y, z) + a * ahead for a, y in points])

    # From layers to a picture

    def _drop_hidden(self) -> None:
        """Leave out those counted objects of which too little can be seen."""
        owner, bad = Image.new("I", self.size[::-1], 0), set()
        for index, layer in enumerate(self.layers):
            ImageDraw.Draw(owner).polygon([tuple(p) for p in layer.points], fill=index + 1)
        seen = np.asarray(owner)
        for index, layer in enumerate(self.layers):
            if layer.label.removesuffix("group") in COUNTED:
                rows, columns = np.nonzero(seen == index + 1)
                area = cv2.contourArea(np.array(layer.points))
                if len(rows) <= MIN_SHARE * area or np.ptp(columns) + 1 < MIN_WIDTH:
                    bad.add(index)
        pairs = {self.layers[i].together for i in bad} - {0}
        self.layers = [a for i, a in enumerate(self.layers) if i not in bad and a.together not in pairs]

    def paint(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3]."""
        rng = self.rng
        canvas, tone, dark = np.zeros((*self.canvas, 3), np.uint8), *np.zeros((2, *self.canvas), np.float32)
        for hull in self.shadows:
            cv2.fillPoly(dark, [_fixed(hull)], self.shade, cv2.LINE_8, 4)
        light = 1 - cv2.GaussianBlur(dark, (0, 0), 2.5 if self.shade > 0.3 else 6)
        haze = np.full_like(canvas, np.array(self.sky_low, np.uint8))
        for layer in self.layers:
            h, w = layer.paint.shape
            rgb: np.ndarray = layer.rgb
            if layer.tone is None:
                shade = 1 + layer.grain * _piece(rng, "leaves" if layer.grain > 0.2 else "grain", h, w)
            else:
                shade = layer.tone * light[layer.box]
            if layer.depth < GROUND:
                shade = shade * np.linspace(1.04, 0.88, h, dtype=np.float32)[:, None]
                fade = float(np.exp(-layer.depth / 180))
                rgb = cv2.addWeighted(layer.rgb, fade, haze[layer.box], 1 - fade, 0)
            cv2.copyTo(rgb, layer.paint, canvas[layer.box])
            cv2.copyTo(shade, layer.paint, tone[layer.box])
        gain = rng.uniform(0.95, 1.12) * (1 + rng.normal(0, 0.012, 3))
        picture = _shrink(canvas) * _shrink(tone)[..., None] * (gain / 255).astype(np.float32)
        picture = 255 * np.clip(picture, 0, 1) ** np.float32(rng.uniform(0.88, 1.08))
        picture = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(1.5, 4))
        return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _hull(points: np.ndarray) -> np.ndarray:
    return cv2.convexHull(points.astype(np.float32))[:, 0]
