"""Toy city: synthetic street scenes in the layout of Cityscapes, for demonstrations and tests.

python -m hrseg.toycity.generate --out data/toycity
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from hrseg.data.cityscapes_labels import BY_NAME, EVALUATED, LABELS, id_to_train_id
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.toycity.scene import CITIES, Scene

FORMAT = 1  # raised when the same parameters give other pictures
MARKER = "toycity.json"  # written last: what the folder holds


def draw_scene(seed: int, split: str, index: int, size: tuple[int, int] = (256, 512)) -> tuple[np.ndarray, dict]:
    """The picture, uint8 [H, W, 3], and the annotation of one scene: a function of these arguments alone."""
    cities = CITIES[split]
    scene = Scene(np.random.default_rng([seed, list(CITIES).index(split), index]), cities[index % len(cities)], size)
    return scene.paint(), {"imgHeight": size[0], "imgWidth": size[1], "objects": scene.objects}


def draw_ids(objects: Sequence[dict], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The label ids, uint8 [H, W], and instance ids, uint16 [H, W], of an annotation's objects in their order.

    An instance is id * 1000 + its number within the image; groups and classes without instances keep the plain id.
    Source: json2labelImg.py and json2instanceImg.py of cityscapesScripts, whose images these equal.
    """
    ids, instances = Image.new("L", size[::-1], 0), Image.new("I", size[::-1], 0)
    count: dict[str, int] = {}
    for item in objects:
        group = item["label"] not in BY_NAME
        label = BY_NAME[item["label"].removesuffix("group") if group else item["label"]]
        if label.id < 0:
            continue
        value = label.id
        if label.has_instances and not group:
            value = label.id * 1000 + count.get(label.name, 0)
            count[label.name] = count.get(label.name, 0) + 1
        polygon = [tuple(p) for p in item["polygon"]]
        ImageDraw.Draw(ids).polygon(polygon, fill=label.id)
        ImageDraw.Draw(instances).polygon(polygon, fill=value)
    return np.asarray(ids), np.asarray(instances).astype(np.uint16)


def write(
    root: str | Path,
    *,
    train: int = 300,
    val: int = 60,
    seed: int = 0,
    size: tuple[int, int] = (256, 512),
    workers: int | None = None,
    progress: bool = False,
) -> bool:
    """Write a toy city as the folder `root`, whole or not at all; False where the same one is there already.

    train, val: numbers of images. size: (height, width) in pixels. workers: processes, by default one a core. An older
    toy city is replaced. Raises ConfigError for parameters out of range, DataError where `root` holds anything else.
    """
    root = Path(root)
    parameters = {"format": FORMAT, "train": train, "val": val, "seed": seed, "size": list(size)}
    many, side = 1_000_000, (128, 1024)
    for name, value, low, high in (
        ("train", train, 1, many),
        ("val", val, 1, many),
        ("seed", seed, 0, 2**63),
        ("height", size[0], *side),
        ("width", size[1], *side),
        ("workers", workers or 1, 1, 1024),
    ):
        if not low <= value <= high:
            raise ConfigError(f"toy city, {name}", f"must be from {low} to {high}, not {value}.")
    if _found(root) == parameters:
        return False

    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        jobs = [("train", i) for i in range(train)] + [("val", i) for i in range(val)]
        work = partial(_write_scene, root=unfinished, seed=seed, size=size)
        bar = partial(tqdm, total=len(jobs), desc="toy city", unit="image", disable=not progress)
        if workers == 1:
            for _ in bar(map(work, jobs)):
                pass
        else:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            with ProcessPoolExecutor(workers or cores, initializer=_one_thread) as pool:
                for _ in bar(pool.map(work, jobs, chunksize=4)):
                    pass
        (unfinished / MARKER).write_text(json.dumps(parameters), encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp lets nobody else read
        if root.exists():
            shutil.rmtree(root)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def _found(root: Path) -> dict | None:
    """The parameters of the toy city that is there, None where there is none."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    marker = root / MARKER
    if not marker.is_file() or {p.name for p in root.iterdir()} - {MARKER, "leftImg8bit", "gtFine"}:
        raise DataError(root, "holds something else than a toy city.", "Choose another folder, or clear it.")
    return json.loads(marker.read_text(encoding="utf-8"))


def _one_thread() -> None:
    cv2.setNumThreads(0)  # 1 would take down a thread pool that did not survive the fork, and wait for it forever


def _write_scene(job: tuple[str, int], *, root: Path, seed: int, size: tuple[int, int]) -> None:
    split, index = job
    cities = CITIES[split]
    city = cities[index % len(cities)].name
    stem = f"{city}_{index // len(cities):06d}_000019"
    picture, annotation = draw_scene(seed, split, index, size)
    ids, instances = draw_ids(annotation["objects"], size)
    colors = np.zeros((256, 3), np.uint8)
    for label in LABELS:
        if label.id >= 0:
            colors[label.id] = label.color
    for kind, ending, content in (
        ("leftImg8bit", "leftImg8bit.png", _png(picture[..., ::-1])),
        ("gtFine", "gtFine_labelIds.png", _png(ids)),
        ("gtFine", "gtFine_instanceIds.png", _png(instances)),
        ("gtFine", "gtFine_color.png", _png(colors[ids][..., ::-1])),
        ("gtFine", "gtFine_polygons.json", json.dumps(annotation).encode()),
    ):
        folder = root / kind / split / city
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}_{ending}").write_bytes(content)


def _png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def color_baseline(root: str | Path) -> float:
    """Validation mIoU, over the classes present, of the best classifier that sees nothing but a pixel's own colour.

    It looks the class up in a histogram of the training colours, 16 steps a channel; how much the classes' frequencies
    weigh is chosen on the validation images themselves, in its favour.
    """
    train, val = (_color_counts(Path(root), split) for split in ("train", "val"))
    prior = train.sum(0) + 1e-9
    scores = []
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
        guess = (train / prior ** (1 - weight)).argmax(1)
        hits = np.bincount(guess, val[np.arange(len(val)), guess], minlength=val.shape[1])
        union = np.bincount(guess, val.sum(1), minlength=val.shape[1]) + val.sum(0) - hits
        scores.append(float((hits / np.maximum(union, 1))[val.sum(0) > 0].mean()))
    return max(scores)


def _color_counts(root: Path, split: str) -> np.ndarray:
    """Pixels of each colour and class, float [4096, 19]."""
    table, classes = id_to_train_id(), len(EVALUATED)
    counts = np.zeros(16**3 * classes)
    for path in sorted((root / "gtFine" / split).glob("*/*_labelIds.png")):
        target = table[np.asarray(Image.open(path))].astype(np.int64)
        name = path.name.replace("gtFine_labelIds", "leftImg8bit")
        image = np.asarray(Image.open(root / "leftImg8bit" / split / path.parent.name / name)).astype(np.int64) // 16
        color, known = (image[..., 0] * 16 + image[..., 1]) * 16 + image[..., 2], target < classes
        counts += np.bincount(color[known] * classes + target[known], minlength=len(counts))
    return counts.reshape(-1, classes)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a toy city from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hrseg.toycity.generate",
        description="Write synthetic street scenes in the layout of Cityscapes.",
        epilog="For example: python -m hrseg.toycity.generate --out data/toycity --train 300 --val 60",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--train", type=int, default=300, metavar="N", help="training images (default: 300)")
    parser.add_argument("--val", type=int, default=60, metavar="N", help="validation images (default: 60)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other seeds give other streets (default: 0)")
    parser.add_argument("--size", type=_size, default=(256, 512), metavar="HxW", help="pixels (default: 256x512)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    args = parser.parse_args(argv)
    try:
        written = write(args.out, train=args.train, val=args.val, seed=args.seed, size=args.size,
                        workers=args.workers, progress=True)  # fmt: skip
    except HrsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = f"{args.train} training and {args.val} validation images"
    print(f"toy city: {counts} {'written to' if written else 'already there:'} {args.out}")
    return 0


def _size(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


if __name__ == "__main__":
    raise SystemExit(main())
