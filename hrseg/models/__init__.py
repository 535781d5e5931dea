"""Encoders and architectures, in the style of segmentation_models_pytorch."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import nn

from hrseg.models import encoder
from hrseg.models.c1 import C1
from hrseg.models.detection import HRNetV2p
from hrseg.models.hrnetv2 import HRNetV2
from hrseg.models.ocrnet import OCRNet
from hrseg.models.pose import PoseHRNet

__all__ = ["ARCHITECTURES", "C1", "HRNetV2", "HRNetV2p", "OCRNet", "PoseHRNet", "register"]

OWN_ARCHITECTURES: dict[str, type[nn.Module]] = {"hrnetv2": HRNetV2, "ocrnet": OCRNet, "c1": C1}
# Every architecture by the name that YAML and smp.create_model use: smp's, and hrseg's own.
ARCHITECTURES: dict[str, type[nn.Module]] = {**smp.MODEL_ARCHITECTURES_MAPPING, **OWN_ARCHITECTURES}


def register() -> None:
    """Add hrseg's encoders and architectures to smp, so that smp.create_model and smp.from_pretrained know them.

    Twice is harmless. Raises RuntimeError where smp has another piece of one of the names.
    """
    encoder.register()
    for name, cls in OWN_ARCHITECTURES.items():
        for other in (smp.MODEL_ARCHITECTURES_MAPPING.get(name), getattr(smp, cls.__name__, None)):
            if other is not None and not encoder.is_same_class(other, cls):
                raise RuntimeError(
                    f"smp already has an architecture {cls.__name__}, {other.__module__}.{other.__qualname__}: "
                    "hrseg cannot register its own."
                )
        smp.MODEL_ARCHITECTURES_MAPPING[name] = cls
        setattr(smp, cls.__name__, cls)


register()
