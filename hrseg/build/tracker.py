"""The tracker that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from hrseg.config import Config
from hrseg.tracking import Tracker, WandbOptions


def tracker(config: Config, folder: Path, *, start_step: int = 0, validated: int | None = None) -> Tracker:
    """The tracker of a run. start_step, validated: as in Tracker."""
    track = config.track
    wandb = None
    if track.wandb != "disabled":
        name = track.name or folder.name
        wandb = WandbOptions(track.wandb, track.project, track.entity, name, tuple(track.tags), track.checkpoint)
    return Tracker(
        folder, settings=config.to_plain(), tensorboard=track.tensorboard, wandb=wandb,
        start_step=start_step, validated=validated,
    )  # fmt: skip
