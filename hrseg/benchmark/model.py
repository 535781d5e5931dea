"""Inference: the network, alone and in engines, and its head, beside timm's HRNet with the textbook head."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import hrseg
from hrseg.benchmark import textbook
from hrseg.benchmark.measure import Case, Options, Row, Side, computed, missing
from hrseg.benchmark.plain_scripts.network import CLASSES, Head
from hrseg.fast import engines, torch_private
from hrseg.fast.fused_graph import fuse_model, in_channels_last
from hrseg.fast.optimize import optimize
from hrseg.models.hrnet import VARIANTS

TOLERANCE = 1e-5
Marks = dict[str, tuple[float, float | None]]
# (at most, aim) of the best route, and in plain torch, against eager; bf16 against fp32 eager. Others as W18.
BEST: Marks = {"w18": (0.40, 0.35), "w48": (0.63, 0.55)}
PLAIN: Marks = {"w18": (0.52, 0.42), "w48": (0.77, 0.62)}
BF16: Marks = {"w18": (0.19, None), "w48": (0.32, None)}
ENGINES = ("openvino", "onnxruntime")
NO_BF16 = "the processor does not compute in bf16"


def cases(options: Options) -> Iterator[Case]:
    for variant in (options.variant, *options.also):
        yield network(replace(options, variant=variant))
    for backward in (False, True):
        yield head(options, backward)
    if options.device == "cpu":
        yield memory(options)


def network(options: Options) -> Case:
    variant = options.variant
    theirs, ours = (model.eval().to(options.device) for model in textbook.pair(variant))
    image = torch.randn(1, 3, *options.size).to(options.device)
    sides: dict[str, Side | str] = {
        "textbook": _run(theirs, image),
        "hrseg torch": _run(optimize(ours, "torch"), image),
    }
    for engine in ENGINES if options.device == "cpu" else ():
        absent = missing(*engines.ENGINES[engine].packages)
        sides[f"hrseg {engine}"] = absent or _run(optimize(ours, engine), image)
        sides[f"stock {engine}"] = absent or _stock(engine, theirs, image)
    if not options.short:
        sides["textbook compiled"] = _run(torch.compile(theirs), image)
    if torch.cuda.is_available() or torch_private.cpu_computes_bf16():
        best = engines.installed_engines("bf16") if options.device == "cpu" else []
        sides["hrseg bf16"] = _run(optimize(ours, best[0] if best else "torch", "bf16"), image)
    else:
        sides["hrseg bf16"] = NO_BF16
    routes = [name for name in sides if name.startswith("hrseg") and name != "hrseg bf16"]
    stock = [name for name in sides if name.startswith("stock")]

    def equal(*names: str) -> Callable[[], str]:
        def compare() -> str:
            calls = {name: side for name, side in sides.items() if not isinstance(side, str)}
            expected = calls["textbook"]()
            return max(textbook.difference(calls[n](), expected, TOLERANCE) for n in names if n in calls)

        return compare

    what = f"{variant} inference, fp32, 1x3x{options.size[0]}x{options.size[1]}"
    eager = "timm and textbook head, eager"
    macs = textbook.macs(ours, image)
    why = computed(macs)
    best_mark, plain_mark, bf16_mark = (marks.get(variant, marks["w18"]) for marks in (BEST, PLAIN, BF16))
    rows = [
        Row(f"{what}, best route", eager, routes, ["textbook"], *best_mark, equal(*routes), why),
        Row(
            f"{what}, plain torch",
            eager,
            ["hrseg torch"],
            ["textbook"],
            *plain_mark,
            equal("hrseg torch"),
            why,
        ),
    ]
    if stock:
        against = "the best stock engine on the textbook graph"
        rows.append(Row(f"{what}, best route", against, routes, stock, 1.0, 0.9, equal(*routes), why))
    if "textbook compiled" in sides:
        rows.append(Row(f"{what}, best route", "the same, torch.compile", routes, ["textbook compiled"], 1.0, why=why))
    if variant == "w18":
        sides["smp tu-hrnet_w18"] = _run(_smp_default().to(options.device), image)
        rows.append(
            Row(f"{what}, best route", "smp's tu-hrnet_w18, same head", routes, ["smp tu-hrnet_w18"], 0.15, why=why)
        )
    bf16 = f"{variant} inference, bf16, 1x3x{options.size[0]}x{options.size[1]}, best route"
    why = computed(macs, torch.bfloat16)
    rows.append(Row(bf16, f"{eager}, fp32", ["hrseg bf16"], ["textbook"], *bf16_mark, _agreement(sides), why))
    return Case(sides, rows)


def _run(model: Any, image: Tensor) -> Side:
    @torch.inference_mode()
    def answer() -> Tensor:
        return model(image)

    return answer


def _stock(engine: str, model: nn.Module, image: Tensor) -> Side:
    """An engine used as its documentation shows, on the textbook graph as torch exports it."""
    buffer: Any = io.BytesIO()
    torch.onnx.export(model, (image,), buffer, dynamo=False, opset_version=engines.OPSET)
    run = engines.ENGINES[engine].run(buffer.getvalue(), "fp32")
    return lambda: run(image)


def _smp_default() -> nn.Module:
    """smp's default features, 128 to 1024 channels, under hrseg's head."""
    model = hrseg.HRNetV2("tu-hrnet_w18", classes=CLASSES).eval()
    assert isinstance(model, smp.base.SegmentationModel)
    return model


def _agreement(sides: dict[str, Side | str]) -> Callable[[], str]:
    def compare() -> str:
        labels = [sides[name]().argmax(1) for name in ("hrseg bf16", "textbook")]  # type: ignore[operator]
        share = (labels[0] == labels[1]).float().mean()
        return f"{share:.1%} of the class indices, with random weights"

    return compare


def head(options: Options, backward: bool) -> Case:
    """The head over random features; always of W48, whose concatenation is the widest of the published networks."""
    width = VARIANTS["w48"].width
    channels = [width * 2**r for r in range(4)]
    divisor = 2 if backward else 1  # of the image: as in training
    size = [side // 4 // divisor for side in options.size]
    theirs = Head(channels).to(options.device)
    ours = _Head(theirs, channels).to(options.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = [torch.randn(1, c, size[0] // 2**r, size[1] // 2**r).to(options.device) for r, c in enumerate(channels)]
    last = [x.contiguous(memory_format=torch.channels_last) for x in features]

    def both_ways(module: nn.Module, inputs: list[Tensor]) -> Side:
        inputs = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
        return lambda: torch.autograd.grad(module(*inputs).square().mean(), [*inputs, *module.parameters()])

    if backward:
        sides = {"textbook": both_ways(theirs, features), "hrseg": both_ways(ours, last)}
    else:
        fast = in_channels_last(fuse_model(ours.eval()), torch.float32)
        theirs.eval()
        sides = {"textbook": _of(theirs, features), "hrseg": _of(fast, last)}

    def equal() -> str:
        if not backward:
            return textbook.difference(sides["hrseg"](), sides["textbook"](), TOLERANCE)
        # In float32, rounding moves some values across the ReLU's zero, which changes gradients, in the textbook too.
        exact, inputs = copy.deepcopy(theirs).double(), [x.double() for x in features]
        gradients = (both_ways(module, inputs)()[:4] for module in (_Head(exact, channels), exact))
        found = max(textbook.difference(x, y, TOLERANCE) for x, y in zip(*gradients, strict=True))
        return f"{found}, in float64"

    what = f"the head alone, w48, {'forward + backward' if backward else 'inference'}, {size[0]}x{size[1]}"
    marks = (0.40, 0.30) if backward else (0.50, 0.25)
    why = computed((3 if backward else 1) * textbook.macs(ours, *features))
    return Case(sides, [Row(what, "textbook head, NCHW", ["hrseg"], ["textbook"], *marks, equal, why)])


def _of(module: nn.Module, inputs: list[Tensor]) -> Side:
    @torch.inference_mode()
    def answer() -> Tensor:
        return module(*inputs)

    return answer


class _Head(nn.Module):
    """hrseg's head with the weights of the textbook's: four features to logits at 1/4."""

    def __init__(self, theirs: Head, channels: list[int]):
        super().__init__()
        model = hrseg.models.hrnetv2.HRNetV2Decoder(channels)
        model.conv, model.bn, self.classify = theirs[0], theirs[1], theirs[3]  # type: ignore[assignment]
        self.decoder = model

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return self.classify(self.decoder([a, b, c, d]))


def memory(options: Options) -> Case:
    """The peak memory that one inference adds to a fresh process."""
    size = f"{options.size[0]}x{options.size[1]}"

    def side(which: str) -> Side:
        words = [
            sys.executable,
            "-c",
            f"from hrseg.benchmark.model import added; added('w48', {options.size}, '{which}')",
        ]
        return lambda: float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    row = Row(f"w48 inference, {size}, peak memory", "timm and textbook head, eager", ["hrseg"], ["textbook"], 0.7)
    return Case({"textbook": side("textbook"), "hrseg": side("hrseg")}, [row], unit="MiB")


def added(variant: str, size: tuple[int, int], which: str) -> None:
    """Print by how many MiB one inference raises this process's peak."""
    theirs, ours = textbook.pair(variant)
    model: Any = theirs.eval() if which == "textbook" else optimize(ours, "torch")
    del theirs, ours
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        model(image[..., :32, :32])  # what is allocated once
        # What the process holds now, and its peak from here on; rusage's peak is the parent's where that was larger.
        Path("/proc/self/clear_refs").write_text("5")
        before = _memory("VmRSS")
        model(image)
    print((_memory("VmHWM") - before) / 1024)


def _memory(name: str) -> int:
    """KiB of this process, by a name of Linux' /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
