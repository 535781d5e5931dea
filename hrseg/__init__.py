"""hrseg: semantic segmentation with HRNet."""

from hrseg.version import __version__

__all__ = ["__version__"]
