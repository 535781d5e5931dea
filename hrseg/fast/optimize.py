"""The fast form of a model for inference, by itself or in an engine that is installed."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from hrseg.errors import ConfigError, first_line, nearest
from hrseg.fast import engines
from hrseg.fast.cuda_graphs import Recorder, kernels_timed
from hrseg.fast.fused_graph import evaluating, fuse_model, in_channels_last
from hrseg.runtime import PRECISIONS

log = logging.getLogger(__name__)

Backend = Literal["auto", "torch", "onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "fp16"]
MAX_SIZES = 8  # that have an engine or a recording; others are answered by the torch form
WAY_OUT = "backend=torch always works."
TOLERANCE = 1e-4  # of the largest value: far above rounding, far below any mistake
REPLAY_TOLERANCE = 1e-2  # on a GPU two kernels of one convolution may round to TF32 or 16 bits differently


def optimize(model: nn.Module, backend: str = "auto", precision: str = "fp32") -> Optimized:
    """The fast form of a model of smp's kind: called with images [N, C, H, W], it gives what the model gives.

    Logits in fp32 differ by less than 1e-5 of their maximum. The model itself stays as it is, and its later changes do
    not show. backend: auto takes OpenVINO or onnxruntime for models on the CPU, where they are installed, once an image
    size comes again; named, an engine is prepared with the first image of a size, in a second or two. On a GPU a size
    that comes again is recorded as a CUDA graph. A model that cannot be followed is run as it is. precision: of weights
    and features, fp16 on a GPU only; logits are float32.
    Raises ConfigError for unknown values, a backend that is not installed, and one that cannot run the model.
    """
    if backend not in get_args(Backend):
        raise ConfigError("backend", f"no backend '{backend}'.", nearest(backend, get_args(Backend)))
    if precision not in get_args(Precision):
        raise ConfigError("precision", f"no precision '{precision}'.", nearest(precision, get_args(Precision)))
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision", f"fp16 is for GPUs, the model is on {device}.", "Use bf16 or fp32.")
    possible = engines.installed_engines(precision) if device.type == "cpu" else []
    if backend in engines.ENGINES and backend not in possible:
        raise ConfigError("backend", f"{backend} {_why_not(backend, precision, device)}.", WAY_OUT)
    engine = next(iter(possible), None) if backend == "auto" else backend if backend in possible else None
    form = _lowered(model)
    if engine and (form is None or not engines.has_onnx_form(form, _example(model).shape)):
        if backend == engine:
            raise ConfigError("backend", f"{backend} cannot run {type(model).__name__}.", WAY_OUT)
        return optimize(model, "torch", precision)
    return Optimized(model, form, engine, precision, at_once=backend != "auto")


def _why_not(engine: str, precision: str, device: torch.device) -> str:
    if device.type != "cpu":
        return f"runs on the CPU, the model is on {device}"
    if precision not in engines.ENGINES[engine].precisions:
        return f"does not compute in {precision}"
    return f"is not installed (pip install 'hrseg[{engine}]')"


def _lowered(model: nn.Module) -> fx.GraphModule | None:
    """The model in few steps, if it can be followed and a small random image shows that it is the same function."""
    try:
        form, image = fuse_model(model), _example(model)
        # Rounding to tf32 would look like another function.
        with torch.inference_mode(), evaluating(model), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            same = _same(form(image), model(image))
    except Exception as error:  # whatever a model of another project does that cannot be traced
        log.debug("%s is run as it is: %s", type(model).__name__, error)
        return None
    if not same:
        log.warning("%s is run as it is: its fast form gives something else.", type(model).__name__)
    return form if same else None


def _example(model: nn.Module) -> Tensor:
    """A small random image that the model takes."""
    side = 2 * _stride(model)
    return torch.randn(1, model.encoder.out_channels[0], side, side).to(next(model.parameters()))  # type: ignore


def _stride(model: nn.Module) -> int:
    return int(model.encoder.output_stride)  # type: ignore[union-attr, arg-type]


def _same(a: Any, b: Any, tolerance: float = TOLERANCE) -> bool:
    if isinstance(a, tuple):
        return all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


class Optimized(nn.Module):
    """Images [N, C, H, W] of any size to what the model gives, in float32. backend: what runs it."""

    def __init__(
        self, model: nn.Module, form: fx.GraphModule | None, engine: str | None, precision: str, at_once: bool
    ):
        super().__init__()
        self.backend = engine or "torch"
        self._stride = _stride(model) if getattr(model, "requires_divisible_input_shape", False) else 1
        self._precision, self._at_once = precision, at_once
        self._dtype = PRECISIONS[precision] if engine is None else torch.float32
        self._recorder: Recorder | None = None
        self._recordable = form is not None
        self._seen: Counter[torch.Size] = Counter()
        self._engines: dict[torch.Size, Callable[[Tensor], Tensor]] = {}
        self.eval()
        if form is None:
            self._torch: nn.Module = copy.deepcopy(model).eval().to(self._dtype).to(memory_format=torch.channels_last)
        else:
            self._torch = in_channels_last(form, self._dtype)

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Any:
        height, width = image.shape[-2:]
        x = F.pad(image, (0, -width % self._stride, 0, -height % self._stride)) if self._stride > 1 else image
        y = self._answer(x.to(self._dtype))
        if isinstance(y, tuple):
            return tuple(part.float() for part in y)
        return y.float() if x is image else y.float()[..., :height, :width]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._engines.clear()  # recordings know where in memory the weights were
        self._recorder = None
        return super()._apply(*args, **kwargs)

    def _answer(self, x: Tensor) -> Any:
        if x.shape in self._engines:
            return self._engines[x.shape](x)
        with kernels_timed(False) if x.is_cuda else contextlib.nullcontext():
            y = self._torch(x.contiguous(memory_format=torch.channels_last))
        self._seen[x.shape] += 1
        if x.is_cuda and len(self._engines) < MAX_SIZES and self._seen[x.shape] > 1:
            self._record(x, y)
        if self.backend != "torch" and len(self._engines) < MAX_SIZES and (self._at_once or self._seen[x.shape] > 1):
            assert isinstance(self._torch, fx.GraphModule)
            engine = engines.prepare_engine(self.backend, self._torch, x.shape, self._precision)
            if self._precision == "fp32" and not _same(engine(x), y):
                log.warning("%s gives other logits than PyTorch, which goes on without it.", self.backend)
                self.backend = "torch"
            else:
                self._engines[x.shape] = engine
        return y

    def _record(self, x: Tensor, y: Any) -> None:
        """Record this size as a CUDA graph, if the recording answers as the form did; else go on without."""
        if not self._recordable:
            return
        self._recorder = self._recorder or Recorder(self._torch)
        try:
            replay = self._recorder.record(x)
            reason = "" if _same(replay(x), y, REPLAY_TOLERANCE) else "it gives other logits"
        except RuntimeError as error:  # what cannot be recorded, or too little memory for it
            reason = first_line(error)
        if reason:
            log.warning("No CUDA graph for images of %s, kernels are launched one by one: %s.", tuple(x.shape), reason)
            self._recordable = False
        else:
            self._engines[x.shape] = replay
