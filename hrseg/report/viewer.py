"""What the page's script draws: every image with its scores, and pictures of those that were kept."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from hrseg.metrics import false_pixels_of_clean_images, image_costs, image_ious
from hrseg.metrics.scores import ratio
from hrseg.report import pictures
from hrseg.report.examples import CLEAN, SMALL_SIDE, TYPICAL, WORST, PackedIndices, reduced_indices
from hrseg.report.run_folder import EvaluatedRun

LISTED = 10_000  # images; of more those that cost the score most
MOST_CHANGED = 12  # images of a comparison
TITLES = {WORST: "Cost the score most", CLEAN: "Clean, with false pixels", TYPICAL: "Typical"}


def viewer_data(runs: Sequence[EvaluatedRun], names: Sequence[str]) -> dict[str, Any]:
    """Classes, images, groups of images to show first, and pictures, as plain types.

    An image has, of each run, `iou` and `cost` (points of mean IoU) and `of` (class, IoU in per mille); of the first
    `false` (pixels, where it is clean), and the numbers of its pictures, `full` and `small`, or None.
    """
    space = runs[0].per_image.space
    images, position_of = _images(runs)
    drawn: list[dict[str, Any]] = []
    groups: dict[str, list[int]] = {}
    kept = [run.examples for run in runs if run.examples]
    if len(kept) == len(runs):
        for examples in kept:
            for name, photo in examples.photos.items():
                if name not in position_of or images[position_of[name]]["full"] is not None:
                    continue
                if len(runs) == 1:
                    answers, target = [photo.prediction or kept[0].predictions.get(name)], photo.target
                else:  # the other run may have kept its prediction small
                    answers = [e.predictions.get(name) for e in kept]
                    target = PackedIndices.pack(reduced_indices(photo.target.unpack()))
                if any(a is None or a.shape != target.shape for a in answers):
                    continue
                for kind in photo.kinds if len(runs) == 1 else ():
                    groups.setdefault(TITLES.get(kind, kind), []).append(position_of[name])
                images[position_of[name]]["full"] = len(drawn)
                drawn.append(_picture(photo.webp, target, answers))
        for name, small in kept[0].small.items():
            answers = [e.predictions.get(name) for e in kept]
            if name in position_of and all(answers):
                reduced = [reduced_indices(a.unpack(), SMALL_SIDE) for a in answers if a]
                if all(a.shape == small.target.shape for a in reduced):
                    images[position_of[name]]["small"] = len(drawn)
                    drawn.append(_picture(small.webp, small.target, [PackedIndices.pack(a) for a in reduced]))
    if len(runs) > 1:
        shown = [n for n, image in enumerate(images) if image["full"] is not None and None not in image["iou"]]
        shown.sort(key=lambda n: -abs(images[n]["iou"][0] - images[n]["iou"][1]))
        groups = {"Where the two differ most": shown[:MOST_CHANGED]}
    present = [any(row.metrics["classes"][n]["iou"] is not None for row in runs) for n in range(len(space.classes))]
    return {
        "names": list(names),
        "classes": [{"name": c.name, "color": c.color, "there": present[n]} for n, c in enumerate(space.classes)],
        "ignore": space.ignore_index,
        "ignoredColor": pictures.ignored_color(space),
        "background": space.background,
        "errors": {"missed": pictures.MISSED, "false": pictures.FALSE_ALARM, "confused": pictures.CONFUSED},
        "errorNames": list(pictures.error_colors(space)),
        "images": images,
        "all": len(runs[0].per_image),
        "groups": [{"title": title, "images": members} for title, members in groups.items() if members],
        "pictures": drawn,
    }


def _images(runs: Sequence[EvaluatedRun]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every image that all runs have, and the place of each by name."""
    first = runs[0].per_image
    false_pixels = false_pixels_of_clean_images(first)
    of_run = []
    for run in runs:
        evidence = run.per_image
        costs = image_costs(evidence, run.metrics["definition"])
        of_images = zip(image_ious(evidence), costs, ratio(*evidence.areas()), strict=True)
        of_run.append(dict(zip(evidence.names, of_images, strict=True)))
    listed = sorted(range(len(first)), key=lambda n: -of_run[0][first.names[n]][1])[:LISTED]
    images: list[dict[str, Any]] = []
    for n in sorted(listed):
        name = first.names[n]
        if all(name in one for one in of_run):
            scored = [one[name] for one in of_run]
            images.append(
                {
                    "name": name,
                    "iou": [_rounded(iou) for iou, _, _ in scored],
                    "cost": [_rounded(100 * cost, 4) for _, cost, _ in scored],
                    "of": [
                        [[int(k), round(1000 * float(v[k]))] for k in np.flatnonzero(~np.isnan(v))] for *_, v in scored
                    ],
                    "false": int(false_pixels[n]),
                    "full": None,
                    "small": None,
                }
            )
    return images, {image["name"]: place for place, image in enumerate(images)}


def _rounded(value: float, digits: int = 5) -> float | None:
    return None if np.isnan(value) else round(float(value), digits)


def _picture(webp: bytes, target: PackedIndices, answers: Sequence[PackedIndices | None]) -> dict[str, Any]:
    return {
        "photo": "data:image/webp;base64," + base64.b64encode(webp).decode(),
        "shape": target.shape,
        "target": base64.b64encode(target.data).decode(),
        "predictions": [base64.b64encode(a.data).decode() for a in answers if a],
    }
