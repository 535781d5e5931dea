"""Weights from files into models, with a report of what went where."""

from hrseg.weights.load import Report, load, read

__all__ = ["Report", "load", "read"]
