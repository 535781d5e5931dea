"""How far a score could have come out otherwise, and which of two methods is better: jackknife over clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hrseg.metrics.score_functions import SummedScore

LEVEL = 0.95
NO_ERROR = 1e-12  # what sums of floats leave of a standard error of zero


def interval(measure: SummedScore, clusters: Sequence[str]) -> tuple[float, float] | None:
    """The 95 % interval of a score in [0, 1]: the score -+ t times its standard error.

    Images of one city or sequence resemble each other, so whole clusters are left out, one at a time; single images
    would make the interval too narrow. Student's t has one degree of freedom less than there are clusters.
    Percentiles of a bootstrap over clusters are the better known way; with few clusters they are too narrow (of three,
    only ten different draws exist), where these intervals keep their promise.
    clusters: one an image. Returns (low, high), or None for fewer than two clusters, a score that is NaN, one without
    an interval, or one that no cluster changes: a width of zero would claim certainty.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 11 and 12.
    """
    value, error = float(measure.value()), standard_error(measure.without_each(clusters))
    if not measure.has_interval or np.isnan(value) or not error > NO_ERROR:
        return None
    reach = _student_t(len(set(clusters)) - 1) * error
    return max(0.0, float(value - reach)), min(1.0, float(value + reach))


def mean_interval(runs: Sequence[SummedScore], clusters: Sequence[str]) -> tuple[float, float] | None:
    """The 95 % interval of the mean score of runs that differ in their seed; of one run, that of `interval`.

    What the seed does is added to the error of the images, as in `difference`. None as there.
    """
    if len(runs) == 1:
        return interval(runs[0], clusters)
    values = np.array([float(run.value()) for run in runs])
    of_images = standard_error(np.mean([run.without_each(clusters) for run in runs], axis=0)) ** 2
    of_seeds = values.var(ddof=1) / len(runs)
    if np.isnan(of_images + of_seeds) or of_images + of_seeds <= NO_ERROR**2:
        return None
    freedom = (of_images + of_seeds) ** 2 / (of_images**2 / (len(set(clusters)) - 1) + of_seeds**2 / (len(runs) - 1))
    reach = float(_student_t(freedom) * np.sqrt(of_images + of_seeds))
    return max(0.0, float(values.mean() - reach)), min(1.0, float(values.mean() + reach))


def _student_t(freedom: float) -> float:
    """How many standard errors the interval reaches to either side."""
    from scipy.special import stdtrit  # its import takes a quarter of a second: not before the first image

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def standard_error(without_each: np.ndarray) -> float:
    """The jackknife's, from a score without each cluster in turn; NaN for fewer than two."""
    there = without_each[~np.isnan(without_each)]
    if there.size < 2:
        return np.nan
    return float(np.sqrt((there.size - 1) / there.size * ((there - there.mean()) ** 2).sum()))


class Difference(NamedTuple):
    """A score of two methods. first, second: of each run. difference: mean of the first minus mean of the second."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    difference: float
    interval: tuple[float, float] | None

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def difference(first: Sequence[SummedScore], second: Sequence[SummedScore], clusters: Sequence[str]) -> Difference:
    """How much better the first method is than the second, with its 95 % interval.

    first, second: the same score of one or more runs, over the same images in the same order. The runs of a method
    differ in their seed. Differences are taken cluster by cluster, so what makes an image hard for both cancels. What
    the seed does is added to the error, as far as a method has several; of one run each the interval knows nothing.
    The interval is None where one of the scores has none; equal scores in every image give one of width 0.
    Source: Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021; the degrees of
    freedom of the two errors together are Welch's and Satterthwaite's.
    """
    values = [np.array([float(m.value()) for m in side]) for side in (first, second)]
    found = float(values[0].mean() - values[1].mean())
    sides = [np.mean([m.without_each(clusters) for m in side], axis=0) for side in (first, second)]
    error = standard_error(sides[0] - sides[1])
    plain = tuple(values[0].tolist()), tuple(values[1].tolist())
    if np.isnan(found) or np.isnan(error) or not all(m.has_interval for m in (*first, *second)):
        return Difference(*plain, found, None)
    of_images, of_seeds = error**2, 0.0
    freedom = len(set(clusters)) - 1
    seeds = sum(len(side) - 1 for side in values)
    if seeds:
        of_seeds = sum(((side - side.mean()) ** 2).sum() for side in values) / seeds * sum(1 / len(v) for v in values)
        if of_images + of_seeds > 0:
            freedom = (of_images + of_seeds) ** 2 / (of_images**2 / freedom + of_seeds**2 / seeds)
    reach = float(_student_t(freedom) * np.sqrt(of_images + of_seeds))
    return Difference(*plain, found, (found - reach, found + reach))
