"""Exports a model: as a verified file that runs without hrseg, or to the Hugging Face hub."""

from hrseg.export.deployable import Deployed
from hrseg.export.exporting import export
from hrseg.export.formats import runner
from hrseg.export.verification import Verification, verify

__all__ = ["Deployed", "Verification", "export", "runner", "verify"]
