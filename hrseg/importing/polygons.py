"""What makes a polygon broken. The door of shapely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hrseg.importing.records import BrokenError, Problem, Size
from hrseg.importing.text_files import missing_extra

MARGIN = 1.0  # pixels that a corner may lie outside the image: tools round


def _library() -> Any:
    try:
        import shapely
    except ImportError:
        raise missing_extra("shapely", "import") from None
    return shapely


def require_sound_rings(rings: Sequence[Sequence[float]], size: Size) -> list[list[float]]:
    """The rings [x, y, x, y, ...]. Raises BrokenError where one crosses itself, leaves the image or is none."""
    shapely = _library()
    if not rings:
        raise BrokenError("it has no polygon.")
    sound = []
    for ring in rings:
        points = require_points(ring, size)
        if len(set(map(tuple, points.tolist()))) < 3:
            raise BrokenError("it has a polygon of fewer than three points.")
        polygon = shapely.Polygon(points)
        if not shapely.is_valid(polygon):
            reason = str(shapely.is_valid_reason(polygon))
            if reason.startswith("Self-intersection"):
                raise BrokenError(f"its outline crosses itself near {reason[len('Self-intersection') :]}.")
        sound.append(points.ravel().tolist())
    return sound


def require_points(flat: Sequence[float], size: Size) -> np.ndarray:
    """The points [n, 2] (x, y) of a list x, y, x, y, ... Raises BrokenError where they are none or lie outside."""
    try:
        numbers = np.asarray(flat, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BrokenError("its points are not numbers.") from None
    if numbers.ndim != 1 or numbers.size % 2 or not np.isfinite(numbers).all():
        raise BrokenError("its points are not pairs of finite numbers.")
    points = numbers.reshape(-1, 2)
    limit = np.array([size[1], size[0]]) + MARGIN
    outside = ((points < -MARGIN) | (points > limit)).any(axis=1)
    if outside.any():
        x, y = points[outside][0]
        raise BrokenError(f"its point ({x:g}, {y:g}) lies outside the image of {size[0]}x{size[1]} (height x width).")
    return points


def geometries_of(wkb: np.ndarray, places: Sequence[str], problems: list[Problem]) -> tuple[np.ndarray, np.ndarray]:
    """Shapely's geometries of their binary form, and which are sound; a problem for each other one."""
    shapely = _library()
    geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    sound = np.zeros(len(geometries), bool)
    for i, geometry in enumerate(geometries):
        if geometry is None or shapely.is_empty(geometry):
            problems.append(Problem(places[i], "it has no geometry."))
        elif geometry.geom_type not in ("Polygon", "MultiPolygon"):
            problems.append(Problem(places[i], f"it is a {geometry.geom_type}, not a polygon."))
        elif not np.isfinite(shapely.get_coordinates(geometry)).all():
            problems.append(Problem(places[i], "its points are not finite numbers."))
        elif not shapely.is_valid(geometry) and "Self-intersection" in str(shapely.is_valid_reason(geometry)):
            reason = str(shapely.is_valid_reason(geometry))
            if reason.startswith("Ring "):
                sound[i] = True
            else:
                problems.append(Problem(places[i], f"its outline crosses itself near {reason[17:]}."))
        else:
            sound[i] = True
    return geometries, sound


def moved(geometries: np.ndarray, move: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The geometries after a function of their coordinates [n, 2]."""
    return _library().transform(geometries, move)


def tree_of(geometries: np.ndarray) -> Any:
    """An index that answers `query(box)` with the places of the geometries that may touch it."""
    return _library().STRtree(geometries)


def box(left: float, bottom: float, right: float, top: float) -> Any:
    return _library().box(left, bottom, right, top)
