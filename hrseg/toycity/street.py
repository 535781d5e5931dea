"""A street before anything is drawn: its camera, its light, its plan, and what helps to draw on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from hrseg.toycity.cities import WEATHER, City, Color
from hrseg.toycity.layers import SUPERSAMPLE, Layer, hull

T = TypeVar("T")
Points = Sequence | np.ndarray  # a row each
FRONT, UP = (0.0, 0.4, -0.8), (0.0, 1.0, 0.0)  # normals: of what stands and looks at the camera, of what lies

PAINTS: tuple[Color, ...] = (
    (192, 44, 42), (38, 78, 150), (230, 230, 226), (50, 52, 56), (144, 146, 150), (110, 110, 112), (200, 196, 188),
    (62, 120, 80), (222, 176, 52), (116, 54, 50), (92, 158, 186), (212, 114, 52), (176, 156, 124), (128, 138, 86),
    (174, 136, 158), (74, 80, 106),
)  # fmt: skip
SKINS: tuple[Color, ...] = ((240, 198, 168), (210, 160, 124), (154, 108, 78), (102, 70, 50))
BLACK, DARK = (44, 44, 46), (62, 62, 64)


class Street:
    """One street. Metres: x to the right, y up, z away from the camera. Pairs are left and right."""

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
        self._set_light()
        self._set_plan()

    def project(self, points: Points) -> np.ndarray:
        """Metres [N, 3] to canvas coordinates [N, 2]."""
        p = np.asarray(points, float)
        z = np.maximum(p[:, 2:], 1.0)
        return (self.center, self.horizon) + self.focal * (p[:, :2] - (0, self.eye)) * (1, -1) / z

    def scale(self, z: float) -> float:
        """Canvas pixels per metre at depth z."""
        return self.focal / z

    def lit(self, color: Color, normal: Sequence[float] = FRONT) -> Color:
        """The colour of a matt surface in this street's light."""
        share = max(0.0, sum(n * s for n, s in zip(normal, self.sun_direction, strict=True)))
        return [min(255.0, c * (a + s * share)) for c, a, s in zip(color, self.ambient, self.sun, strict=True)]

    def vary(self, color: Color, amount: float = 10) -> Color:
        change = self.rng.normal(0, amount) + self.rng.normal(0, amount / 3, 3)
        return [float(v) for v in np.clip(np.asarray(color) + change, 8, 248)]

    def pick(self, options: Sequence[T]) -> T:
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
        self.shadows.append(hull(self.project(ground)))

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

    def _set_light(self) -> None:
        rng = self.rng
        weather = str(rng.choice(list(WEATHER), p=self.city.weather))
        self.ambient, self.sun, top, low, self.shade = WEATHER[weather]
        azimuth = rng.uniform(-np.pi, np.pi)
        height = np.radians({"clear": rng.uniform(35, 60), "overcast": 70, "evening": rng.uniform(22, 32)}[weather])
        flat = np.cos(height)
        self.sun_direction = [float(v) for v in (flat * np.sin(azimuth), np.sin(height), flat * np.cos(azimuth))]
        self.sky_top, self.sky_low = self.vary(top, 9), self.vary(low, 7)
        self.cloudiness = 0.5 if weather == "overcast" else rng.uniform(0.1, 0.9)

    def _set_plan(self) -> None:
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
