"""TensorRT: an engine for one kind of GPU, built from the ONNX file, and its runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrseg.errors import HrsegError, first_line
from hrseg.export.deployable import Deployed

LEAST_SIDE, MOST_IMAGES, MOST_SIDE = 64, 8, 2048  # of images of any size
Writer = Callable[[Deployed, Tensor, Path, bool, Mapping[str, Any]], Any]


def require_tensorrt() -> Any:
    """The module tensorrt. Raises HrsegError where it is not installed, or where there is no GPU to build for."""
    try:
        import tensorrt
    except ModuleNotFoundError:
        raise HrsegError("tensorrt", "is not installed.", 'Install it: pip install "hrseg[tensorrt]".') from None
    if not torch.cuda.is_available():
        raise HrsegError("tensorrt", "builds for the GPU at hand, and there is none.", "--format onnx needs no GPU.")
    return tensorrt


def write_engine(
    write_onnx: Writer, module: Deployed, example: Tensor, path: Path, dynamic: bool, metadata: Mapping[str, Any]
) -> Any:
    """Write an engine through the ONNX file that write_onnx makes; returns what write_onnx returns.

    Types are those of the ONNX file: fp16 weights compute in fp16, quantise and dequantise nodes in int8.
    Raises HrsegError where TensorRT is not there or cannot build it.
    """
    trt = require_tensorrt()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        onnx = Path(folder) / "model.onnx"
        returned = write_onnx(module, example, onnx, dynamic, metadata)
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(onnx)):
            raise HrsegError(
                "tensorrt", f"cannot read the ONNX file: {parser.get_error(0).desc()}", "Use --format onnx."
            )
        settings = builder.create_builder_config()
        if dynamic:
            profile, channels = builder.create_optimization_profile(), example.shape[1]
            usual = (1, *example.shape[1:])
            least, most = (1, channels, LEAST_SIDE, LEAST_SIDE), (MOST_IMAGES, channels, MOST_SIDE, MOST_SIDE)
            profile.set_shape("image", least, usual, most)
            settings.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, settings)
        if engine is None:
            raise HrsegError("tensorrt", "cannot build this network; its reason is above.", "Use --format onnx.")
        path.write_bytes(bytes(engine))
    return returned


def run_engine(path: Path) -> Callable[[Tensor], Tensor]:
    """The file as a function of an image [N, C, H, W] on the CPU; it runs on the GPU.

    Raises HrsegError for an engine of another GPU or version.
    """
    trt = require_tensorrt()
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise HrsegError(path, "was built for another GPU or another version of TensorRT.", "Export it here.")
    context, stream = engine.create_execution_context(), torch.cuda.Stream()
    (output,) = (name for name in _names(engine) if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT)
    kind = getattr(torch, str(trt.nptype(engine.get_tensor_dtype(output)).__name__))

    def run(image: Tensor) -> Tensor:
        x = image.cuda().contiguous()
        if not context.set_input_shape("image", tuple(x.shape)):
            raise HrsegError(path, f"takes no images of {tuple(x.shape)}.", "Export it for that size, or --dynamic.")
        y = torch.empty(tuple(context.get_tensor_shape(output)), dtype=kind, device="cuda")
        context.set_tensor_address("image", x.data_ptr())
        context.set_tensor_address(output, y.data_ptr())
        stream.wait_stream(torch.cuda.current_stream())
        try:
            done = context.execute_async_v3(stream.cuda_stream)
        except RuntimeError as error:
            raise HrsegError(path, first_line(error)) from error
        stream.synchronize()
        if not done:
            raise HrsegError(path, "TensorRT could not run it; its reason is above.")
        return y.cpu()

    run.engine = (runtime, engine)  # type: ignore[attr-defined]  # they must live as long as the context
    return run


def _names(engine: Any) -> list[str]:
    return [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
