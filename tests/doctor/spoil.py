"""Errors put into the training masks of a city with a fixed seed, to measure what finds them again.

python -m tests.doctor.spoil --root data/toycity --out data/spoilt --seed 0
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from hrseg.data.cityscapes import Cityscapes

THINGS = (5, 6, 7, 11, 12, 13, 14, 15, 16, 17, 18)  # pole, light, sign, persons and vehicles
IGNORED = 255
Others = Sequence[np.ndarray]


def components(target: np.ndarray, classes: Sequence[int], least: int) -> list[tuple[int, np.ndarray]]:
    """The connected areas of some classes with at least so many pixels: class and bool [H, W]."""
    found = []
    for c in classes:
        count, parts, stats, _ = cv2.connectedComponentsWithStats((target == c).astype(np.uint8))
        found += [(c, parts == n) for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= least]
    return found


def surrounding(target: np.ndarray, area: np.ndarray) -> int | None:
    """The most frequent class around an area."""
    ring = (cv2.dilate(area.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~area & (target != IGNORED)
    return int(np.bincount(target[ring]).argmax()) if ring.any() else None


def least_area(target: np.ndarray) -> int:
    return max(40, target.size // 600)


def wrong_class(target: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray | None:
    """One connected area gets another class that the image has."""
    parts = [p for p in components(target, range(19), least_area(target)) if p[1].mean() < 0.3]
    if not parts:
        return None
    c, area = parts[rng.integers(len(parts))]
    present = [int(v) for v in np.unique(target) if v not in (c, IGNORED)]
    return np.where(area, np.uint8(rng.choice(present)), target)


def missing_object(target: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray | None:
    """One object becomes what surrounds it."""
    parts = components(target, THINGS, least_area(target))
    if not parts:
        return None
    c, area = parts[rng.integers(len(parts))]
    around = surrounding(target, area)
    return None if around is None or around == c else np.where(area, np.uint8(around), target)


def object_that_is_none(target: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray | None:
    """The shape of an object of another image, somewhere else."""
    parts = components(others[rng.integers(len(others))], THINGS, least_area(target))
    if not parts:
        return None
    c, area = parts[rng.integers(len(parts))]
    moved = np.roll(area, rng.integers(area.shape[1]), axis=1)
    return np.where(moved, np.uint8(c), target)


def border_off(target: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray | None:
    """One class grows over its neighbours by a few pixels."""
    classes = [int(c) for c in np.unique(target) if c != IGNORED and 0.02 < (target == c).mean() < 0.5]
    if not classes:
        return None
    c, side = rng.choice(classes), 2 * int(rng.integers(3, 6)) + 1
    grown = cv2.dilate((target == c).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return np.where(grown > 0, np.uint8(c), target)


def other_image(target: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray | None:
    return others[rng.integers(len(others))]


def shifted(target: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray | None:
    """The whole mask moved by 8 to 16 pixels, its edge repeated."""
    angle, way = rng.uniform(0, 2 * np.pi), rng.uniform(8, 16)
    by = np.float32([[1, 0, round(way * np.cos(angle))], [0, 1, round(way * np.sin(angle))]])
    return cv2.warpAffine(target, by, target.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def class_swapped(target: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray | None:
    """All pixels of one class get another one."""
    classes = [int(c) for c in np.unique(target) if c != IGNORED and 0.02 < (target == c).mean() < 0.5]
    if not classes:
        return None
    c = rng.choice(classes)
    return np.where(target == c, np.uint8(rng.choice([v for v in range(19) if v != c])), target)


KINDS: dict[str, Callable[[np.ndarray, Others, np.random.Generator], np.ndarray | None]] = {
    "wrong class": wrong_class,
    "missing object": missing_object,
    "object that is none": object_that_is_none,
    "border": border_off,
    "mask of another image": other_image,
    "mask shifted": shifted,
    "class swapped": class_swapped,
}


def spoil(targets: Sequence[np.ndarray], share: float, seed: int) -> dict[int, tuple[str, np.ndarray]]:
    """Kind and spoilt target of so many of the targets, the kinds in turn; the same for the same seed."""
    rng = np.random.default_rng(seed)
    order, done = rng.permutation(len(targets)).tolist(), {}
    kinds = list(KINDS)
    for n in range(round(share * len(targets))):
        kind = kinds[n % len(kinds)]
        for i in [i for i in order if i not in done]:
            others = [targets[j] for j in rng.choice(len(targets), 8) if j != i]
            new = KINDS[kind](targets[i], others, rng)
            if new is not None and (new != targets[i]).sum() >= least_area(targets[i]):
                done[i] = (kind, new)
                break
    return done


def write_spoilt(root: Path, out: Path, *, share: float = 0.08, seed: int = 0) -> dict[str, str]:
    """A copy of a city whose training masks have errors; spoilt.json and the true masks tell which. Returns kinds."""
    shutil.copytree(root, out)
    data = Cityscapes(out, "train")
    targets = [data.read_target(i) for i in range(len(data))]
    kinds = {}
    for i, (kind, new) in spoilt_items(targets, share, seed):
        path = data.targets[i]
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        changed = new != targets[i]
        raw[changed] = data.label_ids[new[changed]]
        cv2.imwrite(str(path), raw)
        kinds[data.names[i]] = kind
    (out / "toycity.json").unlink(missing_ok=True)
    (out / "spoilt.json").write_text(json.dumps({"seed": seed, "share": share, "of": str(root), "kinds": kinds}))
    return kinds


def spoilt_items(targets: Sequence[np.ndarray], share: float, seed: int) -> list[tuple[int, tuple[str, np.ndarray]]]:
    return sorted(spoil(targets, share, seed).items())


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--root", type=Path, required=True)
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--share", type=float, default=0.08)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    print(write_spoilt(given.root, given.out, share=given.share, seed=given.seed))
