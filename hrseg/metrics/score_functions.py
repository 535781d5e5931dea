"""Every score as a function of sums over images: the one place where scores, intervals and comparisons meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hrseg.metrics.calibration import ece
from hrseg.metrics.per_image import PerImage
from hrseg.metrics.scores import mean, ratio
from hrseg.task import Task

FEWEST_OF_A_TENTH = 3  # images; the one or two worst of a data set do not show how they vary


class SummedScore(NamedTuple):
    """A score that is a function of sums over images: of(counts.sum(axis=0)).

    counts: float64 [N, M], what each image adds. of: float64 [..., M] to [...]. has_interval: False where so few images
    make the score that nothing is known about its spread.
    """

    counts: np.ndarray
    of: Callable[[np.ndarray], np.ndarray]
    has_interval: bool = True

    def value(self) -> np.ndarray:
        """The score over all images."""
        return self.of(self.counts.sum(axis=0))

    def without_each(self, clusters: Sequence[str]) -> np.ndarray:
        """The score without each of the C clusters in turn, float64 [C]. clusters: one an image."""
        names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
        # What stands before and what behind a cluster: a difference from the total would leave a rest where a class is
        # in this cluster alone.
        of_cluster = np.zeros((len(names) + 2, self.counts.shape[1]))
        np.add.at(of_cluster, cluster_of + 1, self.counts)
        before, behind = of_cluster[:-2].cumsum(axis=0), of_cluster[:1:-1].cumsum(axis=0)[::-1]
        return self.of(before + behind)


def summed_scores(per_image: PerImage, definition: str) -> dict[str, SummedScore]:
    """Every score that the evidence holds, by its name in metrics.json.

    definition: what an absent class counts for in a mean over classes. A mean over categories or over the classes with
    instances leaves out what is absent, as Cityscapes' own evaluation does.
    image_miou is the mean of `image_ious`; worst_decile_miou that over the tenth of the images in which it is lowest.
    """
    classes = per_image.group_areas(range(len(per_image.space.classes)))
    right, counted = per_image.correct_and_counted()
    of_image = image_ious(per_image)
    there = ~np.isnan(of_image)
    found = {
        **_foreground(per_image),
        "miou": _mean_of_ratios(classes.intersection, classes.union, definition),
        "pixel_accuracy": _mean_of_ratios(right[:, None], counted[:, None]),
        "class_accuracy": _mean_of_ratios(classes.intersection, classes.truth, definition),
        "image_miou": _mean_of_images(of_image[there], there),
        "worst_decile_miou": _mean_of_lowest_tenth(of_image[there], there),
    }
    names = [c.category for c in per_image.space.classes]
    categories = list(dict.fromkeys(name for name in names if name is not None))
    if categories and not per_image.multilabel:
        areas = per_image.group_areas([-1 if name is None else categories.index(name) for name in names])
        found["category_miou"] = _mean_of_ratios(areas.intersection, areas.union)
    if (boundary := per_image.stacked("boundary")) is not None:
        found["boundary_miou"] = _mean_of_ratios(boundary[:, 0], boundary[:, 1], definition)
    if (instances := per_image.stacked("instances")) is not None:
        split = len(per_image.instance_classes)
        found["mean_iiou"] = _mean_of_ratios(instances[:, 0, :split], instances[:, 1, :split])
        found["mean_category_iiou"] = _mean_of_ratios(instances[:, 0, split:], instances[:, 1, split:])
    if (calibration := per_image.stacked("calibration")) is not None:
        bins = calibration.shape[1:]
        flat = calibration.reshape(len(calibration), -1)
        found["ece"] = SummedScore(flat, lambda sums: ece(sums.reshape(*sums.shape[:-1], *bins)))
    return found


def _foreground(per_image: PerImage) -> dict[str, SummedScore]:
    """Of a binary task, the scores of its foreground."""
    if per_image.space.task is not Task.BINARY:
        return {}
    areas = per_image.group_areas([-1, 0])
    return {
        "foreground_iou": _mean_of_ratios(areas.intersection, areas.union),
        "foreground_dice": _mean_of_ratios(2 * areas.intersection, areas.truth + areas.predicted),
        "foreground_precision": _mean_of_ratios(areas.intersection, areas.predicted),
        "foreground_recall": _mean_of_ratios(areas.intersection, areas.truth),
    }


def image_ious(per_image: PerImage) -> np.ndarray:
    """The mean IoU of each image over the classes in its target or prediction, float64 [N]; NaN where there is none.

    A class that is only in the prediction counts 0: a false alarm on an image without any object is seen.
    Source: Wang et al., Revisiting Evaluation Metrics for Semantic Segmentation, NeurIPS 2023, who average over the
    classes in the target alone, where such an image would keep nearly its full score.
    """
    return mean(ratio(*per_image.areas()), "cityscapes")


def image_costs(per_image: PerImage, definition: str) -> np.ndarray:
    """By how much the mean IoU of the data set would rise if all pixels of one image were right, float64 [N].

    definition: what an absent class counts for. A class that only this image's false pixels bring in would be absent.
    """
    classes = per_image.group_areas(range(len(per_image.space.classes)))
    intersection, union = classes.intersection.sum(axis=0), classes.union.sum(axis=0)
    mended = ratio(intersection - classes.intersection + classes.truth, union - classes.union + classes.truth)
    return mean(mended, definition) - mean(ratio(intersection, union), definition)


def false_pixels_of_clean_images(per_image: PerImage) -> np.ndarray:
    """In each image whose target holds the background alone, the pixels predicted as something else, int64 [N].

    0 in every other image, and where the data set has no background. A multilabel image is clean without any label.
    """
    space = per_image.space
    if space.background is None and not per_image.multilabel:
        return np.zeros(len(per_image), np.int64)
    objects = per_image.group_areas([-1 if index == space.background else 0 for index in range(len(space.classes))])
    return np.where(objects.truth[:, 0] == 0, objects.predicted[:, 0], 0)


def class_ious(per_image: PerImage) -> dict[str, SummedScore]:
    """The IoU of each class by its name; NaN where it is in neither target nor prediction."""
    intersection, union = per_image.areas()
    columns = ((intersection[:, [k]], union[:, [k]]) for k in range(len(per_image.space.classes)))
    return {name: _mean_of_ratios(*column) for name, column in zip(per_image.space.names, columns, strict=True)}


def _mean_of_ratios(part: np.ndarray, whole: np.ndarray, definition: str = "cityscapes") -> SummedScore:
    """The mean over columns of (sum of part) / (sum of whole). part, whole: [N, K]."""
    columns = part.shape[1]
    counts = np.concatenate([part, whole], axis=1).astype(np.float64)
    return SummedScore(counts, lambda sums: mean(ratio(sums[..., :columns], sums[..., columns:]), definition))


def _mean_of_images(values: np.ndarray, there: np.ndarray) -> SummedScore:
    """The mean of one value an image. there: bool [N], which images have one."""
    part = np.zeros(len(there))
    part[there] = values
    return _mean_of_ratios(part[:, None], there[:, None])


def _mean_of_lowest_tenth(values: np.ndarray, there: np.ndarray) -> SummedScore:
    """The mean of the lowest tenth of one value an image, rounded down to whole images, but at least one.

    With q the highest of these n values out of N, it is the mean over all images of q + N / n min(value - q, 0): a sum
    over images, whose derivative with respect to q is 0, so that q may be held while images come and go.
    Source: Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000.
    """
    if not values.size:
        return _mean_of_images(values, there)
    lowest = max(1, len(values) // 10)
    q = np.partition(values, lowest - 1)[lowest - 1]
    score = _mean_of_images(q + len(values) / lowest * np.minimum(values - q, 0), there)
    return score._replace(has_interval=lowest >= FEWEST_OF_A_TENTH)
