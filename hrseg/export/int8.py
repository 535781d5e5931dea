"""An ONNX file with 8-bit convolutions, by explicit quantise and dequantise nodes, and what they cost in mean IoU."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg import build
from hrseg.build.trained_model import TrainedModel
from hrseg.data.loader import Normalise
from hrseg.data.resize import resize
from hrseg.export.deployable import Deployed
from hrseg.export.formats import FORMATS, Runner, import_optional
from hrseg.export.onnx_file import quiet
from hrseg.inference import Inference, Size
from hrseg.metrics import ConfusionMatrix, scores
from hrseg.task import Task

CALIBRATION_IMAGES = 64
MOST_COST = 0.005  # of mean IoU


class Cost(NamedTuple):
    """Mean IoU on the validation set of the file in float32 and in 8 bits."""

    fp32: float
    int8: float

    @property
    def lost(self) -> float:
        return self.fp32 - self.int8

    def __str__(self) -> str:
        figures = f"mIoU {100 * self.fp32:.2f} in fp32, {100 * self.int8:.2f} in int8"
        return f"{figures} on the validation set: {100 * self.lost:.2f} points lost"


def write_int8(
    loaded: TrainedModel, module: Deployed, example: Tensor, path: Path, dynamic: bool, metadata: Mapping[str, Any]
) -> Cost:
    """Write the file, calibrated on training images, and score it on the validation images.

    Symmetric int8 with a scale for each output channel of a weight, biases in float: onnxruntime and TensorRT both take
    this. Raises DataError where the data set is not there.
    """
    quantization = import_optional("onnxruntime.quantization", "export")
    size = None if dynamic else (example.shape[-2], example.shape[-1])
    dataset = build.dataset_for_model(loaded.config, loaded.config.data.train_split, loaded.normalisation)
    images = _images(loaded, dataset, module, example.dtype, size, CALIBRATION_IMAGES)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            image, _ = next(images, (None, None))
            return None if image is None else {"image": image.numpy()}

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain, fused = Path(folder) / "fp32.onnx", Path(folder) / "fused.onnx"
        FORMATS["onnx"].write(module, example, plain, dynamic, metadata)
        with quiet():
            quantization.quant_pre_process(plain, fused, skip_symbolic_shape=True)  # folds batch norm into convolutions
            quantization.quantize_static(
                fused,
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,  # weights in 7 bits: sums of 8-bit products overflow on CPUs without VNNI
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )
        _copy_metadata(plain, path)
        return Cost(*(_miou(FORMATS["onnx"].run(file), loaded, module, example.dtype, size) for file in (plain, path)))


def _images(
    loaded: TrainedModel, dataset: Any, module: Deployed, dtype: torch.dtype, size: Size | None, most: int | None = None
) -> Iterator[tuple[Tensor, np.ndarray | None]]:
    """Images [1, C, H, W] in the form that the file takes, evenly spread over a data set, and their targets."""
    normalise = Normalise(loaded.normalisation) if module.normalised else nn.Identity()
    count = min(len(dataset), most or len(dataset))
    for place in range(count):
        image, target, _ = dataset[place * len(dataset) // count]
        image = image if size is None else resize(image, size)
        values = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).unsqueeze(0)
        yield normalise(values).to(dtype), target


@torch.inference_mode()
def _miou(run: Runner, loaded: TrainedModel, module: Deployed, dtype: torch.dtype, size: Size | None) -> float:
    space, config = loaded.space, loaded.config
    dataset = build.dataset_for_model(config, config.data.val_split, loaded.normalisation)
    definition = str(config.eval.definition or dataset.definition)
    total = ConfusionMatrix(len(space.classes), space.ignore_index, multilabel=space.task is Task.MULTILABEL)
    for image, target in _images(loaded, dataset, module, dtype, size):
        if target is not None:
            answer = run(image)
            labels = answer if module.argmax else Inference(space.task, threshold=loaded.threshold).labels(answer)
            planes = labels.view(1, -1, *image.shape[-2:]).float()
            labels = F.interpolate(planes, target.shape[-2:], mode="nearest-exact").to(labels.dtype)
            total.update(labels.view(target.shape), torch.from_numpy(target))
    return scores(total.compute(), space, definition).miou


def _copy_metadata(source: Path, path: Path) -> None:
    onnx = import_optional("onnx", "export")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {p.key: p.value for p in onnx.load(source).metadata_props})
    onnx.save(model, path)
