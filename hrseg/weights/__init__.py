"""Weights from files of any family into models, with a report of what went where, and back."""

from hrseg.weights.families import FAMILIES, Family
from hrseg.weights.load import Found, Report, build_model, inspect, load
from hrseg.weights.save import save
from hrseg.weights.source import Checkpoint, read

__all__ = ["FAMILIES", "Checkpoint", "Family", "Found", "Report", "build_model", "inspect", "load", "read", "save"]
