"""The evidence of an evaluation to its scores."""

from __future__ import annotations

import dataclasses

from hrseg.metrics.boundary import boundary_iou
from hrseg.metrics.intervals import interval
from hrseg.metrics.per_image import PerImage
from hrseg.metrics.score_functions import summed_scores
from hrseg.metrics.scores import MEANS, Scores, ratio, scores


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
    )
