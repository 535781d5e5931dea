"""A fused graph as ONNX, and the engines that run it: onnxruntime and OpenVINO."""

from __future__ import annotations

import functools
import importlib.util
import logging
import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from hrseg.fast import fused_graph

log = logging.getLogger(__name__)
OPSET = 18


class NoOnnxForm(Exception):
    """A step that has no form in ONNX here."""


class _Onnx(fx.Interpreter):
    """Runs a fused graph on the meta device for one input shape and writes each step as ONNX nodes."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._names: dict[int, tuple[str, Tensor]] = {}  # of meta tensors, by identity; the tensor is kept alive

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, Tensor) and node.op in ("placeholder", "get_attr"):
            self._names[id(value)] = (node.name, value)
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        tensor = self.fetch_attr(target)
        self.constants[str(target)] = tensor.float().numpy()
        return tensor.to("meta", copy=True)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        raise NoOnnxForm(type(self.fetch_attr(target)).__name__)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._step(target, super().call_method(target, args, kwargs), args, kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_function(target, args, kwargs)
        return self._step(target, result, args, kwargs) if isinstance(result, Tensor) else result

    def _step(self, target: Any, result: Tensor, args: Sequence[Any], kwargs: Any) -> Tensor:
        """The nodes of one step; result: what it gives, on the meta device."""
        if target is fused_graph.conv:
            x, weight, bias, shape, relu = args
            self._name(result, self._relu(self._conv(x, weight, bias, shape), relu))
        elif target is fused_graph.conv_add:
            x, weight, bias, shape, relu, other, _ = args
            self._name(result, self._relu(self._node("Add", self._conv(x, weight, bias, shape), self._of(other)), relu))
        elif target is fused_graph.upsample_add:
            plain, coarse, _, mode, align_corners, relu = args
            total = [self._resize(x, result, mode, align_corners) for x in coarse] + [self._of(x) for x in plain]
            name = total[0]
            for term in total[1:]:
                name = self._node("Add", name, term)
            self._name(result, self._relu(name, relu))
        elif target in SIMPLE:
            inputs = [
                self._of(a) if isinstance(a, Tensor) else self.constant(np.array(a, dtype=np.float32)) for a in args
            ]
            self._name(result, self._node(SIMPLE[target], *inputs))
        elif target is torch.cat:
            self._name(result, self._node("Concat", *map(self._of, args[0]), axis=kwargs.get("dim", *args[1:])))
        elif target == "softmax":
            self._name(result, self._node("Softmax", self._of(args[0]), axis=kwargs.get("dim", *args[1:])))
        elif target == "transpose":
            order = list(range(result.ndim))
            order[args[1]], order[args[2]] = order[args[2]], order[args[1]]
            self._name(result, self._node("Transpose", self._of(args[0]), perm=order))
        elif target in ("flatten", "unsqueeze", "reshape"):
            shape = self.constant(np.array(result.shape, dtype=np.int64))
            self._name(result, self._node("Reshape", self._of(args[0]), shape))
        else:
            raise NoOnnxForm(str(target))
        return result

    def _of(self, tensor: Tensor) -> str:
        return self._names[id(tensor)][0]

    def constant(self, value: np.ndarray) -> str:
        name = f"number_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def _name(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = (name, tensor)

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _relu(self, name: str, relu: bool) -> str:
        return self._node("Relu", name) if relu else name

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[Any]) -> str:
        (stride, (above, left), dilation, groups) = shape
        inputs = [self._of(t) for t in (x, weight, bias) if t is not None]
        return self._node(
            "Conv", *inputs, kernel_shape=list(weight.shape[2:]), strides=stride, dilations=dilation, group=groups,
            pads=[above, left, above, left],
        )  # fmt: skip

    def _resize(self, x: Tensor, like: Tensor, mode: str, align_corners: bool | None) -> str:
        size = self.constant(np.array([*x.shape[:2], *like.shape[2:]], dtype=np.int64))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if mode == "bilinear":
            where = "align_corners" if align_corners else "half_pixel"
            how = {"mode": "linear", "coordinate_transformation_mode": where}
        elif mode != "nearest":
            raise NoOnnxForm(f"interpolation {mode}")
        return self._node("Resize", self._of(x), "", "", size, **how)


SIMPLE = {
    torch.add: "Add",
    operator.add: "Add",
    operator.mul: "Mul",
    operator.matmul: "MatMul",
    F.relu: "Relu",
}


def to_onnx(module: fx.GraphModule, shape: Sequence[int], *, channels_last: bool = False) -> Any:
    """A fused graph as an ONNX model for images [N, C, H, W] of this shape. Raises NoOnnxForm.

    channels_last: the answer is [N, H, W, classes].
    """
    from onnx import TensorProto, helper, numpy_helper

    writer = _Onnx(module)
    image = torch.empty(tuple(shape), device="meta")
    result = writer.run(image)
    if not isinstance(result, Tensor):
        raise NoOnnxForm("several outputs")
    output, size = writer._of(result), list(result.shape)
    if channels_last:
        output, size = writer._node("Transpose", output, perm=[0, 2, 3, 1]), [size[i] for i in (0, 2, 3, 1)]
    (placeholder,) = (node.name for node in module.graph.nodes if node.op == "placeholder")
    used = {name for node in writer.nodes for name in node.input}
    graph = helper.make_graph(
        writer.nodes,
        "hrseg",
        [helper.make_tensor_value_info(placeholder, TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, size)],
        [numpy_helper.from_array(value, name) for name, value in writer.constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def _onnxruntime(model: bytes, precision: str) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.contiguous().numpy()})[0])


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's core, for the life of the process.

    A core gives the thread a stack of its own for signals and takes it away at its end. Where two end in the order in
    which they began, the next signal meets no stack and ends the process: of a worker that is done, for example.
    """
    import openvino

    return openvino.Core()


def _openvino(model: bytes, precision: str) -> Callable[[Tensor], Tensor]:
    from openvino import Tensor as Memory

    core = openvino_core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    shape, one_at_a_time = tuple(request.model_outputs[0].shape), threading.Lock()

    def run(x: Tensor) -> Tensor:
        y = torch.empty(shape)  # of its own for each answer: the request's memory is overwritten by the next
        with one_at_a_time:  # else another thread's answer could come into this one's place
            request.set_output_tensor(Memory(y.numpy(), shared_memory=True))
            request.infer({0: x.contiguous().numpy()}, share_inputs=True)
        return y

    return run


class Engine(NamedTuple):
    """run: from an ONNX model and a precision to a function of float32 images.

    channels_last: whether it computes in that order, so that its answer is the sooner there in it.
    """

    run: Callable[[bytes, str], Callable[[Tensor], Tensor]]
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    channels_last: bool


# The faster first.
ENGINES = {
    "openvino": Engine(_openvino, ("openvino", "onnx"), ("fp32", "bf16"), channels_last=True),
    "onnxruntime": Engine(_onnxruntime, ("onnxruntime", "onnx"), ("fp32",), channels_last=False),
}


def prepare_engine(
    name: str, module: fx.GraphModule, shape: Sequence[int], precision: str
) -> Callable[[Tensor], Tensor]:
    """A fused graph in an engine, for float32 images of one shape."""
    engine = ENGINES[name]
    run = engine.run(to_onnx(module, shape, channels_last=engine.channels_last).SerializeToString(), precision)
    return (lambda x: run(x).permute(0, 3, 1, 2)) if engine.channels_last else run


def installed_engines(precision: str) -> list[str]:
    """The engines that are there and compute in this precision."""
    return [
        name
        for name, engine in ENGINES.items()
        if precision in engine.precisions and all(importlib.util.find_spec(package) for package in engine.packages)
    ]


def has_onnx_form(module: fx.GraphModule, shape: Sequence[int]) -> bool:
    """Whether a fused graph has a form in ONNX."""
    try:
        to_onnx(module, shape)
    except NoOnnxForm as error:
        log.debug("no ONNX form: %s", error)
        return False
    return True
