"""A model is written to a file and verified there; a file that fails is not kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hrseg.build.trained_model import TrainedModel
from hrseg.errors import ConfigError, HrsegError
from hrseg.export import int8, tensorrt
from hrseg.export.deployable import Deployed, input_type
from hrseg.export.formats import FORMATS
from hrseg.export.onnx_file import SMALLEST
from hrseg.export.verification import LEAST_AGREEMENT, Verification, verification_images, verification_sizes, verify
from hrseg.inference import Size
from hrseg.installed_packages import versions
from hrseg.made_files import require_replaceable
from hrseg.task import Task

IN_8_BITS = ("onnx", "tensorrt")
USUAL_SIZE = (512, 512)  # where training took no crop


class Exported(NamedTuple):
    """A file, the size that it takes (None: any), its verification, with which images, and for int8 its cost."""

    path: Path
    size: Size | None
    verification: Verification
    images: str
    int8_cost: int8.Cost | None = None


def export(
    loaded: TrainedModel,
    out: Path,
    format: str,
    *,
    size: Size | None = None,
    dynamic: bool = False,
    argmax: bool = False,
    normalised: bool = False,
    precision: str = "fp32",
    checkpoint: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a model as a file for its format's own runtime, and its description as JSON beside it.

    The file takes images with stored values, [N, C, H, W], and returns float32 logits [N, K, H, W] at their size.
    size: (height, width) of the images, by default the training crop. dynamic: any number of images of any size from
    64. argmax: class indices instead, uint8 [N, H, W]. normalised: images come normalised, float32. precision: fp32,
    fp16, bf16, or int8 (onnx, tensorrt). checkpoint: where the model comes from, for the metadata.
    Raises HrsegError, and leaves no file, where the file does not answer as the model does: below 99.99 % equal class
    indices, 99.9 % in fp16, 99.5 % in bf16; or where int8 costs more than 0.5 points of mean IoU.
    """
    target = FORMATS[format]
    if dynamic and size and min(size) < SMALLEST:
        raise ConfigError(f"--size {size[0]}x{size[1]}", f"sides need at least {SMALLEST} pixels.")
    height, width = size or loaded.config.augment.crop or USUAL_SIZE
    size = (max(height, SMALLEST), max(width, SMALLEST)) if dynamic else (height, width)
    if out.suffix != target.ending:
        raise ConfigError(f"--out {out}", f"a file of {format} ends in {target.ending}.")
    for path in (out, description_path(out)):
        require_replaceable(path)
    if precision not in (*target.precisions, *(["int8"] if format in IN_8_BITS else [])):
        known = ", ".join(name for name, f in FORMATS.items() if precision in f.precisions) or ", ".join(IN_8_BITS)
        raise ConfigError(f"--format {format}", f"its runtime has no {precision}.", f"Formats that have it: {known}.")
    if format == "tensorrt":
        tensorrt.require_tensorrt()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out.parent)
    except OSError as error:
        raise HrsegError(
            out.parent, f"cannot be written: {error.strerror}.", "Choose another place with --out."
        ) from error
    # OpenVINO halves the weights when it writes them; the others run a network of that precision.
    inside = precision if precision in ("fp16", "bf16") and format != "openvino" else "fp32"
    module = Deployed(loaded, argmax=argmax, normalised=normalised, precision=inside).eval()
    dtype = input_type(loaded, normalised)
    metadata = describe(loaded, module, dtype, format, precision, None if dynamic else size, checkpoint)
    with folder as unverified:
        path, cost = Path(unverified) / out.name, None
        example = torch.zeros(2 if dynamic else 1, loaded.normalisation.channels, *size).to(dtype)
        try:
            if precision == "int8" and format == "tensorrt":
                cost = tensorrt.write_engine(partial(int8.write_int8, loaded), module, example, path, dynamic, metadata)
            elif precision == "int8":
                cost = int8.write_int8(loaded, module, example, path, dynamic, metadata)
            else:
                target.write(module, example, path, dynamic, metadata)
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()[0]
            raise HrsegError(format, f"cannot express this network: {reason}", _way_out(dynamic)) from error
        images, what = verification_images(loaded, input_type(loaded), verification_sizes(size, dynamic))
        verification = verify(loaded, target.run(path), images, argmax=argmax, normalised=normalised)
        if cost is not None and cost.lost > int8.MOST_COST:
            raise HrsegError(out, f"is not written: {cost}, allowed are {100 * int8.MOST_COST}.", "Use --half.")
        if cost is None and not verification.agreement >= LEAST_AGREEMENT[precision]:
            least = 100 * LEAST_AGREEMENT[precision]
            raise HrsegError(out, f"is not written: {verification} ({what}); {precision} needs {least:g} %.")
        figures = {"images": what, **asdict(verification), "cost": cost and cost._asdict()}
        description_path(path).write_text(json.dumps({**metadata, "proof": figures}, indent=1), encoding="utf-8")
        for written in Path(unverified).iterdir():
            written.replace(out.with_name(written.name))
    return Exported(out, None if dynamic else size, verification, what, cost)


def _way_out(dynamic: bool) -> str:
    return "Try another format, or one size of images: --fixed." if dynamic else "Try another format."


def describe(
    loaded: TrainedModel,
    module: Deployed,
    dtype: torch.dtype,
    format: str,
    precision: str,
    size: Size | None,
    checkpoint: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What someone needs to know who has only the file."""
    space, channels = loaded.space, loaded.normalisation.channels
    one_a_label = space.task is Task.MULTILABEL
    name, kind = ("labels", module.label_type) if module.argmax else ("logits", torch.float32)
    layout = ("N H W" if not one_a_label else "N L H W") if module.argmax else "N K H W"
    return {
        "format": format,
        "precision": precision,
        "task": space.task.value,
        "classes": list(space.names),
        "palette": [list(c.color) for c in space.classes],
        "ignore_index": space.ignore_index,
        "threshold": None if space.task is Task.MULTICLASS else loaded.threshold,
        "input": {"name": "image", "type": _name(dtype), "layout": "N C H W", "channels": channels},
        "output": {"name": name, "type": _name(kind), "layout": layout},
        "size": {"fixed": size, "least": None if size else SMALLEST, "padded_inside_to_multiple_of": module.multiple},
        "normalisation": {"inside": not module.normalised, **loaded.normalisation.to_plain()},
        "checkpoint": dict(checkpoint) if checkpoint else None,
        "versions": versions(),
    }


def description_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
