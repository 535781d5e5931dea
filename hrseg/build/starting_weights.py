"""The checkpoint that a new run starts from, `model.weights`: what model it is of, and its weights."""

from __future__ import annotations

import contextlib
import logging
import re

from torch import nn

from hrseg import weights
from hrseg.config import Config
from hrseg.errors import ConfigError, WeightsError
from hrseg.weights import IdentifiedCheckpoint

log = logging.getLogger(__name__)

ENCODER_ALONE = "#encoder"
INTERPOLATION = re.compile("_(nearest|ac)$")  # of an encoder's name: it changes no tensor


class StartingWeights:
    """The content of `model.weights`, read once. Raises WeightsError where it cannot be read."""

    def __init__(self, source: str):
        self.source = source.removesuffix(ENCODER_ALONE)
        self.encoder_only = source.endswith(ENCODER_ALONE)
        self.content = weights.read_checkpoint(self.source)
        self.found: IdentifiedCheckpoint | None = None
        with contextlib.suppress(WeightsError):  # no family's: its names may be those of the model that is set
            self.found = weights.inspect(self.content)

    @property
    def has_head(self) -> bool:
        return self.found is not None and self.found.space is not None and not self.encoder_only

    def completed(self, config: Config) -> Config:
        """The settings with the architecture and the encoder of the file, where they are not set."""
        found, model = self.found, config.model
        if found is None:
            return config
        taken = {}
        if "encoder" not in model.model_fields_set:
            taken["encoder"] = _encoder(found)
        if self.has_head and "arch" not in model.model_fields_set:
            options = found.options | ({"align_corners": True} if found.align_corners else {})
            taken |= {k: v for k, v in options.items() if k not in model.options} | {"arch": found.architecture}
        if not taken:
            return config
        log.info(f"from {self.source}: {', '.join(f'model.{name}={value}' for name, value in taken.items())}")
        completed = type(model)(**{**model.model_dump(exclude_unset=True), **taken})
        return config.model_copy(update={"model": completed})

    def load_into(self, network: nn.Module, config: Config) -> None:
        """Load the weights. Raises ConfigError that names the settings under which they fit."""
        try:
            report = weights.load(
                network, self.content, encoder_only=self.encoder_only, extra_channels=config.model.extra_channels
            )
        except WeightsError as error:
            raise self._explained(config) or error from None
        log.info(str(report))

    def _explained(self, config: Config) -> ConfigError | None:
        """What to set instead, where the file is of another encoder or architecture than the settings."""
        found, model = self.found, config.model
        if found is None or not found.report.fits:
            return None
        right = {}
        if INTERPOLATION.sub("", found.encoder) != INTERPOLATION.sub("", model.encoder):
            right["encoder"] = _encoder(found)
        if self.has_head and found.architecture != model.arch:
            right["arch"] = found.architecture
        if not right:
            return None
        are = " and ".join(f"model.{name} is {getattr(model, name)}" for name in right)
        what = f"{are}, but {self.source} holds {found.architecture} over {found.encoder}."
        way_out = f"Set {' '.join(f'model.{name}={value}' for name, value in right.items())}"
        if self.has_head and "encoder" not in right:
            way_out += f", or take its encoder alone: model.weights={self.source}{ENCODER_ALONE}"
        return ConfigError("model.weights", what, f"{way_out}.")


def _encoder(found: IdentifiedCheckpoint) -> str:
    """The encoder to set: after ImageNet a bilinear one, as in the reference recipe."""
    return found.encoder.removesuffix("_nearest") if found.family.name == "imagenet" else found.encoder
