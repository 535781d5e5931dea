"""A first recipe for a data set, a machine and a number of minutes: `hrseg start`."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hrseg import config as settings
from hrseg.build.datasets import data_sets, normalisation, train_transform
from hrseg.build.memory import kept_for_backward, room
from hrseg.build.networks import criterion, model
from hrseg.data.class_weights import class_weights
from hrseg.data.dataset import Dataset
from hrseg.data.loader import normalise
from hrseg.data.survey import Survey, survey
from hrseg.errors import ConfigError
from hrseg.runtime import keep_freed_memory, pick_device
from hrseg.task import Task

ENCODERS = {"cpu": ("hrnetv2_w18", "hrnetv2_w18_small_v2", "hrnetv2_w18_small_v1"),
            "cuda": ("hrnetv2_w48", "hrnetv2_w32", "hrnetv2_w18")}  # fmt: skip
LARGEST_CROP = {"cpu": 256, "cuda": 512}
BATCH = {"cpu": 8, "cuda": 16}
FEWEST = (1000, 20)  # a network is chosen if it sees so many images, and each so often
OVERHEAD_S = 15  # of starting: imports, the check, the first batch, the report
TIMED_STEPS = 3
RARE = 0.02  # of the pixels
MOST_VALIDATIONS, VALIDATION_SHARE = 10, 0.1


class Timed(NamedTuple):
    """A candidate: seconds of a step with reading its images, seconds of an image in validation."""

    encoder: str
    accumulate: int
    step_s: float
    image_s: float


class Recipe(NamedTuple):
    """The text of the YAML file, and what to tell beside it."""

    text: str
    notes: list[str]


def first_recipe(root: Path, minutes: float, *, task: str | None = None, weights: str | None = "imagenet") -> Recipe:
    """Look at data and machine, time candidates, and write the settings with their reasons.

    root: a data set in the folder layout. task: None: binary where there is one class, or background and one.
    Raises ConfigError where the minutes are too few for any network.
    """
    device, cores = pick_device("auto"), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    if device.type == "cpu":
        keep_freed_memory()
    kind, workers = "cuda" if device.type == "cuda" else "cpu", min(8, cores)
    data: dict[str, Any] = {"dataset": "folder", "root": str(root), "task": task or "multiclass", "workers": workers}
    split = all((root / "images" / name).is_dir() for name in ("train", "val"))
    if not split:
        data["val_share"] = 0.2
    sets = data_sets(settings.parse({"data": data}))
    space = next(iter(sets.values())).space
    if task is None and (len(space.classes) == 1 or (len(space.classes) == 2 and space.background == 0)):
        data["task"] = "binary"
        sets = data_sets(settings.parse({"data": data}))
    found = survey(sets, workers)
    if found.input_range:
        data["input_range"] = list(found.input_range)
    crop = _crop(found, LARGEST_CROP[kind])
    loss = _loss(found)
    plain = {"data": data, "loss": loss, "augment": {"crop": crop, "scale": [0.5, 2.0], "flip": 0.5}}
    batch = max(2, min(BATCH[kind], 2 * (found.images[0] // 2)))
    seconds, timed = 60 * minutes - OVERHEAD_S, []
    for encoder in ENCODERS[kind]:
        chosen = _timed(plain, encoder, sets, found, batch, device, workers)
        timed.append(chosen)
        images = (1 - VALIDATION_SHARE) * seconds / chosen.step_s * batch
        if images >= max(FEWEST[0], FEWEST[1] * found.images[0]):
            break
    validation_s = chosen.image_s * found.images[1] + 1
    validations = int(min(MOST_VALIDATIONS, max(1, VALIDATION_SHARE * seconds // validation_s)))
    iterations = int((seconds - validations * validation_s) / chosen.step_s)
    if iterations < 2:
        what = (
            f"{minutes:g} minutes are too few: a step takes {chosen.step_s:.1f} s, a validation {validation_s:.0f} s."
        )
        raise ConfigError("--minutes", what, "Give more, or fewer validation images.")
    every = math.ceil(iterations / validations)
    lines = _lines(
        found, plain, chosen, timed, batch, iterations, every, validation_s, minutes, device, cores, weights, split
    )
    return Recipe("\n".join(lines) + "\n", _notes(found))


def _crop(found: Survey, largest: int) -> list[int]:
    """Multiples of 32 that the images have, and at least four times the side of an object."""
    wanted = max(largest, 32 * math.ceil(min(4 * (found.object_side or 0), 2 * largest) / 32))
    return [max(64, min(32 * math.ceil(side / 32), wanted)) for side in found.size]


def _loss(found: Survey) -> list[dict[str, Any]]:
    rarest, task = found.rarest, found.space.task
    rare = rarest is not None and rarest[1] < RARE
    if task is not Task.MULTICLASS:
        return [{"name": "bce"}, {"name": "dice"}] if rare else [{"name": "bce"}]
    weights = {"class_weights": class_weights(found.examination.pixels)} if rare else {}
    return [{"name": "cross_entropy", **weights}]


def _timed(
    plain: dict[str, Any], encoder: str, sets: dict[str, Dataset], found: Survey, batch: int, device: torch.device,
    workers: int,
) -> Timed:  # fmt: skip
    """Time a few steps on training images, and a validation image."""
    config = settings.parse({**plain, "model": {"encoder": encoder, "encoder_weights": None}})
    train, val = sets.values()
    network = model(config, found.space, found.channels, pretrained=False)
    kept = kept_for_backward(network, (batch, found.channels, *config.augment.crop))  # type: ignore[misc]
    parts = 1
    while kept / parts > 0.6 * room(device) and parts < batch // 2:
        parts = next(n for n in range(parts + 1, batch + 1) if batch % n == 0)
    values = normalisation(config, train[0])
    low = [darkest for darkest, _ in values.input_range]
    transform = train_transform(config.augment, found.space, channels=found.channels, dtype=found.dtype, low=low)
    since = time.perf_counter()
    samples = [transform(train[i % len(train)], np.random.default_rng(i)) for i in range(max(2, batch // parts))]
    sample_s = (time.perf_counter() - since) / len(samples)
    pictures = torch.stack(
        [torch.from_numpy(np.ascontiguousarray(s.image.transpose(2, 0, 1))).float() for s in samples]
    )
    target = torch.stack([torch.from_numpy(np.ascontiguousarray(s.target)).long() for s in samples]).to(device)
    images = normalise(pictures, values).to(device)
    network, loss = network.to(device).to(memory_format=torch.channels_last), criterion(config, found.space).to(device)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    times = []
    for _ in range(TIMED_STEPS):
        since = time.perf_counter()
        loss(network(images.contiguous(memory_format=torch.channels_last)), target).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        _wait(device)
        times.append(time.perf_counter() - since)
    step_s, reading_s = float(np.median(times)) * batch / len(samples), sample_s * batch / workers
    # On the CPU reading takes the cores from the network; beside a GPU it goes on at the same time.
    step_s = step_s + reading_s if device.type == "cpu" else max(step_s, reading_s)
    since = time.perf_counter()
    image = val[0].image
    with torch.inference_mode():
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()[None]
        network.eval()(normalise(tensor, values).to(device))
    _wait(device)
    counting_s = 0.15 * image.shape[0] * image.shape[1] / 1e6
    return Timed(encoder, parts, step_s, time.perf_counter() - since + counting_s)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _notes(found: Survey) -> list[str]:
    notes = []
    if found.input_range:
        low, high = found.values
        notes.append(f"values are {low:g} to {high:g} in {found.dtype.name} files: data.input_range is set")
    if found.alike:
        one, other = found.alike[0]
        notes.append(f"{len(found.alike)} pairs of a training and a validation image look the same, such as {one} and "
                     f"{other}: scores may flatter; split by scene")  # fmt: skip
    notes += [f"in the data: {problem}" for problem in found.examination.problems[:5]]
    return notes


def _lines(
    found: Survey, plain: dict[str, Any], chosen: Timed, timed: list[Timed], batch: int, iterations: int, every: int,
    validation_s: float, minutes: float, device: torch.device, cores: int, weights: str | None, split: bool,
) -> list[str]:  # fmt: skip
    data, rarest = plain["data"], found.rarest
    rare = rarest is not None and rarest[1] < RARE
    side = (
        f"objects of the smallest kind are about {found.object_side:.0f} pixels wide"
        if found.object_side
        else "no objects"
    )
    least = f"{_word(rarest[0])} has {rarest[1]:.2%} of the pixels" if rarest else "no labelled pixels"
    tried = ", ".join(f"{one.encoder} {one.step_s:.2f} s a step" for one in timed)
    low, high = found.values
    reach = f"the values are {low:g} to {high:g}, in {found.dtype.name} files"
    ranges = [f"  input_range: {json.dumps(data['input_range'])}  # {reach}"] if found.input_range else []
    where = f"{device}, {cores} cores, {room(device) / 2**30:.0f} GiB"
    decay = 0.999 if iterations > 3000 else 0.99 if iterations > 300 else 0.9
    epochs = iterations * batch / found.images[0]
    return [
        f"# Written by hrseg start for {minutes:g} minutes on {where}.",
        f"# {found.images[0]} training and {found.images[1]} validation images of about "
        f"{found.size[0]}x{found.size[1]} (height x width), {found.channels} channels, {found.dtype.name}.",
        "model:",
        "  arch: hrnetv2",
        f"  encoder: {chosen.encoder}  # timed: {tried}; the largest that sees each image often enough",
        f"  encoder_weights: {weights or 'null'}  # downloaded once; null: random weights",
        "data:",
        "  dataset: folder",
        f"  root: {json.dumps(data['root'], ensure_ascii=False)}",
        f"  task: {data['task']}  # {len(found.space.classes)} classes",
        *(
            []
            if split
            else ["  val_share: 0.2  # there are no train and val folders: always the same fifth of the images"]
        ),
        f"  workers: {data['workers']}  # of {cores} cores",
        *ranges,
        *([f"  sampling: {{rare: 0.5}}  # {least}: half of the crops are put around rare classes"] if rare else []),
        "augment:",
        f"  crop: {plain['augment']['crop']}  # {side}; images are {found.size[0]}x{found.size[1]}",
        "  scale: [0.5, 2.0]  # zoom: objects come nearer and farther than in the training images",
        "  flip: 0.5  # left and right; set 0 where they mean something",
        f"loss: {json.dumps(plain['loss'])}  # {least}",
        "optim: {name: adamw, lr: 5.0e-4, weight_decay: 1.0e-2, decay_all: false, schedule: poly, "
        f"warmup: {min(100, max(1, iterations // 10))}}}  # warm-up is a tenth of the run, at most 100",
        "train:",
        f"  iterations: {iterations}  # {chosen.step_s:.2f} s each, {epochs:.0f} epochs",
        f"  batch_size: {batch}  # steady batch norm statistics",
        f"  accumulate: {chosen.accumulate}  # in so many parts a step fits into memory",
        f"  ema: {decay}  # a running average over a fraction of the run",
        f"  val_every: {every}  # a validation takes about {validation_s:.0f} s: at most a tenth of the time",
    ]


def _word(name: str) -> str:
    """A class's name for a comment: one line."""
    return " ".join(name.split())
