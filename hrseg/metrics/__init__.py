"""Scores of a segmentation and the counts behind them: arrays in, numbers out."""

from hrseg.metrics.boundary import boundary_areas, boundary_iou
from hrseg.metrics.calibration import calibration_counts, ece
from hrseg.metrics.confusion import ConfusionMatrix, confusion_matrix, multilabel_confusion, pixel_runs
from hrseg.metrics.iiou import InstanceIoU, InstanceScores
from hrseg.metrics.intervals import Difference, difference, interval, mean_interval
from hrseg.metrics.per_image import ImageCounts, PerImage
from hrseg.metrics.score_functions import (
    SummedScore,
    class_ious,
    false_pixels_of_clean_images,
    image_costs,
    image_ious,
    summed_scores,
)
from hrseg.metrics.scores import (
    DEFINITIONS,
    ClassScore,
    Scores,
    category_iou,
    class_accuracy,
    iou,
    miou,
    pixel_accuracy,
    scores,
    table,
)
from hrseg.metrics.summary import scores_of_images
from hrseg.metrics.thresholds import THRESHOLDS, LabelScores, threshold_counts, yes_pixels

__all__ = [
    "DEFINITIONS",
    "THRESHOLDS",
    "ClassScore",
    "ConfusionMatrix",
    "Difference",
    "ImageCounts",
    "InstanceIoU",
    "InstanceScores",
    "LabelScores",
    "PerImage",
    "Scores",
    "SummedScore",
    "boundary_areas",
    "boundary_iou",
    "calibration_counts",
    "category_iou",
    "class_accuracy",
    "class_ious",
    "confusion_matrix",
    "difference",
    "ece",
    "false_pixels_of_clean_images",
    "image_costs",
    "image_ious",
    "interval",
    "iou",
    "mean_interval",
    "miou",
    "multilabel_confusion",
    "pixel_accuracy",
    "pixel_runs",
    "scores",
    "scores_of_images",
    "summed_scores",
    "table",
    "threshold_counts",
    "yes_pixels",
]
