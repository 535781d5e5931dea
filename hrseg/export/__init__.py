"""A model leaves the house: as a file that runs without hrseg, or on a hub, with the proof that it is the same."""

from hrseg.export.deployable import Deployed
from hrseg.export.exporting import export
from hrseg.export.formats import runner
from hrseg.export.verification import Verification, verify

__all__ = ["Deployed", "Verification", "export", "runner", "verify"]
