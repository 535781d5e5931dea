"""The class of each pixel from logits of a lower resolution, without the logits of each pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]

# What rounding to float32, by 2^-24, may take from the lead of one value over another, as a share of the largest value:
# F.interpolate rounds five times in each, `_blended` eight times.
OF_TORCH, OF_BOTH = 12 * 2**-24, 28 * 2**-24
CELLS = 2048  # at a time: what they take stays in the cache
PLAIN = 256  # height + width up to which all classes are interpolated together; PyTorch changes its kernel at 128


def upsampled_labels(logits: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """The class of every pixel, just as F.interpolate(logits.float(), size, mode="bilinear") and argmax(1) tell it.

    Bilinear interpolation is a mean of four neighbours with weights that are not negative: a class that leads in all
    four leads in between. Only where they disagree, or a lead is as small as a rounding error, values are interpolated,
    and where that leaves a doubt by F.interpolate itself.
    logits: [N, K, h, w] of any float type. size: (height, width). Returns uint8 [N, *size] up to 256 classes, else
    int64; a tie goes to the lowest class.
    """
    return torch.cat([_labels(image, size, align_corners) for image in logits.float().split(1)])


def _labels(logits: Tensor, size: Size, align_corners: bool) -> Tensor:
    """`upsampled_labels` of one image [1, K, h, w]."""
    _, classes, height, width = logits.shape
    kind = torch.uint8 if classes <= 256 else torch.int64
    least, greatest = map(float, logits.aminmax())
    largest = max(-least, greatest)
    if not math.isfinite(largest) or sum(size) <= PLAIN:
        return _interpolated(logits, size, align_corners).argmax(1).to(kind)

    planes = logits[0].flatten(1).contiguous()  # [K, h * w]
    rows, columns = (_cells(logits, axis, size[axis - 2], align_corners) for axis in (2, 3))
    label, leads = (each.view(height, width) for each in _leader(planes, OF_TORCH * largest, kind))
    coarse, clear = _corners(label), torch.stack(_corners(leads)).all(0)
    for corner in coarse[1:]:
        clear &= corner == coarse[0]
    labels = coarse[0].index_select(1, columns.of_pixel).index_select(0, rows.of_pixel)

    flat = labels.view(-1)
    doubtful: list[tuple[Tensor, Tensor]] = []  # pixels, and the classes that may be theirs
    places = [p.flatten() for p in _corners(torch.arange(height * width, device=logits.device).view(height, width))]
    for cells in (~clear).flatten().nonzero()[:, 0].split(CELLS):
        down, right = cells // (width + 1), cells % (width + 1)
        corners = [planes.index_select(1, place.index_select(0, cells)) for place in places]  # four times [K, Q]
        # Of Q cells of m x n pixels: [m, Q] and [n, Q].
        along, across = rows.weights.index_select(1, down), columns.weights.index_select(1, right)
        values = _blended([c[:, None, None] for c in corners], along[:, None], across).flatten(1)
        y, x = rows.pixels.index_select(1, down)[:, None], columns.pixels.index_select(1, right)
        inside, pixels = ((y >= 0) & (x >= 0)).flatten(), (y * size[1] + x).flatten()
        label, leads = _leader(values, OF_BOTH * largest, kind)
        if inside.all():
            flat.index_copy_(0, pixels, label)
        else:
            flat[pixels[inside]] = label[inside]
        left = (inside & ~leads).nonzero()[:, 0]
        place, cell = left // len(cells), left % len(cells)
        weights = along[place // len(across), cell], across[place % len(across), cell]
        values = _blended([c[:, cell].double() for c in corners], *(weight.double() for weight in weights))
        near = values >= values.amax(0) - OF_TORCH * largest
        flat[pixels[left]] = values.argmax(0).to(kind)
        tied = near.sum(0) > 1
        doubtful.append((pixels[left[tied]], near[:, tied].any(1)))
    chosen = torch.cat([pixels for pixels, _ in doubtful] or [flat[:0]])
    if len(chosen):
        contenders = torch.stack([near for _, near in doubtful]).any(0).nonzero()[:, 0]
        # There each class is interpolated by itself; in channels_last several at once.
        if logits.is_contiguous() and not logits.is_contiguous(memory_format=torch.channels_last):
            logits = logits[:, contenders]
        else:
            contenders = torch.arange(classes, device=logits.device)
        exact = _interpolated(logits, size, align_corners)[0].flatten(1)[:, chosen]
        flat[chosen] = contenders[exact.argmax(0)].to(kind)
    return labels[None]


def _interpolated(logits: Tensor, size: Size, align_corners: bool) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def _blended(corners: Sequence[Tensor], along: Tensor, across: Tensor) -> Tensor:
    above_left, above_right, below_left, below_right = corners
    left, up = 1 - across, 1 - along
    above = torch.addcmul(above_left * left, above_right, across)
    below = torch.addcmul(below_left * left, below_right, across)
    return torch.addcmul(above * up, below, along)


def _leader(values: Tensor, margin: float, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of [K, P] the class that is more than `margin` above all others, and whether there is one."""
    bound = values.amax(0) - margin
    label = torch.zeros(bound.shape, dtype=kind, device=values.device)
    count = torch.zeros_like(label)
    for index, value in enumerate(values):
        near = (value >= bound).to(kind)
        count += near
        label.add_(near, alpha=index)
    return label, count == 1


class _Cells(NamedTuple):
    """What lies along an axis between place c - 1 and place c, of cell c; the first and last lie beyond the ends.

    of_pixel: the cell of each pixel. pixels: those of each cell [m, cells], -1 where it has fewer than others. weights:
    of the second place, of each of these pixels.
    """

    of_pixel: Tensor
    pixels: Tensor
    weights: Tensor


def _cells(logits: Tensor, axis: int, length: int, align_corners: bool) -> _Cells:
    """F.interpolate is asked for its own weights: as the values of signals that are 1 at every third place."""
    count, device = logits.shape[axis], logits.device
    signals = F.one_hot(torch.arange(count, device=device) % 3, 3).T.float()  # [3, places]
    probe, size = (signals[None, :, :, None], (length, 1)) if axis == 2 else (signals[None, :, None], (1, length))
    weights = _interpolated(probe, size, align_corners)[0].flatten(1)  # of the places with remainder 0, 1, 2

    pixels = torch.arange(length, dtype=torch.float64, device=device)
    about = pixels * (count - 1) / max(length - 1, 1) if align_corners else (pixels + 0.5) * count / length - 0.5
    largest = weights.argmax(0)
    after_another = weights.gather(0, ((largest + 2) % 3)[None])[0] > 0
    remainder = (largest - after_another.long()) % 3
    first = (remainder + 3 * torch.round((about.clamp(0, count - 1) - 0.5 - remainder) / 3)).long()
    weight = weights.gather(0, ((first + 1) % 3)[None])[0]
    of_pixel = torch.where(about < 0, 0, first + 1)

    cells = torch.arange(count + 1, device=device)
    starts, stops = (torch.searchsorted(of_pixel, cells, right=right) for right in (False, True))
    slots = starts[:, None] + torch.arange(int((stops - starts).max()), device=device)
    return _Cells(of_pixel, torch.where(slots < stops[:, None], slots, -1).T, weight[slots.clamp(max=length - 1)].T)


def _corners(places: Tensor) -> tuple[Tensor, ...]:
    """The four places around each cell [h + 1, w + 1] of [h, w]; beyond the border, those at the border."""
    padded = torch.cat([places[:1], places, places[-1:]])
    padded = torch.cat([padded[:, :1], padded, padded[:, -1:]], dim=1)
    return padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
