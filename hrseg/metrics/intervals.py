"""How far a mean IoU could have come out otherwise: bootstrap over clusters of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrseg.metrics.per_image import PerImage
from hrseg.metrics.scores import areas, mean, ratio


def miou_interval(
    per_image: PerImage | np.ndarray,
    clusters: Sequence[str] | None,
    definition: str,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the mean IoU, percentiles of `samples` draws of clusters with replacement.

    Images of one city or sequence resemble each other, so whole clusters are drawn; drawing single images would make
    the interval too narrow. An interval from few clusters is itself uncertain, and rather too narrow: three (the
    cities of Cityscapes val) allow only ten different draws. Below some twenty, read it as an order of magnitude, or
    take finer clusters, such as sequences.
    per_image: int64 [N, K, K] or the evidence of an evaluation. clusters: one an image; None: each image by itself.
    Returns (low, high), or None for fewer than two clusters. Raises ValueError if clusters and images differ in number.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    intersection, union = per_image.areas() if isinstance(per_image, PerImage) else areas(per_image)
    cluster_of = np.arange(len(union)) if clusters is None else np.asarray(clusters)
    if len(cluster_of) != len(union):
        raise ValueError(f"{len(cluster_of)} clusters for {len(union)} images")
    names = np.unique(cluster_of)
    if len(names) < 2:
        return None
    member = (cluster_of == names[:, None]).astype(np.float64)  # [clusters, images]; sums stay exact below 2^53
    drawn = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=samples)
    drawn = drawn.astype(np.float64)
    mious = mean(ratio(drawn @ (member @ intersection), drawn @ (member @ union)), definition)
    low, high = np.nanpercentile(mious, (2.5, 97.5))
    return float(low), float(high)
