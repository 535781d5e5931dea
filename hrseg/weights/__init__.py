"""Loads weights of any family into models, with a report of what went where, and saves them for any family."""

from hrseg.weights.families import FAMILIES, Family
from hrseg.weights.identify import IdentifiedCheckpoint, build_model, checkpoint_settings, inspect
from hrseg.weights.load import load
from hrseg.weights.report import Report
from hrseg.weights.save import save
from hrseg.weights.source import Checkpoint, read_checkpoint

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "Family",
    "IdentifiedCheckpoint",
    "Report",
    "build_model",
    "checkpoint_settings",
    "inspect",
    "load",
    "read_checkpoint",
    "save",
]
