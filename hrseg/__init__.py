"""hrseg: semantic segmentation with HRNet. Importing it registers its encoders and architectures with smp."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations otherwise asks the package index on import

from hrseg import losses, metrics, models, weights
from hrseg.models import HRNetV2
from hrseg.version import __version__

models.register()

__all__ = ["HRNetV2", "__version__", "losses", "metrics", "models", "weights"]
