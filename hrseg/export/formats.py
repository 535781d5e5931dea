"""The export formats: how each file is written, where its metadata lies, and how its own runtime runs it."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrseg.errors import HrsegError
from hrseg.export.deployable import Deployed
from hrseg.export.onnx_file import dynamic_dimensions, quiet, to_onnx
from hrseg.export.tensorrt import run_engine, write_engine
from hrseg.fast.engines import openvino_core

METADATA = "hrseg"  # the name of the metadata inside a file; it is JSON
Runner = Callable[[Tensor], Tensor]


def _write_onnx(module: Deployed, example: Tensor, path: Path, dynamic: bool, metadata: Mapping[str, Any]) -> None:
    plain = {METADATA: json.dumps(metadata)}
    to_onnx(module, example, path, dynamic=dynamic, output=metadata["output"]["name"], metadata=plain)


def _write_openvino(module: Deployed, example: Tensor, path: Path, dynamic: bool, metadata: Mapping[str, Any]) -> None:
    openvino = import_optional("openvino", "export,openvino")
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "model.onnx"
        _write_onnx(module, example, between, dynamic, metadata)
        model = openvino.convert_model(between)
        model.set_rt_info(json.dumps(metadata), METADATA)
        openvino.save_model(model, path, compress_to_fp16=metadata["precision"] == "fp16")


def _write_tensorrt(module: Deployed, example: Tensor, path: Path, dynamic: bool, metadata: Mapping[str, Any]) -> None:
    write_engine(_write_onnx, module, example, path, dynamic, metadata)


def _write_torch_export(
    module: Deployed, example: Tensor, path: Path, dynamic: bool, metadata: Mapping[str, Any]
) -> None:
    with quiet():
        program = torch.export.export(module, (example,), dynamic_shapes=(dynamic_dimensions(),) if dynamic else None)
        torch.export.save(program, path, extra_files={f"{METADATA}.json": json.dumps(metadata)})


def _write_torchscript(
    module: Deployed, example: Tensor, path: Path, dynamic: bool, metadata: Mapping[str, Any]
) -> None:
    with quiet():  # a trace keeps the size of its example; a script only works for networks written for it
        script = torch.jit.script(module) if dynamic else torch.jit.trace(module, example)
        torch.jit.save(script, str(path), _extra_files={f"{METADATA}.json": json.dumps(metadata)})


def _run_onnx(path: Path) -> Runner:
    runtime = import_optional("onnxruntime", "export")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _run_openvino(path: Path) -> Runner:
    import_optional("openvino", "export,openvino")
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: torch.from_numpy(compiled(image.numpy())[0].copy())


def _run_torch_export(path: Path) -> Runner:
    return torch.export.load(path).module()


def _run_torchscript(path: Path) -> Runner:
    with quiet():
        return torch.jit.load(str(path))


class Format(NamedTuple):
    """A file's ending, the network's precisions that its runtime has, its writer and its runtime."""

    ending: str
    precisions: tuple[str, ...]
    write: Callable[[Deployed, Tensor, Path, bool, Mapping[str, Any]], None]
    run: Callable[[Path], Runner]


# OpenVINO keeps weights in 16 bits and computes as its device does; onnxruntime has no convolution in bf16 on CPUs.
FORMATS = {
    "onnx": Format(".onnx", ("fp32", "fp16"), _write_onnx, _run_onnx),
    "openvino": Format(".xml", ("fp32", "fp16"), _write_openvino, _run_openvino),
    "tensorrt": Format(".engine", ("fp32", "fp16"), _write_tensorrt, run_engine),
    "torch.export": Format(".pt2", ("fp32", "fp16", "bf16"), _write_torch_export, _run_torch_export),
    "torchscript": Format(".pt", ("fp32", "fp16", "bf16"), _write_torchscript, _run_torchscript),
}


def runner(path: str | Path, format: str) -> Runner:
    """An exported file as a function of an image [N, C, H, W], run on the CPU by the format's own runtime."""
    return FORMATS[format].run(Path(path))


def import_optional(module: str, extra: str) -> Any:
    """Import an optional module. Raises HrsegError that names the extra it comes with."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise HrsegError(module, "is not installed.", f'Install it: pip install "hrseg[{extra}]".') from None
