"""hrseg: semantic segmentation with HRNet. Importing it registers its encoders and architectures with smp."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations otherwise asks the package index on import

from hrseg import losses, metrics, models, weights
from hrseg.models import HRNetV2, HRNetV2p, OCRNet, PoseHRNet
from hrseg.models.optimize import optimize
from hrseg.version import __version__

if TYPE_CHECKING:
    from hrseg.engine.predictor import Predictor

models.register()

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


def __getattr__(name: str) -> Any:
    if name == "Predictor":  # brings what reads data sets and evaluates: only when it is asked for
        from hrseg.engine.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'hrseg' has no attribute '{name}'")
