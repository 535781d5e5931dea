"""The fast form of a model for inference: the same function in fewer and larger steps.

Batch norm is folded into the convolution before it; a sum of convolutions, upsampled convolutions and shortcuts with
the ReLU behind it becomes one expression, in which each convolution adds to the result in place; the wide features
before the classifier are made in groups of channels, so that they never exist as a whole.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from hrseg.fast import torch_private
from hrseg.fast.narrow_batch_norm import WideBatchNorm2d

# Modules that change nothing in evaluation.
PASSED_OVER = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)
GROUP_CHANNELS = 96  # of the wide features, made at once


# The three steps that a fused graph has beside what was left as it is.


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[Any], relu: bool) -> Tensor:
    """A convolution, then a ReLU if asked. shape: stride, padding, dilation, groups."""
    if torch_private.can_fuse_convolution(x):
        return torch_private.convolution(x, weight, bias, shape, relu)
    if relu and x.is_cuda and (fused := torch_private.cudnn_convolution(x, weight, bias, shape)) is not None:
        return fused
    y = F.conv2d(x, weight, bias, *shape)
    return F.relu_(y) if relu else y


def conv_add(
    x: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[Any], relu: bool, other: Tensor, inplace: bool
) -> Tensor:
    """A convolution added to `other`, then a ReLU if asked. inplace: the result may take the place of `other`."""
    if torch_private.can_fuse_convolution(x):
        return torch_private.convolution_add(x, weight, bias, shape, relu, other, inplace)
    if relu and x.is_cuda and (fused := torch_private.cudnn_convolution(x, weight, bias, shape, other)) is not None:
        return fused
    y = F.conv2d(x, weight, bias, *shape).add_(other)
    return F.relu_(y) if relu else y


def upsample_add(
    plain: Sequence[Tensor],
    coarse: Sequence[Tensor],
    size: Sequence[int],
    mode: str,
    align_corners: bool | None,
    relu: bool,
) -> Tensor:
    """The sum of tensors and of coarser ones brought to their size, then a ReLU if asked."""
    total = F.interpolate(coarse[0], size, mode=mode, align_corners=align_corners)
    for x in coarse[1:]:
        total += F.interpolate(x, size, mode=mode, align_corners=align_corners)
    for x in plain:
        total += x
    return F.relu_(total) if relu else total


# What is known of a value before it is computed: it is a sum of terms.


@dataclass(frozen=True)
class _Conv:
    """A convolution of a value of the new graph."""

    x: fx.Node
    weight: Tensor
    bias: Tensor | None
    shape: tuple[Any, ...]

    def scaled(self, scale: Tensor, shift: Tensor | None) -> _Conv:
        bias = None if self.bias is None else self.bias * scale
        if shift is not None:
            bias = shift if bias is None else bias + shift
        return replace(self, weight=self.weight * scale.reshape(-1, 1, 1, 1), bias=bias)

    def channels(self, some: slice) -> _Conv:
        return replace(self, weight=self.weight[some], bias=None if self.bias is None else self.bias[some])


@dataclass(frozen=True)
class _Up:
    """A convolution, or a value of the new graph, enlarged. how: mode and align_corners of F.interpolate."""

    x: fx.Node | _Conv
    size: Any
    how: tuple[str, bool | None]

    def scaled(self, scale: Tensor, shift: Tensor | None) -> _Up:
        assert isinstance(self.x, _Conv)
        return replace(self, x=self.x.scaled(scale, shift))

    def channels(self, some: slice) -> _Up:
        assert isinstance(self.x, _Conv)
        return replace(self, x=self.x.channels(some))


@dataclass(frozen=True)
class _Sum:
    """Terms that add up, the ReLU of them if relu."""

    terms: tuple[_Conv | _Up | fx.Node, ...]
    relu: bool = False

    def convolutions_only(self) -> bool:
        """Whether all terms are convolutions, enlarged or not: what follows can then go into their weights."""
        return all(isinstance(t.x if isinstance(t, _Up) else t, _Conv) for t in self.terms)


class _Tracer(fx.Tracer):
    """Parameters are constants, so that what is computed from them alone is computed once."""

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) is WideBatchNorm2d or super().is_leaf_module(m, module_qualified_name)


def fuse_model(model: nn.Module) -> fx.GraphModule:
    """A model's evaluation form as a graph of few steps; the model itself stays as it is.

    Raises torch.fx's errors for a model whose course depends on its values.
    """
    source = copy.copy(model)
    source.__dict__["check_input_shape"] = lambda x: None  # it asks for sizes, which a trace does not have
    with torch.no_grad(), evaluating(model):
        return _Fusing(source, _Tracer().trace(source)).graph_module()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each module is as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def in_channels_last(form: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """A fused graph with weights of a type, in the order of channels_last.

    Not in an order of oneDNN's own: the best one differs between image sizes, and where a convolution meets another
    than it wants, it takes up to a hundred times as long. To bring plain weights in order costs a fiftieth.
    """
    form.to(dtype)
    (output,) = (node for node in form.graph.nodes if node.op == "output")
    last: Any = output.args[0]
    if dtype != torch.float32 and getattr(last, "target", None) is upsample_add:
        # Interpolated in 16 bits, neighbouring classes would tie.
        with form.graph.inserting_before(last):
            last.args = (*last.args[:1], [form.graph.call_method("float", (x,)) for x in last.args[1]], *last.args[2:])
        form.recompile()
    return form.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Fusing:
    """Walks through a traced graph and writes the new one. What is known of an old node: a _Sum, or a new node."""

    def __init__(self, model: nn.Module, old: fx.Graph):
        self._model, self._old = model, old
        self._new, self._root = fx.Graph(), nn.Module()
        self._known: dict[fx.Node, Any] = {}
        self._constants = itertools.count()

    def graph_module(self) -> fx.GraphModule:
        for node in self._old.nodes:
            known = self._step(node)
            # Only what is used once can become part of something larger.
            self._known[node] = self._written(known) if isinstance(known, _Sum) and len(node.users) != 1 else known
        _reuse_memory(self._new)
        module = fx.GraphModule(self._root, self._new, "FusedGraph")
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    def _step(self, node: fx.Node) -> Any:
        module = self._model.get_submodule(str(node.target)) if node.op == "call_module" else None
        args: Any = node.args
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self._model)
        if isinstance(module, PASSED_OVER):
            return self._known[args[0]]
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            shape = (module.stride, module.padding, module.dilation, module.groups)
            return self._convolution(node, module.weight, module.bias, *shape)
        if node.target is torch.conv2d:
            arguments: dict[str, Any] = dict(zip(("input", "weight", "bias", *SHAPE), args, strict=False))
            arguments |= node.kwargs
            weight, bias = (self._known.get(arguments.get(name)) for name in ("weight", "bias"))  # type: ignore
            if isinstance(weight, Tensor) and not isinstance(bias, fx.Node):
                return self._convolution(node, weight, bias, *(arguments.get(n, usual) for n, usual in SHAPE.items()))
        # Others that come of it, such as timm's with an activation inside, are followed.
        plain = type(module) in (nn.BatchNorm2d, WideBatchNorm2d, nn.SyncBatchNorm)
        if plain and isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module.running_mean is not None:
            below = self._known[args[0]]
            if isinstance(below, _Sum) and not below.relu and below.convolutions_only():
                return self._normalised(below, module)
        if node.target is F.interpolate and node.kwargs["scale_factor"] is None and not node.kwargs["antialias"]:
            return self._enlarged(node)
        if node.target in (operator.add, operator.iadd, torch.add) and all(isinstance(x, fx.Node) for x in args):
            return _Sum(self._terms(args[0]) + self._terms(args[1]))
        if isinstance(module, nn.ReLU) or node.target in (F.relu, torch.relu):
            below = self._known[args[0]]
            if isinstance(below, _Sum) and not below.relu:
                return self._rectified(node, replace(below, relu=True))
            return self._new.call_function(F.relu, (self._value(args[0]),))
        return self._copied(node, module)

    def _convolution(self, node: fx.Node, weight: Tensor, bias: Tensor | None, *shape: Any) -> Any:
        stride, padding, dilation, groups = shape
        pairs = ([x, x] if isinstance(x, int) else list(x) for x in (stride, padding, dilation))
        source: Any = node.args[0]
        below = self._known[source]
        if isinstance(below, _Sum) and below.relu:
            return self._in_groups(below, weight, bias)
        return _Sum((_Conv(self._value(source), weight, bias, (*pairs, groups)),))

    def _normalised(self, below: _Sum, bn: nn.BatchNorm2d | nn.SyncBatchNorm) -> _Sum:
        """What a batch norm makes of convolutions: their weights scaled, and its shift once."""
        assert bn.running_mean is not None and bn.running_var is not None
        scale = torch.rsqrt(bn.running_var + bn.eps)
        if bn.weight is not None:
            scale = scale * bn.weight
        shift = -bn.running_mean * scale if bn.bias is None else bn.bias - bn.running_mean * scale
        first, *others = below.terms
        return _Sum((first.scaled(scale, shift), *(t.scaled(scale, None) for t in others)))  # type: ignore[union-attr]

    def _enlarged(self, node: fx.Node) -> Any:
        source: Any = node.args[0]
        kwargs: Any = node.kwargs
        below = self._known[source]
        single = isinstance(below, _Sum) and len(below.terms) == 1 and not below.relu
        x = below.terms[0] if single and isinstance(below.terms[0], _Conv) else self._value(source)
        size = fx.map_arg(kwargs["size"], self._value)
        return _Sum((_Up(x, size, (kwargs["mode"], kwargs["align_corners"])),))

    def _terms(self, node: fx.Node) -> tuple[Any, ...]:
        known = self._known[node]
        return known.terms if isinstance(known, _Sum) and not known.relu else (self._value(node),)

    def _rectified(self, node: fx.Node, total: _Sum) -> _Sum | fx.Node:
        """A sum with its ReLU; wide features for one 1x1 convolution are left to it, which makes them in groups."""
        (user,) = node.users if len(node.users) == 1 else (None,)
        reader = self._model.get_submodule(str(user.target)) if user and user.op == "call_module" else None
        narrow = isinstance(reader, nn.Conv2d) and reader.kernel_size == (1, 1) and reader.groups == 1
        wide = narrow and reader.in_channels > GROUP_CHANNELS  # type: ignore
        if wide and total.convolutions_only() and any(isinstance(t, _Up) for t in total.terms):
            return total
        return self._written(total)

    def _in_groups(self, wide: _Sum, weight: Tensor, bias: Tensor | None) -> _Sum:
        """weight @ relu(sum of terms) + bias = sum over groups of channels of weight[:, group] @ relu(terms[group])."""
        count = -(-weight.shape[1] // GROUP_CHANNELS)
        total: fx.Node | None = None
        for number, channels in enumerate(torch.arange(weight.shape[1]).chunk(count)):
            group = slice(int(channels[0]), int(channels[-1]) + 1)
            terms = tuple(term.channels(group) for term in wide.terms)  # type: ignore[union-attr]
            part = _Conv(self._written(_Sum(terms, relu=True)), weight[:, group], None if number else bias, POINTWISE)
            total = self._written(_Sum((part,) if total is None else (total, part)))
        return _Sum((total,))  # type: ignore[arg-type]

    def _written(self, total: _Sum) -> fx.Node:
        """A sum as steps of the new graph: first what is enlarged and what is there, then each convolution onto it."""
        convs = [t for t in total.terms if isinstance(t, _Conv)]
        ups = [t for t in total.terms if isinstance(t, _Up)]
        plain = [t for t in total.terms if isinstance(t, fx.Node)]
        y: fx.Node | None = None
        while ups:  # those that are enlarged alike, together
            alike = [up for up in ups if (up.size, up.how) == (ups[0].size, ups[0].how)]
            ups = [up for up in ups if up not in alike]
            coarse = [self._written(_Sum((up.x,))) if isinstance(up.x, _Conv) else up.x for up in alike]
            last = not ups and not convs
            plain = ([] if y is None else [y]) + plain
            y = self._new.call_function(
                upsample_add, (plain, coarse, alike[0].size, *alike[0].how, total.relu and last)
            )
            plain = []
        for term in plain:
            y = term if y is None else self._new.call_function(torch.add, (y, term))
        for number, c in enumerate(convs):
            relu = total.relu and number == len(convs) - 1
            weights = (self._constant(c.weight), None if c.bias is None else self._constant(c.bias))
            if y is None:
                y = self._new.call_function(conv, (c.x, *weights, c.shape, relu))
            else:
                y = self._new.call_function(conv_add, (c.x, *weights, c.shape, relu, y, False))
        assert y is not None
        return self._new.call_function(F.relu, (y,)) if total.relu and not convs and y in plain else y

    def _value(self, node: Any) -> Any:
        """The new node of an old one."""
        known = self._known[node]
        if isinstance(known, _Sum):
            known = self._known[node] = self._written(known)
        elif isinstance(known, Tensor):
            known = self._known[node] = self._constant(known)
        return known

    def _constant(self, tensor: Tensor) -> fx.Node:
        name = f"constant_{next(self._constants)}"
        self._root.register_buffer(name, tensor.detach().clone())
        return self._new.get_attr(name)

    def _copied(self, node: fx.Node, module: nn.Module | None) -> fx.Node:
        copied = self._new.node_copy(node, self._value)
        if module is not None:
            copied.target = str(node.target).replace(".", "_")
            self._root.add_module(copied.target, copy.deepcopy(module))
        return copied


SHAPE = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}  # of a convolution, in F.conv2d's order
POINTWISE = ([1, 1], [0, 0], [1, 1], 1)
FRESH = (conv, conv_add, upsample_add)  # steps whose result is nobody else's


def _reuse_memory(graph: fx.Graph) -> None:
    """Let a convolution add in place where nobody looks at the other summand afterwards."""
    last = {x: node for node in graph.nodes for x in node.all_input_nodes}
    for node in graph.nodes:
        if node.target is conv_add:
            args: Any = node.args
            x, other = args[0], args[5]
            seen_as_is = all(user.target in (*FRESH, getattr) for user in other.users)
            if other.target in FRESH and last[other] is node and seen_as_is and x is not other:
                node.args = (*node.args[:-1], True)
