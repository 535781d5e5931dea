"""Annotations of a labelling tool to masks: hrseg import beside the time that writing the masks alone takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.benchmark.measure import Case, Options, Row, missing
from hrseg.data.images import read_mask
from hrseg.importing.importer import import_data
from hrseg.importing.records import Options as Words

IMAGES, PER_IMAGE, SIZE = 1000, 100, (1024, 2048)
SHORT = 20  # images, with --short


def cases(options: Options) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        yield masks_of_polygons(Path(folder), SHORT if options.short else IMAGES, PER_IMAGE, SIZE)


def masks_of_polygons(root: Path, images: int, per_image: int, size: tuple[int, int]) -> Case:
    """COCO polygons of 30 corners and 40 to 200 pixels."""
    source, out = root / "source", root / "out"
    _write_coco(source, images, per_image, size)
    words = Words((source,), out, unlabelled="background")

    def ours() -> None:
        shutil.rmtree(out, ignore_errors=True)
        import_data(words, told=lambda text: None)

    ours()
    paths = sorted((out / "masks").iterdir())
    masks = [read_mask(path) for path in paths]

    def write_twice() -> None:
        for time in range(2):
            for path, mask in zip(paths, masks, strict=True):
                Image.fromarray(mask).save(root / f"{time}_{path.name}")

    what = f"{images * per_image:,} polygons in {images:,} images of {size[0]}x{size[1]} to masks"
    against = "Pillow writes the same masks twice"
    reason = missing("faster_coco_eval", "shapely")
    sides = {"hrseg import": reason or ours, "Pillow": write_twice}
    return Case(sides, [Row(what, against, ["hrseg import"], ["Pillow"], 1.0)])


def _write_coco(folder: Path, images: int, per_image: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    blank = np.zeros((*size, 3), np.uint8)
    listed: list[dict] = []
    annotations: list[dict] = []
    for image in range(images):
        name = f"{image:04}.jpg"
        Image.fromarray(blank).save(folder / "images" / name)
        listed.append({"id": image, "file_name": name, "height": size[0], "width": size[1]})
        for _ in range(per_image):
            angles = np.arange(30) / 30 * 2 * np.pi
            radius = rng.uniform(0.02, 0.1) * min(size) * rng.uniform(0.8, 1, 30)
            center = rng.uniform(0.1, 0.9, 2) * size[::-1]
            points = center + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
            flat = points.clip(0, np.array(size[::-1])).round(2).ravel().tolist()
            entry = {"id": len(annotations), "image_id": image, "category_id": int(rng.integers(8)), "iscrowd": 0}
            annotations.append({**entry, "segmentation": [flat]})
    categories = [{"id": i, "name": f"class {i}"} for i in range(8)]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
