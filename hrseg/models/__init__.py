"""Encoders and architectures, in segmentation_models_pytorch's style."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import nn

from hrseg.models import encoder, hrnetv2, ocrnet
from hrseg.models.detection import HRNetV2p
from hrseg.models.hrnetv2 import HRNetV2
from hrseg.models.ocrnet import OCRNet
from hrseg.models.pose import PoseHRNet

__all__ = ["ARCHITECTURES", "HRNetV2", "HRNetV2p", "OCRNet", "PoseHRNet", "register"]


def register() -> None:
    """Add hrseg's encoders and architectures to smp (twice is harmless). Raises RuntimeError if a name is taken."""
    encoder.register()
    hrnetv2.register()
    ocrnet.register()


# Every architecture by the name that YAML and smp.create_model use: smp's, and hrseg's own.
ARCHITECTURES: dict[str, type[nn.Module]] = {
    **smp.MODEL_ARCHITECTURES_MAPPING,
    "hrnetv2": HRNetV2,
    "ocrnet": OCRNet,
}
