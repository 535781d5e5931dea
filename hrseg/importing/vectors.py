"""Polygons of GeoPackage, GeoJSON and shapefile with their classes. The door of pyogrio."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hrseg.errors import DataError, first_line
from hrseg.importing.polygons import geometries_of
from hrseg.importing.records import Problem
from hrseg.importing.text_files import missing_extra, read_json

ENDINGS = (".gpkg", ".geojson", ".shp")
STARTS = {".gpkg": b"SQLite format 3\0", ".shp": b"\x00\x00\x27\x0a"}


class Features(NamedTuple):
    """Polygons in the order of the file. crs: as text; None where the file has none."""

    geometries: np.ndarray  # of shapely's
    classes: list[str]
    ids: list[str]
    crs: str | None


def read_features(path: Path, field: str | None, problems: list[Problem]) -> Features:
    """The features of a file whose geometry and class can be used; a problem for each other one."""
    try:
        import pyogrio
    except ImportError:
        raise missing_extra("pyogrio", "geo") from None
    _require_kind(path)
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        fields = {layer: [str(f) for f in pyogrio.read_info(path, layer=layer)["fields"]] for layer in layers}
        layer = _layer(path, fields, field)
        columns = [field] if field else []
        meta, fids, wkb, data = pyogrio.raw.read(path, layer=layer, columns=columns, return_fids=True)
    except DataError:
        raise
    except Exception as error:  # GDAL fails in many ways, always because of the file
        raise DataError(path, f"cannot be read: {first_line(error)}.") from None
    names = [_name(value) for value in data[0]] if field else [layer] * len(fids)
    geometries, sound = geometries_of(wkb, [f"{path}, feature {fid}" for fid in fids], problems)
    for i in np.flatnonzero(sound):
        if not names[i]:
            problems.append(Problem(f"{path}, feature {fids[i]}", f"its field {field} is empty."))
            sound[i] = False
    kept = np.flatnonzero(sound)
    return Features(geometries[kept], [names[i] for i in kept], [str(fids[i]) for i in kept], meta.get("crs"))


def _require_kind(path: Path) -> None:
    """The content is what the ending says: GDAL would go by the content, and some formats name other files."""
    if path.suffix.lower() in STARTS:
        try:
            with path.open("rb") as file:
                start = file.read(16)
        except OSError as error:
            raise DataError(path, f"cannot be read: {error.strerror}.") from None
        if not start.startswith(STARTS[path.suffix.lower()]):
            raise DataError(path, f"is not what its ending {path.suffix} says.")
        return
    plain = read_json(path)
    if not isinstance(plain, dict) or plain.get("type") not in ("FeatureCollection", "Feature"):
        raise DataError(path, "is not GeoJSON with features.")


def _layer(path: Path, fields: dict[str, list[str]], field: str | None) -> str:
    """The layer that has the field; without a field the only one, if it has no fields."""
    if not fields:
        raise DataError(path, "has no layer with features.")
    if field is None:
        if len(fields) == 1 and not any(fields.values()):
            return next(iter(fields))
        known = sorted({name for names in fields.values() for name in names})
        what = f"has features with the fields {', '.join(known) or '(none)'}."
        raise DataError(path, what, "Which one is the class? --class-field says it.")
    having = [layer for layer, names in fields.items() if field in names]
    if len(having) != 1:
        known = sorted({name for names in fields.values() for name in names})
        what = f"has {len(having)} layers with a field '{field}'. Layers: {', '.join(fields)}."
        raise DataError(path, what, f"Fields: {', '.join(known)}.")
    return having[0]


def _name(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip()
