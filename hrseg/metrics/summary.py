"""The evidence of an evaluation to its scores."""

from __future__ import annotations

import dataclasses

import numpy as np

from hrseg.metrics.boundary import boundary_iou
from hrseg.metrics.intervals import interval
from hrseg.metrics.per_image import PerImage
from hrseg.metrics.score_functions import summed_scores
from hrseg.metrics.scores import MEANS, Scores, ratio, scores
from hrseg.metrics.thresholds import HALF, THRESHOLDS, AtThreshold, LabelScores, yes_pixels
from hrseg.task import Task


def scores_of_images(per_image: PerImage, definition: str | None = None) -> Scores:
    """Every score that the evidence holds, and its 95 % interval.

    definition: what an absent class counts for; None: as where the evidence was made. Raises ConfigError for an unknown
    definition.
    """
    definition = definition or per_image.definition
    boundary = per_image.stacked("boundary")
    found = scores(
        per_image.total(),
        per_image.space,
        definition,
        boundary_iou=None if boundary is None else boundary_iou(boundary.sum(axis=0)),
    )
    instances, iiou, split = per_image.stacked("instances"), {}, len(per_image.instance_classes)
    if instances is not None:
        names = per_image.instance_classes + per_image.instance_categories
        iiou = dict(zip(names, ratio(*instances.sum(axis=0)).tolist(), strict=True))
    measured, clusters = summed_scores(per_image, definition), per_image.clusters
    return dataclasses.replace(
        found,
        iiou=dict(list(iiou.items())[:split]),
        category_iiou=dict(list(iiou.items())[split:]),
        means={name: float(measured[name].value()) for name in MEANS if name in measured},
        intervals={name: interval(measure, clusters) for name, measure in measured.items()},
        clusters=len(set(clusters)),
        labels=_labels(per_image),
    )


def _labels(per_image: PerImage) -> tuple[LabelScores, ...]:
    """The foreground of a binary task, or every label of a multilabel one, at the thresholds of interest."""
    space = per_image.space
    if space.task is Task.MULTICLASS:
        return ()
    binary = space.task is Task.BINARY
    names, groups = (space.names[1:], [-1, 0]) if binary else (space.names, [*range(len(space.names))])
    areas = per_image.group_areas(groups)
    right, predicted, truth = (each.sum(axis=0) for each in (areas.intersection, areas.predicted, areas.truth))
    used = [_at(per_image.threshold, *each) for each in zip(right, predicted, truth, strict=True)]
    counts = per_image.stacked("thresholds")
    if counts is None:
        return tuple(map(LabelScores, names, used))
    found = []
    for name, own, *pixels in zip(names, used, *yes_pixels(counts.sum(axis=0)), strict=True):
        at = [_at(float(t), r, p, pixels[2][0]) for t, r, p in zip(THRESHOLDS, pixels[0], pixels[1], strict=True)]
        if not pixels[2][0]:
            found.append(LabelScores(name, own, at[HALF]))
            continue
        best = max(at, key=lambda one: (one.iou, -abs((one.threshold or 0) - 0.5)))
        found.append(LabelScores(name, own, at[HALF], best))
    return tuple(found)


def _at(threshold: float | None, right: int, predicted: int, truth: int) -> AtThreshold:
    """right: pixels rightly said yes. predicted: all that are said yes. truth: all that are yes."""
    both = (
        np.array([right, right, 2 * right, right]),
        np.array([predicted, truth, predicted + truth, predicted + truth - right]),
    )
    return AtThreshold(threshold, *ratio(*both).tolist())
