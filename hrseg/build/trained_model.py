"""A model out of a checkpoint of any family, with all that it needs to be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hrseg import build, weights
from hrseg import config as settings
from hrseg.config import Config
from hrseg.data.loader import Normalise
from hrseg.errors import ConfigError, WeightsError
from hrseg.inference import Ensemble
from hrseg.task import IMAGENET_MEAN, IMAGENET_STD, LabelSpace, Normalisation, Task
from hrseg.weights import checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A model out of a checkpoint. classes_assumed: the file counts its classes and has no names for them.

    images: number and checksum of the names of its training and validation images, if the file tells.
    threshold: above which probability a pixel of a binary or multilabel task is a yes; 0.5 where the file says nothing.
    """

    model: nn.Module
    space: LabelSpace
    normalisation: Normalisation
    config: Config
    step: int
    classes_assumed: bool = False
    images: Mapping[str, Any] | None = None
    threshold: float = 0.5


def load_trained_model(
    source: str | Path, *, trust_code: bool = False, fallback: Callable[[], tuple[Config, LabelSpace]] | None = None
) -> TrainedModel:
    """The model of a checkpoint, in evaluation mode on the CPU, with the weights that count: averaged ones come first.

    source: a file of hrseg or of any family that `hrseg.weights` knows, a hub id or an address. trust_code: obey dotted
    paths (code outside hrseg) that the checkpoint's settings name. fallback: settings and classes of the model, for a
    file that says nothing of the architecture and is not recognised by its tensors.
    Raises WeightsError, also where a dotted path is named and not trusted.
    """
    content = weights.read_checkpoint(source)
    beside = content.beside
    if not isinstance(beside.get("config"), Mapping) or "normalisation" not in beside:
        try:
            return _of_another_family(content)
        except WeightsError:
            if fallback is None:
                raise
            return _as_set(content, *fallback())
    if beside.get("classes") is None:
        raise WeightsError(
            source, "is not a segmentation model: it has no classes.", "tools/convert.py --inspect names it."
        )
    checkpoint.require_readable(beside, source)
    config = settings.parse(beside["config"], where=str(source))
    outside = build.dotted_paths(config)
    if outside and not trust_code:
        raise WeightsError(source, f"names code outside hrseg: {', '.join(outside)}.", "If you trust it: --trust-code.")
    try:
        space = LabelSpace.from_plain(beside)
        normalisation = Normalisation.from_plain(beside["normalisation"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        what = f"its classes, task or normalisation are of no known kind: {error}."
        raise WeightsError(source, what, "Was it changed by hand?") from None
    threshold = beside.get("threshold")
    if threshold is not None and not (isinstance(threshold, float) and 0 < threshold < 1):
        raise WeightsError(source, f"its threshold is {threshold!r}, not between 0 and 1.", "Was it changed by hand?")
    model = build.model(config, space, normalisation.channels, pretrained=False)
    checkpoint.load_weights(model, content.tensors, source)
    images = beside.get("data")
    step = beside.get("step") or 0
    return TrainedModel(model.eval(), space, normalisation, config, step, images=images, threshold=threshold or 0.5)


def load_trained_models(
    sources: Sequence[str | Path],
    *,
    trust_code: bool = False,
    fallback: Callable[[], tuple[Config, LabelSpace]] | None = None,
) -> list[TrainedModel]:
    """Checkpoints whose answers are averaged.

    fallback: as in `load_trained_model`.
    Raises WeightsError where one has other classes, another task or takes other images than the first.
    """
    loaded = [load_trained_model(source, trust_code=trust_code, fallback=fallback) for source in sources]
    first = loaded[0]
    for source, other in zip(sources[1:], loaded[1:], strict=True):
        ranges = (other.normalisation.input_range, first.normalisation.input_range)
        if (other.space.names, other.space.task) != (first.space.names, first.space.task):
            differs = f": {difference(other.space, str(source), first.space, str(sources[0]))}"
            what = f"has other classes than {sources[0]}{differs}."
            raise WeightsError(source, what, "Average models of the same classes.")
        if ranges[0] != ranges[1]:
            what = f"takes {_values(ranges[0])}, but {sources[0]} takes {_values(ranges[1])}."
            raise WeightsError(source, what, "Average models of the same images.")
    return loaded


def chosen_threshold(loaded: Sequence[TrainedModel], given: float | None = None) -> float:
    """The threshold that is used: the given one, else the checkpoints' own, of several the mean.

    Raises ConfigError where one is given for a multiclass task.
    """
    if given is None:
        return sum(one.threshold for one in loaded) / len(loaded)
    if loaded[0].space.task is Task.MULTICLASS:
        what = "is for binary and multilabel tasks; of several classes, the most probable one is taken."
        raise ConfigError("--threshold", what, "Leave it out.")
    return given


def _values(input_range: tuple[tuple[float, float], ...]) -> str:
    ranges = ", ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in input_range))
    return f"{len(input_range)} channels of {ranges}"


def ensemble(loaded: Sequence[TrainedModel]) -> Ensemble:
    """One model of raw images out of several, or out of one, on the CPU."""
    normalise = [Normalise(one.normalisation) for one in loaded]
    return Ensemble([one.model for one in loaded], normalise, loaded[0].space.task)


def difference(one: LabelSpace, where: str, other: LabelSpace, elsewhere: str) -> str:
    """In what two sets of classes differ, e.g. "class 1 is 'crate' in the data set, 'box' in the checkpoint"."""
    if one.task != other.task:
        return f"{where} is {one.task.value}, {elsewhere} {other.task.value}"
    if sorted(one.names) == sorted(other.names):
        orders = f"{', '.join(one.names)} in {where}, {', '.join(other.names)} in {elsewhere}"
        return f"the same names in another order: {orders}"
    if len(one.names) == len(other.names):
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(one.names, other.names, strict=True)) if a != b]
        named = [f"class {i} is '{a}' in {where}, '{b}' in {elsewhere}" for i, a, b in pairs[:3]]
        return "; ".join(named) + (f"; and {len(pairs) - 3} more" if len(pairs) > 3 else "")
    alone = {w: [n for n in a.names if n not in b.names] for w, a, b in ((where, one, other), (elsewhere, other, one))}
    only = [f"only in {w}: {', '.join(names[:5])}" for w, names in alone.items() if names]
    return "; ".join([f"{len(one.names)} in {where}, {len(other.names)} in {elsewhere}", *only])


def _as_set(content: weights.Checkpoint, config: Config, space: LabelSpace) -> TrainedModel:
    """A file without settings in the model that the settings describe, all of it."""
    channels = len(config.data.mean) if config.data.mean else 3
    usual = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
    mean, std = (tuple(given or known) for given, known in zip((config.data.mean, config.data.std), usual, strict=True))
    model = build.model(config, space, channels, pretrained=False)
    weights.load(model, content, complete=True)
    normalisation = Normalisation(mean, std, build.input_ranges(config, channels, np.dtype(np.uint8)))
    text = f"mean {' '.join(f'{v:g}' for v in mean)}, std {' '.join(f'{v:g}' for v in std)}"
    log.warning(
        f"to decide: the normalisation is not in {content.source}. Assumed: {text}, or as data.mean and data.std say."
    )
    return TrainedModel(model.eval(), space, normalisation, config, 0)


def _of_another_family(content: weights.Checkpoint) -> TrainedModel:
    found = weights.inspect(content)
    if found.space is None:
        what = f"is not a segmentation model: {found.family.about}, {found.architecture}."
        raise WeightsError(content.source, what, "Train on it: model.weights, model.encoder_weights.")
    model = weights.build_model(found)
    log.info(f"{content.source}: {found.family.name}, {found.architecture} over {found.encoder}, {found.report}")
    for question in found.questions:
        log.warning(f"to decide: {question}")
    config = settings.parse(weights.checkpoint_settings(found)["config"], where=content.source)
    assumed = any("no names in the file" in question for question in found.questions)
    return TrainedModel(model, found.space, found.normalisation, config, 0, assumed)
