"""The measured part of `make gpu`: python -m hrseg.benchmark.gpu_measured RESULTS SECONDS, in order of worth."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.benchmark import loss as losses
from hrseg.benchmark import scenes, textbook
from hrseg.benchmark.gpu import ROOT, write
from hrseg.benchmark.measure import Options
from hrseg.benchmark.plain_scripts.network import CLASSES
from hrseg.benchmark.train import training
from hrseg.errors import first_line
from hrseg.fast.optimize import optimize
from hrseg.inference import Inference, resize
from hrseg.metrics import confusion_matrix
from hrseg.task import Task

SIZE, CROP = (1024, 2048), (512, 1024)
WARM_UP, ROUNDS, SIDE_S = 4, 15, 2.0  # rounds end early where the sides together take longer than this for each
CUDA = torch.device("cuda")
Sides = Mapping[str, Callable[[], Any]]
Cases = Iterator[tuple[str, Sides, Sequence[str], Callable[[], str] | None]]


def main(results: Path, limit_s: float) -> None:
    """Measure case after case until all are done or the time is up; each is written when it is known."""
    end = time.monotonic() + limit_s
    torch.backends.cudnn.benchmark = True
    for make in (inference, inference_of_eight, steps, ohem, labels_to_scores, whole_command, compiled, deterministic):
        try:
            for what, sides, ours, equal in make():
                _measure(results, what, sides, ours, equal)
        except Exception as error:  # the parts after it are worth their time all the same
            write(results, {"part": "measured", "what": make.__name__, "why": f"failed: {first_line(error)}"})
        gc.collect()
        torch.cuda.empty_cache()
        if time.monotonic() > end:
            write(results, {"part": "measured", "what": f"after {make.__name__}", "why": "the time was up"})
            return


def _measure(
    results: Path, what: str, sides: Sides, ours: Sequence[str], equal: Callable[[], str] | None = None
) -> None:
    """Time the sides in turns; a row for each peer: the fastest of ours against it."""
    ready, peaks = {}, {}
    for name, side in sides.items():
        try:
            peaks[name] = _peak_gib(side)
            ready[name] = side
        except RuntimeError as error:
            write(results, {"part": "measured", "what": f"{what}, {name}", "why": first_line(error)})
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    start = time.monotonic()
    for number in range(ROUNDS):
        if number > 2 and time.monotonic() - start > SIDE_S * len(ready):
            break
        for name, side in ready.items():
            seconds[name].append(_seconds(side))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((name for name in ours if name in medians), key=medians.__getitem__, default=None)
    try:
        evidence = equal() if equal and len(ready) == len(sides) else "-"
    except AssertionError as error:
        evidence = f"DIFFERENT: {error}"
    for name in ready:
        if best is None or name == best:
            continue
        write(results, {
            "part": "measured", "what": what, "ours": best, "against": name, "ratio": medians[best] / medians[name],
            "ms": [1e3 * medians[best], 1e3 * medians[name]], "peak GiB": [peaks[best], peaks[name]],
            "rounds": len(seconds[name]), "equal": evidence,
        })  # fmt: skip


def _seconds(side: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    side()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak_gib(side: Callable[[], Any]) -> float:
    """Warm up; how much memory one call then adds to what is held."""
    for _ in range(WARM_UP):
        side()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def _answer(model: Any, image: Tensor) -> Callable[[], Tensor]:
    @torch.inference_mode()
    def answer() -> Tensor:
        return model(image)

    return answer


def _networks(variant: str) -> tuple[Any, Any]:
    theirs, ours = (model.eval().to(CUDA) for model in textbook.pair(variant))
    return theirs, ours.to(memory_format=torch.channels_last)


def inference(images: int = 1) -> Cases:
    """The network on whole street scenes; float32 is TF32 in convolutions, PyTorch's default, on both sides."""
    for variant in ("w18", "w48"):
        theirs, ours = _networks(variant)
        x = torch.randn(images, 3, *SIZE, device=CUDA)
        half = textbook.pair(variant)[0].eval().to(CUDA, torch.bfloat16)
        sides = {f"hrseg {kind}": _answer(optimize(ours, "torch", kind), x) for kind in ("fp32", "bf16", "fp16")}
        sides["textbook fp32"] = _answer(theirs, x)
        sides["textbook bf16"] = _answer(half, x.bfloat16())

        def equal(sides: Sides = sides) -> str:
            return textbook.difference(sides["hrseg fp32"](), sides["textbook fp32"](), 2e-2)

        yield f"{variant} inference, {images}x3x{SIZE[0]}x{SIZE[1]}", sides, list(sides)[:3], equal
        del theirs, ours, half, sides, x


def inference_of_eight() -> Cases:
    """As `inference`, eight images at once."""
    yield from inference(8)


def _batch(images: int) -> tuple[Tensor, Tensor]:
    target = torch.randint(0, CLASSES, (images, *CROP), device=CUDA)
    return torch.randn(images, 3, *CROP, device=CUDA), target


def steps() -> Cases:
    """A training step, from forward to optimizer."""
    for variant, images in (("w48", 3), ("w48", 12), ("w18", 12)):
        theirs, ours = (model.to(CUDA) for model in textbook.pair(variant))
        batch = _batch(images)
        last, first = torch.channels_last, torch.contiguous_format
        sides = {
            "hrseg bf16": training(ours, batch, last, autocast=torch.bfloat16, fused=True),
            "hrseg fp32": training(ours, batch, last, fused=True),
            "textbook fp32": training(theirs, batch, first),
            "textbook bf16": training(theirs, batch, first, autocast=torch.bfloat16),
        }
        yield f"training step {variant}, {images}x3x{CROP[0]}x{CROP[1]}", sides, ["hrseg bf16", "hrseg fp32"], None
        del theirs, ours, batch, sides


def ohem() -> Cases:
    """OHEM, forward and backward, against plain cross entropy and softmax, gather and sort."""
    for when, margin in (("early", 0.0), ("late", 16.0)):
        logits, target = losses.outputs(Options(size=SIZE, device="cuda"), margin)
        kinds = {"hrseg": losses.ours, "cross entropy": losses.cross_entropy, "sort": losses.textbook_ohem}
        sides = {name: partial(losses.gradient, kind, logits, target) for name, kind in kinds.items()}
        yield f"OHEM, {when} in training", sides, ["hrseg"], None


def labels_to_scores() -> Cases:
    """Logits at a quarter of the size to a confusion matrix."""
    logits = torch.randn(1, CLASSES, SIZE[0] // 4, SIZE[1] // 4, device=CUDA)
    target = torch.randint(0, CLASSES, (1, *SIZE), device=CUDA, dtype=torch.uint8)
    classify = Inference(Task.MULTICLASS).labels
    sides: dict[str, Callable[[], Any]] = {
        "hrseg": lambda: confusion_matrix(classify(resize(logits, SIZE)), target, CLASSES)
    }
    if importlib.util.find_spec("torchmetrics"):
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        def theirs() -> Any:
            full = F.interpolate(logits, SIZE, mode="bilinear")
            return multiclass_confusion_matrix(full.argmax(1), target.long(), CLASSES, ignore_index=255).cpu()

        sides["interpolate, argmax, torchmetrics"] = theirs
    yield "logits to confusion matrix", sides, ["hrseg"], None


def whole_command() -> Cases:
    """Not a ratio: tools/train.py on PNG files of Cityscapes' size, as its own log says it."""
    results = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scenes.write(root, 8)
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / "train").symlink_to(root / kind / "val")
        words = ["tools/train.py", "configs/cityscapes.yaml", f"data.root={root}", f"run.dir={root / 'run'}"]
        words += ["model.encoder_weights=null", "train.precision=bf16", "train.epochs=null", "train.iterations=80"]
        words += ["data.check=false", "data.workers=12", "train.val_every=80", "eval.pictures=0"]
        utilisation = []
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip
        try:
            start = time.monotonic()
            while process.poll() is None and time.monotonic() - start < 60:
                time.sleep(1)
                utilisation.append(_utilisation())
        finally:
            process.kill()
        log = root / "run" / "log.jsonl"
        records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        kept = [r for r in records if r["kind"] == "train"][2:]
        if not kept:
            said = process.stderr.read()[-300:] if process.stderr else ""
            write(results, {"part": "measured", "what": "tools/train.py", "why": f"no record was written: {said}"})
            return
        rate, waited = (statistics.median(r[name] for r in kept) for name in ("images_per_s", "data_wait"))
        busy = statistics.median([value for value in utilisation if value is not None] or [0])
        said = f"{rate:.1f} images/s, {waited:.0%} of the time waiting for data, GPU {busy:.0f} % busy (median)"
        write(results, {"part": "measured", "what": "tools/train.py configs/cityscapes.yaml, bf16", "why": said})
    yield from ()


def _utilisation() -> float | None:
    words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
    try:
        return float(subprocess.run(words, capture_output=True, text=True, check=True, timeout=5).stdout.split()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def compiled() -> Cases:
    """Against torch.compile of the textbook, whose preparation takes up to minutes."""
    theirs, ours = _networks("w18")
    x = torch.randn(1, 3, *SIZE, device=CUDA)
    sides = {f"hrseg {kind}": _answer(optimize(ours, "torch", kind), x) for kind in ("fp32", "bf16")}
    sides["textbook fp32 compiled"] = _answer(torch.compile(theirs, mode="reduce-overhead"), x)
    yield f"w18 inference, 1x3x{SIZE[0]}x{SIZE[1]}", sides, ["hrseg fp32", "hrseg bf16"], None


def deterministic() -> Cases:
    """The price of run.deterministic: the same step in both modes."""
    ours = textbook.pair("w18")[1].to(CUDA)
    step = training(ours, _batch(4), torch.channels_last, autocast=torch.bfloat16, fused=True)

    def repeatable() -> Tensor:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        try:
            return step()
        finally:
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.benchmark = True

    yield "training step w18, 4 images, bf16", {"default": step, "deterministic": repeatable}, ["default"], None


if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    main(Path(sys.argv[1]), float(sys.argv[2]))
