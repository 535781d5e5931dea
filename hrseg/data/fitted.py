"""A data set whose images are brought to what a model, or the training split, takes."""

from __future__ import annotations

import logging

import numpy as np

from hrseg.data.dataset import Dataset, WrappedDataset
from hrseg.data.image_checks import some_images, value_bounds
from hrseg.data.images import ImageKind
from hrseg.data.images.kinds import channel_notes, is_grey, may_have_channels, with_channels
from hrseg.data.images.value_scale import ValueScale, value_scale
from hrseg.data.pairs import Pairs
from hrseg.errors import DataError, HrsegError
from hrseg.task import Normalisation, Sample

log = logging.getLogger(__name__)


class FittedDataset(WrappedDataset):
    """A data set whose images have the channels and the range of values that a model takes."""

    def __init__(self, whole: Dataset, channels: int, scale: ValueScale):
        super().__init__(whole)
        self.channels, self.scale = channels, scale

    def over(self, whole: Dataset) -> FittedDataset:
        """The same over another form of its data set: out of the cache."""
        return FittedDataset(whole, self.channels, self.scale)

    def __getitem__(self, i: int) -> Sample:
        sample = self.whole[i]
        image, _ = with_channels(sample.name, sample.image, False, self.channels)
        return sample._replace(image=np.ascontiguousarray(self.scale(image)))

    def open_sample(self, i: int) -> Sample:
        return self[i]

    def read_valid_image(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        image, valid = self.whole.read_valid_image(i)
        image, _ = with_channels(self.names[i], image, False, self.channels)
        return self.scale(image), valid


def fitted(dataset: Dataset, normalisation: Normalisation, what: str, owner: str = "the model") -> Dataset:
    """The data set as a model with this normalisation takes it: itself, where it already is. What is done is logged.

    what, owner: the images, and what they are brought to, in messages. Raises DataError, which names both sides, where
    channels differ or it is not certain what the values mean.
    """
    kind = image_kind(dataset)
    if kind is None:  # the check, or the reading of the first sample, will say why
        return dataset
    channels = normalisation.channels
    read_with_channels(dataset, channels, what, owner)
    scale = value_scale(what, kind.dtype, lambda: value_bounds(dataset), normalisation, owner)
    notes = [*channel_notes(kind.channels, False, channels), *([scale.note] if scale.note else [])]
    if notes:
        log.info(f"{what}: {'; '.join(notes)}")
    given = kind.channels if dataset.in_channels is None else dataset.in_channels
    return dataset if scale.factor is None and given == channels else FittedDataset(dataset, channels, scale)


def image_kind(dataset: Dataset) -> ImageKind | None:
    """Channels and type of the images; by the first sample, where the data set does not say; None: it is unreadable."""
    try:
        channels, dtype = dataset.in_channels, dataset.image_type()
        if channels is None or dtype is None:
            image = dataset[0].image
            channels, dtype = channels or image.shape[2], dtype or image.dtype
    except HrsegError:
        return None
    return ImageKind(channels, np.dtype(dtype))


def read_with_channels(dataset: Dataset, wanted: int, what: str, owner: str = "the model") -> None:
    """Have files read with the channels that are wanted. Raises DataError where they do not have them.

    what, owner: as in `fitted`.
    """
    kind = image_kind(dataset)
    if kind is None or kind.channels == wanted:
        return
    layers = [dataset]
    while isinstance(layers[-1], WrappedDataset):
        layers.append(layers[-1].whole)
    files = layers[-1]
    alpha = isinstance(files, Pairs) and files.common_kind().alpha
    if not may_have_channels(kind.channels + alpha, alpha, wanted):
        raise DataError(what, f"are {kind}; {owner} takes {wanted}.", "Bring them to the same channels.")
    if (kind.channels, wanted) == (3, 1) and not all(is_grey(image) for image, _ in some_images(dataset)):
        raise DataError(what, f"have 3 channels with colours; {owner} takes 1.", "Save them as grey images.")
    if isinstance(files, Pairs):
        for layer in layers:
            layer.in_channels = wanted
