"""Loads a checkpoint into an existing model: all of it, or an error that names what does not fit."""

from __future__ import annotations

from torch import nn

from hrseg.errors import WeightsError
from hrseg.models.encoder import ExtraChannels
from hrseg.weights.matching import match_tensors, recognise_family
from hrseg.weights.report import Report
from hrseg.weights.source import Checkpoint, Source, read_checkpoint


def load(
    model: nn.Module,
    source: Source | Checkpoint,
    *,
    family: str | None = None,
    encoder_only: bool = False,
    complete: bool = False,
    extra_channels: ExtraChannels = "tile",
) -> Report:
    """Copy a checkpoint of any family into a model.

    source: as in `read_checkpoint`, or what it returned; "#encoder" at its end means encoder_only. family: a name of
    FAMILIES, where the names of the tensors mislead. encoder_only: leave the file's head out. A head with other classes
    keeps its initial values, and so does any head if the file has none. The first convolution of a file for images of
    another number of channels is adapted by `with_input_channels`, with extra_channels. The report names all of these.
    complete: none of that; all tensors must fit.
    Raises WeightsError, naming the tensors, where part of the encoder does not fit or the file's head is not the
    model's.
    """
    if isinstance(source, str) and source.endswith("#encoder"):
        source, encoder_only = source.removesuffix("#encoder"), True
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    reading = recognise_family(checkpoint, family, model.state_dict().keys())
    tensors, report = match_tensors(
        model, checkpoint, reading, encoder_only=encoder_only, strict=complete, extra_channels=extra_channels
    )
    if not report.fits or not tensors:
        alone = "" if encoder_only else ", or load the encoder alone: encoder_only=True, in YAML FILE#encoder"
        raise WeightsError(
            checkpoint.source,
            f"does not fit the model: {report}.",
            f"tools/convert.py FILE --inspect says which architecture and encoder it belongs to; choose these{alone}.",
        )
    model.load_state_dict({**model.state_dict(), **tensors})
    return report
