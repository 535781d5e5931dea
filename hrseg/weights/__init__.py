"""Weights from files of any family into models, with a report of what went where, and back."""

from hrseg.weights.families import FAMILIES, Family
from hrseg.weights.identify import Found, build_model, inspect, settings_of
from hrseg.weights.load import load
from hrseg.weights.report import Report
from hrseg.weights.save import save
from hrseg.weights.source import Checkpoint, read

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "Family",
    "Found",
    "Report",
    "build_model",
    "inspect",
    "load",
    "read",
    "save",
    "settings_of",
]
