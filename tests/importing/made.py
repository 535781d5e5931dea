"""What the tests of imports share: small images, and the result of an import as arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from hrseg.commands.importing import main
from hrseg.data.images import read_mask

HEIGHT, WIDTH = 60, 80
SIZE = HEIGHT, WIDTH


def image(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.name)).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def text(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def ring(rng: np.random.Generator, corners: int = 9) -> list[float]:
    """A polygon that does not cross itself: points around a centre, in the order of their angles; some lie at .1."""
    angles = np.sort(rng.choice(36, corners, replace=False)) * np.pi / 18
    radius = rng.uniform(4, 22, corners)
    center = rng.uniform([24, 24], [WIDTH - 24, HEIGHT - 24])
    points = center + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points.round(1).ravel().tolist()


def imported(source, out: Path, *words: str) -> Path:
    """The folder of a new data set."""
    sources = source if isinstance(source, list) else [source]
    assert main([*map(str, sources), "--out", str(out), *words]) == 0
    return out


def mask_of(out: Path, name: str) -> np.ndarray:
    return read_mask(out / "masks" / f"{name}.png")


def objects_of(out: Path, name: str) -> np.ndarray:
    return read_mask(out / "instances" / f"{name}.png")


def classes_of(out: Path) -> dict[str, int]:
    return {entry["name"]: entry["id"] for entry in yaml.safe_load((out / "classes.yaml").read_text())["classes"]}


def told(out: Path) -> dict:
    return json.loads((out / "import.json").read_text())
