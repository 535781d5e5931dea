"""The values that classes have in masks of the data set a model was trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hrseg.errors import ConfigError
from hrseg.task import LabelSpace, Task

LARGEST = 65535  # of a PNG


class LabelIds(NamedTuple):
    """table: the value of each class index and of `LabelSpace.nodata_index`, uint8 or uint16. nodata: that value."""

    table: np.ndarray
    nodata: int


def label_ids(space: LabelSpace) -> LabelIds:
    """The values of the classes. Pixels without data are 255 or 65535, or the next lower value that is no class.

    Raises ConfigError where the values are not known, or do not fit into a mask.
    """
    where = "--ids labels"
    if space.task is Task.MULTILABEL:
        raise ConfigError(where, "of overlapping labels each has a mask of its own, 0 and 1.", "Leave it out.")
    ids = [c.id for c in space.classes if c.id is not None]
    if len(ids) < len(space.classes):
        what = "the checkpoint does not say which values its classes have in the data set's masks."
        raise ConfigError(where, what, "Checkpoints of earlier versions and other projects lack them: --ids indices.")
    if min(ids) < 0 or max(ids) > LARGEST:
        raise ConfigError(where, f"a class has the value {min(ids) if min(ids) < 0 else max(ids)}, which no PNG holds.")
    highest = 255 if max(ids) <= 255 else LARGEST
    nodata = next(value for value in range(highest, -1, -1) if value not in ids)
    table = np.full(space.nodata_index + 1, nodata, np.uint8 if highest == 255 else np.uint16)
    table[: len(ids)] = ids
    return LabelIds(table, nodata)
