"""hrseg: semantic segmentation with HRNet. Importing it registers its encoders and architectures with smp."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations otherwise asks the package index on import

from hrseg import registration
from hrseg.version import __version__

if TYPE_CHECKING:
    from hrseg import losses, metrics, models, weights
    from hrseg.fast.optimize import optimize
    from hrseg.models import HRNetV2, HRNetV2p, OCRNet, PoseHRNet
    from hrseg.predict.predictor import Predictor

__all__ = [
    "HRNetV2",
    "HRNetV2p",
    "OCRNet",
    "PoseHRNet",
    "Predictor",
    "__version__",
    "losses",
    "metrics",
    "models",
    "optimize",
    "weights",
]

# Where each name comes from. They are imported when they are asked for: torch, smp and timm take seconds.
_MODULES = {"Predictor": "hrseg.predict.predictor", "optimize": "hrseg.fast.optimize"}
_MODULES |= dict.fromkeys(("HRNetV2", "HRNetV2p", "OCRNet", "PoseHRNet"), "hrseg.models")

registration.register_with_smp()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in __all__:
        return importlib.import_module(f"hrseg.{name}")
    raise AttributeError(f"module 'hrseg' has no attribute '{name}'")
