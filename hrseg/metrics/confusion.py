"""Pixels counted by true and predicted class: exact integers, fast on uint8 label maps."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hrseg.task import IGNORE_INDEX

Labels = np.ndarray | Tensor

QUARTERS = 4
AT_ONCE = 2**23  # pixels, four times a whole number: cv2.calcHist answers in float32, exact below 2^24
BLOCK = 2**16  # pixels whose comparison stays in the cache: touching new memory takes longer than comparing


def confusion_matrix(
    prediction: Labels,
    target: Labels,
    classes: int,
    ignore_index: int = IGNORE_INDEX,
    *,
    void_predictions: bool = False,
    pixels: np.ndarray | None = None,
) -> np.ndarray:
    """Pixels by true and predicted class; where the target is ignored, nothing counts.

    prediction, target: integers of one shape, arrays or tensors on any device; uint8 is the fastest.
    void_predictions: a prediction that is none of the classes counts in a last column of its own, so as a miss of the
    true class and a false alarm of none; without it such a value is an error. pixels: how many each value stands for,
    as `pixel_runs` gives it; None: one.
    Returns int64 [K, K], row = target, column = prediction; [K, K + 1] with void_predictions.
    Raises ValueError for values that are not a class, TypeError for values that are not integers.
    """
    if tuple(prediction.shape) != tuple(target.shape):
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    p, t = _integers(prediction), _integers(target)
    small = all(plane.dtype == torch.uint8 and plane.device.type == "cpu" for plane in (p, t))
    if pixels is not None:
        counts = _of_runs(p.numpy(), t.numpy(), pixels, classes, ignore_index)
    else:
        counts = (_by_histogram if small else _by_bincount)(p, t, classes, ignore_index)
    if counts[classes].any():
        raise ValueError(f"target holds {_stranger(t, classes, ignore_index)}, which is none of {classes} classes")
    if void_predictions:
        return counts[:classes]
    if counts[:, classes].any():
        counted = p[t.to(p.device) != ignore_index]
        raise ValueError(f"prediction holds {_stranger(counted, classes)}, which is none of {classes} classes")
    return counts[:classes, :classes]


def pixel_runs(*planes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Label maps of one shape as runs of pixels, row after row, in which none of them changes.

    Returns the values of each map, each [R], and the pixels of each run, int64 [R]. Maps of scenes have dozens of times
    fewer runs than pixels. Raises ValueError for maps of several shapes.
    """
    if len({plane.shape for plane in planes}) > 1:
        raise ValueError(f"maps {', '.join(str(plane.shape) for plane in planes)} differ in shape")
    flat = [np.ravel(plane) for plane in planes]
    size, starts = flat[0].size, [np.zeros(min(flat[0].size, 1), np.intp)]
    changed, of_one = np.empty((2, BLOCK), bool)
    for first in range(1, size, BLOCK):
        count = min(BLOCK, size - first)
        before, here = slice(first - 1, first - 1 + count), slice(first, first + count)
        changed[:count] = False
        for plane in flat:
            changed[:count] |= np.not_equal(plane[here], plane[before], out=of_one[:count])
        starts.append(np.flatnonzero(changed[:count]) + first)
    begins = np.concatenate(starts)
    return [plane[begins] for plane in flat], np.diff(begins, append=size)


def multilabel_confusion(
    prediction: Labels, target: Labels, labels: int, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """A 2 x 2 confusion matrix per label.

    prediction, target: {0, 1} [..., L, H, W]; the target also ignore_index.
    Returns int64 [L, 2, 2], row = target (no, yes), column = prediction. Raises ValueError as `confusion_matrix` does.
    """
    for name, plane in (("prediction", prediction), ("target", target)):
        if plane.shape[-3] != labels:
            raise ValueError(f"the labels of the {name} number {plane.shape[-3]}, not {labels}")
    planes = ((prediction[..., label, :, :], target[..., label, :, :]) for label in range(labels))
    return np.stack([confusion_matrix(p, t, 2, ignore_index) for p, t in planes])


class ConfusionMatrix:
    """A confusion matrix that adds up over images and, at the end, over the processes of a run.

    classes: K. multilabel: K labels that may overlap, each with a 2 x 2 matrix. void_predictions: as in
    `confusion_matrix`.
    """

    def __init__(
        self,
        classes: int,
        ignore_index: int = IGNORE_INDEX,
        *,
        multilabel: bool = False,
        void_predictions: bool = False,
    ):
        self.classes, self.ignore_index = classes, ignore_index
        self.multilabel, self.void_predictions = multilabel, void_predictions
        self.reset()

    def reset(self) -> None:
        """Back to zero."""
        shape = (self.classes, 2, 2) if self.multilabel else (self.classes, self.classes + self.void_predictions)
        self._counts = np.zeros(shape, np.int64)
        self._synced = False

    def update(self, prediction: Labels, target: Labels, *, pixels: np.ndarray | None = None) -> np.ndarray:
        """Count one image or a batch; returns what it added. Raises ValueError for values that are no class.

        pixels: as in `confusion_matrix`; not for multilabel.
        """
        added = self.count(prediction, target, pixels=pixels)
        self.add(added)
        return added

    def count(self, prediction: Labels, target: Labels, *, pixels: np.ndarray | None = None) -> np.ndarray:
        """What `update` adds; adds nothing, so that several threads may count."""
        if self.multilabel:
            return multilabel_confusion(prediction, target, self.classes, self.ignore_index)
        void = self.void_predictions
        return confusion_matrix(
            prediction, target, self.classes, self.ignore_index, void_predictions=void, pixels=pixels
        )

    def add(self, counts: np.ndarray) -> None:
        """Add a matrix that was counted elsewhere, of the shape that `compute` returns."""
        if self._synced:
            raise RuntimeError("the matrix holds the sum over all processes: reset it before counting on")
        self._counts += counts

    def compute(self) -> np.ndarray:
        """The sum so far, int64 [K, K], [K, K + 1] with void_predictions, [K, 2, 2] for multilabel; row = target."""
        return self._counts.copy()

    def sync(self) -> None:
        """Make this the sum over the processes of torch.distributed, exactly; in a single process it is unchanged."""
        if self._synced:
            return
        if dist.is_available() and dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            total = torch.from_numpy(self._counts).to(device)
            dist.all_reduce(total)
            self._counts = total.cpu().numpy()
        self._synced = True


def _integers(labels: Labels) -> Tensor:
    """A tensor of integers; uint8 where it is on the CPU and the values allow it."""
    if isinstance(labels, np.ndarray):
        labels = torch.from_numpy(np.ascontiguousarray(labels))
    if labels.dtype == torch.bool:
        labels = labels.to(torch.uint8)
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels are integers, not {labels.dtype}")
    if labels.dtype in (torch.int64, torch.int32) and labels.device.type == "cpu" and labels.numel():
        least, greatest = labels.aminmax()
        if least >= 0 and greatest < 256:
            return labels.to(torch.uint8)
    return labels


def _by_histogram(prediction: Tensor, target: Tensor, classes: int, ignore_index: int) -> np.ndarray:
    """int64 [K + 1, K + 1], where the last row and column hold all values that are no class; uint8 on the CPU."""
    planes = [np.ascontiguousarray(plane.numpy()).reshape(1, -1) for plane in (target, prediction)]
    whole = target.numel() // QUARTERS * QUARTERS
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for start in range(0, whole, AT_ONCE):
        part = [_dealt(plane[:, start : min(start + AT_ONCE, whole)]) for plane in planes]
        counts += _histogram(part, classes, ignore_index)
    if whole < target.numel():
        counts += _histogram([plane[:, whole:] for plane in planes], classes, ignore_index)
    return counts


def _histogram(planes: list[np.ndarray], classes: int, ignore_index: int) -> np.ndarray:
    """`_by_histogram` of two planes [1, N] that it counts exactly."""
    all_values = cv2.calcHist(planes, [0, 1], None, [256, 256], [0, 256, 0, 256])
    if 0 <= ignore_index < 256:
        all_values[ignore_index] = 0
    counts, k = np.zeros((classes + 1, classes + 1), np.int64), min(classes, 256)
    counts[:k, :k] = all_values[:k, :k]
    counts[:k, classes] = all_values[:k, k:].sum(axis=1, dtype=np.float64)
    strangers = all_values[k:].sum(axis=0, dtype=np.float64)
    counts[classes, :k], counts[classes, classes] = strangers[:k], strangers[k:].sum()
    return counts


def _dealt(plane: np.ndarray) -> np.ndarray:
    """[1, N] in another order: a pixel of each quarter in turn.

    Neighbours mostly agree, and each would wait until the one before is counted in the same place: twice the time.
    """
    return cv2.merge(list(plane.reshape(QUARTERS, 1, -1))).reshape(1, -1)


def _by_bincount(prediction: Tensor, target: Tensor, classes: int, ignore_index: int) -> np.ndarray:
    """As `_by_histogram`, for any integer type and on any device."""
    target = target.reshape(-1).long()
    prediction = prediction.reshape(-1).to(target.device).long()
    column = torch.where((prediction >= 0) & (prediction < classes), prediction, classes)
    row = torch.where((target >= 0) & (target < classes), target, classes)
    row = torch.where(target == ignore_index, classes + 1, row)
    cells = torch.bincount(row * (classes + 1) + column, minlength=(classes + 2) * (classes + 1))
    return cells.cpu().numpy().reshape(classes + 2, classes + 1)[: classes + 1]


def _of_runs(
    prediction: np.ndarray, target: np.ndarray, pixels: np.ndarray, classes: int, ignore_index: int
) -> np.ndarray:
    """As `_by_histogram`, by numpy alone: torch's threads, which wait busily, would hold up those that decode files."""
    prediction, target = (plane.astype(np.int64).reshape(-1) for plane in (prediction, target))
    column = np.where((prediction >= 0) & (prediction < classes), prediction, classes)
    row = np.where((target >= 0) & (target < classes), target, classes)
    row[target == ignore_index] = classes + 1
    # The weights are added as float64, which is exact below 2^53.
    cells = np.bincount(row * (classes + 1) + column, pixels, (classes + 2) * (classes + 1)).astype(np.int64)
    return cells.reshape(classes + 2, classes + 1)[: classes + 1]


def _stranger(labels: Tensor, classes: int, ignore_index: int | None = None) -> int:
    """The smallest value that is neither a class nor ignored."""
    return next(v for v in labels.unique().tolist() if not 0 <= v < classes and v != ignore_index)
