"""hrseg: semantic segmentation with HRNet. Importing it registers its encoders and architectures with smp."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations otherwise asks the package index on import

from hrseg import losses, metrics, models, weights
from hrseg.models import HRNetV2, HRNetV2p, OCRNet, PoseHRNet
from hrseg.version import __version__

models.register()

__all__ = ["HRNetV2", "HRNetV2p", "OCRNet", "PoseHRNet", "__version__", "losses", "metrics", "models", "weights"]
