"""One object of a scene while it is painted, and the geometry of painting."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hrseg.toycity.cities import Color

SUPERSAMPLE = 2  # colours are painted at this many times the size, labels at the size itself
MIN_WIDTH = 6  # pixels of a counted object that can be seen


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
        fixed = fixed_point(points)
        cv2.fillPoly(self.rgb, [fixed], color, cv2.LINE_8, 4)
        cv2.fillPoly(self.paint, [fixed], 1, cv2.LINE_8, 4)

    def cover(self, points: np.ndarray) -> None:
        """The label covers this polygon, whether it is painted or not."""
        cv2.fillPoly(self.extent, [fixed_point(points)], 1, cv2.LINE_8, 4)

    def line(self, points: np.ndarray, width: float, color: Color, closed: bool = False) -> None:
        fixed, thickness = fixed_point(points), max(1, round(width))
        cv2.polylines(self.rgb, [fixed], closed, color, thickness, cv2.LINE_8, 4)
        cv2.polylines(self.paint, [fixed], closed, 1, thickness, cv2.LINE_8, 4)

    def ellipse(self, center: np.ndarray, radii: Sequence[float], color: Color, arc: Sequence[int] = (0, 360)) -> None:
        fixed, axes = [int(v * 16) - 8 for v in center], [max(8, int(r * 16)) for r in radii]
        cv2.ellipse(self.rgb, fixed, axes, 0, arc[0], arc[1], color, -1, cv2.LINE_8, 4)
        cv2.ellipse(self.paint, fixed, axes, 0, arc[0], arc[1], 1, -1, cv2.LINE_8, 4)

    def warp(self, texture: np.ndarray, corners: np.ndarray) -> None:
        """A rectangular texture onto four points: its top left, top right, bottom right, bottom left."""
        mask = np.zeros_like(self.paint)
        cv2.fillPoly(mask, [fixed_point(corners)], 1, cv2.LINE_8, 4)
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
        small = (shrink(self.extent[self.box].astype(np.float32)) >= 0.5).astype(np.uint8)
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


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Canvas coordinates as the fixed point numbers with four fractional bits that OpenCV draws from."""
    return np.rint(np.minimum(np.maximum(points, -6000), 6000) * 16 - 8).astype(np.int32)


def shrink(canvas: np.ndarray) -> np.ndarray:
    height, width = canvas.shape[:2]
    return cv2.resize(canvas, (width // SUPERSAMPLE, height // SUPERSAMPLE), interpolation=cv2.INTER_AREA)


def quad_part(quad: np.ndarray, s: tuple[float, float], t: tuple[float, float]) -> np.ndarray:
    """A part of a quadrilateral: between shares s on the way to its last corner and t on the way to its second."""
    corners = np.array([(s[0], t[0]), (s[0], t[1]), (s[1], t[1]), (s[1], t[0])])
    across, along = corners[:, :1], corners[:, 1:]
    return (1 - across) * ((1 - along) * quad[0] + along * quad[1]) + across * ((1 - along) * quad[3] + along * quad[2])


def dimmed(color: Color, share: float) -> Color:
    return [min(255.0, share * c) for c in color]


def hull(points: np.ndarray) -> np.ndarray:
    return cv2.convexHull(points.astype(np.float32))[:, 0]
