"""A model leaves the house: as a file that runs without hrseg, or on a hub, with the proof that it is the same."""

from hrseg.export.command import export
from hrseg.export.deployed import Deployed
from hrseg.export.formats import runner
from hrseg.export.proof import Proof, prove

__all__ = ["Deployed", "Proof", "export", "prove", "runner"]
