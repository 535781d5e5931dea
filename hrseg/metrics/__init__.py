"""Scores of a segmentation and the counts behind them: arrays in, numbers out."""

from hrseg.metrics.boundary import boundary_confusion, boundary_iou
from hrseg.metrics.confusion import ConfusionMatrix, confusion_matrix, multilabel_confusion
from hrseg.metrics.iiou import InstanceIoU, InstanceScores
from hrseg.metrics.intervals import miou_interval
from hrseg.metrics.per_image import PerImage
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

__all__ = [
    "DEFINITIONS",
    "ClassScore",
    "ConfusionMatrix",
    "InstanceIoU",
    "InstanceScores",
    "PerImage",
    "Scores",
    "boundary_confusion",
    "boundary_iou",
    "category_iou",
    "class_accuracy",
    "confusion_matrix",
    "iou",
    "miou",
    "miou_interval",
    "multilabel_confusion",
    "pixel_accuracy",
    "scores",
    "table",
]
