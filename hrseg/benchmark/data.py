"""A training sample from a PNG of 2048x1024: with hrseg, from hrseg's caches, and with plain albumentations."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from hrseg.benchmark import scenes
from hrseg.benchmark.measure import Case, Options, Row, missing
from hrseg.data import cache
from hrseg.data.cityscapes import Cityscapes
from hrseg.data.cityscapes_labels import id_to_train_id
from hrseg.data.loader import TrainSet
from hrseg.data.resize import resize
from hrseg.data.transforms import A, Augmentation, train_transform
from hrseg.task import Sample

SCENES = 3
SCALES = (0.6875, 1.0625, 1.4375, 1.8125)  # the middle of each quarter of 0.5 to 2
AUGMENT = Augmentation(scale=(0.5, 2.0), crop=(512, 1024), flip=0.5)
WINDOW_ALONE = Augmentation(scale=(0.5, 2.0), crop=(512, 1024), flip=0)


def cases(options: Options) -> Iterator[Case]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # as in a loader's worker, for both sides
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scenes.write(root, SCENES)
        yield samples(root)
    cv2.setNumThreads(threads)


def samples(root: Path) -> Case:
    """Every image at every scale: the cost of a sample depends on its scale, so each call does the same full set."""
    plain = Cityscapes(root, "val")
    reason = missing("imagecodecs")
    strips: Any = reason or cache.cached_dataset(plain, "strips", root / "cache", root, progress=False)
    raw = cache.cached_dataset(plain, "raw", root / "cache", root, progress=False)

    configs = [replace(AUGMENT, scale=(scale, scale)) for scale in SCALES]
    transforms = [train_transform(config, plain.space) for config in configs]

    def side(dataset: Any) -> Callable[[], None] | str:
        if isinstance(dataset, str):
            return dataset
        readers = [TrainSet(dataset, transform) for transform in transforms]

        def read() -> None:
            for epoch, reader in enumerate(readers):
                for index in range(SCENES):
                    reader[epoch, index]

        return read

    def equal() -> str:
        return _same_as_resized(plain, [d for d in (plain, strips, raw) if not isinstance(d, str)])

    def in_memory(seconds: float) -> str:
        samples = [plain[index] for index in range(SCENES)]
        start = time.perf_counter()
        for (epoch, transform), index in itertools.product(enumerate(transforms), range(SCENES)):
            transform(samples[index], np.random.default_rng([epoch, index]))
        share = (time.perf_counter() - start) / seconds
        return f"scaling, cropping and flipping images that are in memory takes {share:.0%} of that time"

    sides = {
        "hrseg": side(plain), "hrseg, strips": side(strips), "hrseg, raw": side(raw),
        "cv2": textbook(plain, cv2_pair), "PIL": textbook(plain, pillow_pair),
    }  # fmt: skip
    images = sum(path.stat().st_size for path in (root / "leftImg8bit").rglob("*.png"))
    size = sum(path.stat().st_size for path in (root / "cache").rglob("*.strips")) / images
    what, against = f"{len(SCALES) * SCENES} training samples 2048x1024 to 512x1024,", "albumentations, cv2"
    rows = [
        Row(f"{what} PNG", against, ["hrseg"], ["cv2"], 0.62, equal=equal, why=_reading(plain)),
        Row(f"{what} PNG", "albumentations, PIL", ["hrseg"], ["PIL"], 0.62, why=_reading(plain)),
        Row(
            f"{what} strips, {size:.2f} x the PNGs",
            against,
            ["hrseg, strips"],
            ["cv2"],
            0.14,
            equal=equal,
            why=in_memory,
        ),
        Row(f"{what} raw", against, ["hrseg, raw"], ["cv2"], 0.065, aim=0.03, equal=equal, why=in_memory),
    ]
    return Case(sides, rows)


def _reading(dataset: Any) -> Callable[[float], str]:
    """Says which share of the time goes to reading whole images, of which a crop needs only a part."""

    def why(seconds: float) -> str:
        start = time.perf_counter()
        for index in range(SCENES):
            dataset[index]
        return f"reading whole images takes {(time.perf_counter() - start) / seconds:.0%} of that time"

    return why


def _keys() -> Iterator[tuple[int, int]]:
    return itertools.cycle([(epoch, index) for epoch in range(16) for index in range(SCENES)])


def _same_as_resized(plain: Cityscapes, datasets: list[Any]) -> str:
    """Compare crops with crops of the resized whole: targets equal, images within a grey level; caches bit for bit."""
    transform = train_transform(WINDOW_ALONE, plain.space)
    for key in [next(keys) for keys in [_keys()] for _ in range(2 * SCENES)]:
        image, target, _ = plain[key[1]]
        assert target is not None
        rng = np.random.default_rng(key)
        found = [transform(each.open_sample(key[1]), np.random.default_rng(key))
                 for each in datasets]  # fmt: skip
        assert all(_equal(one, found[0]) for one in found), "caches"
        rng.integers(2**63)
        size = transform.window.random_size(image.shape[:2], rng)
        height, width = (min(pair) for pair in zip((512, 1024), size, strict=True))
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        window = slice(top, top + height), slice(left, left + width)
        labels = found[0].target
        assert labels is not None
        assert np.array_equal(resize(target, size, cv2.INTER_NEAREST_EXACT)[window], labels[:height, :width]), "labels"
        off = np.abs(resize(image, size)[window].astype(int) - found[0].image[:height, :width])
        assert off.max() <= 1, f"{off.max()} grey levels"
    for each, i in itertools.product(datasets, range(SCENES)):
        assert _equal(each[i], plain[i]), "caches"
    return "targets equal, images within 1 grey level, caches bit for bit"


def _equal(one: Sample, other: Sample) -> bool:
    assert one.target is not None and other.target is not None
    return np.array_equal(one.image, other.image) and np.array_equal(one.target, other.target)


def cv2_pair(image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    read = cv2.imread(str(image))
    assert read is not None
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.asarray(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED))


def pillow_pair(image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(Image.open(image)), np.asarray(Image.open(mask))


def textbook(dataset: Cityscapes, read: Callable[[Path, Path], tuple[np.ndarray, np.ndarray]]) -> Callable[[], None]:
    """Decode, map the ids, resize everything, crop, flip, normalise."""
    scaled = [A.RandomScale((scale - 1, scale - 1), p=1) for scale in SCALES]
    steps = [A.PadIfNeeded(512, 1024), A.RandomCrop(512, 1024), A.HorizontalFlip(), A.Normalize()]
    pipelines, table = [A.Compose([scale, *steps], seed=0) for scale in scaled], id_to_train_id()

    def side() -> None:
        for pipeline, place in itertools.product(pipelines, range(SCENES)):
            image_path, mask_path = dataset.files(place)
            assert isinstance(mask_path, Path)
            image, mask = read(image_path, mask_path)
            out = pipeline(image=image, mask=table[mask])
            torch.from_numpy(out["image"].transpose(2, 0, 1)), torch.from_numpy(out["mask"])

    return side
