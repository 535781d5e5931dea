"""Results as a table, as docs/benchmarks.md and as one line of JSON."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hrseg.benchmark.measure import MOST_TIMES, ROUND_S, Figure, Options, Result

PACKAGES = (
    "hrseg", "torch", "timm", "segmentation-models-pytorch", "onnxruntime", "openvino", "torchmetrics",
    "albumentations", "opencv-python-headless", "pillow", "kornia-rs", "cityscapesscripts", "tensorrt",
)  # fmt: skip
MARKER = "<!-- tools/benchmark.py --markdown writes everything below this line, and keeps what is above it. -->"


def conditions(options: Options, allocator: str, command: str) -> dict[str, str]:
    """The conditions that both sides of every row had in common, and the date."""
    return {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU",
        "threads": str(torch.get_num_threads()),
        "allocator": allocator,
        "clock": options.clock,
        "rounds": f"{options.rounds}, and up to {MOST_TIMES} times as many where one takes less than {ROUND_S} s",
        "versions": ", ".join(f"{name} {version}" for name, version in _versions().items()),
    }


def table(results: Sequence[Result]) -> str:
    """Markdown: a row per ratio, and below them a note for each row without a ratio or above its mark."""
    lines = [
        "| what | against | ratio | at most | aim | ours | peer | same result |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    notes: list[str] = []
    for result in results:
        row = result.row
        ratio = "-" if result.ratio is None else f"{result.ratio:.3g}"
        if result.ratio is not None and result.ratio <= row.mark:
            ratio = f"**{ratio}**"
        if result.note:
            notes.append(f"{len(notes) + 1}. {row.what}, against {row.against}: {result.note}.")
            ratio += f" ({len(notes)})"
        aim = "" if row.aim is None else f"{row.aim:g}"
        cells = (row.what, row.against, ratio, f"{row.mark:g}", aim, _shown(result.ours, result.unit),
                 _shown(result.peer, result.unit), result.equal)  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines + (["", *notes] if notes else []))


def write_document(results: Mapping[str, Sequence[Result]], common: Mapping[str, str], path: Path) -> None:
    """Write the results into docs/benchmarks.md, or a page of that form. What stands above MARKER in it is kept."""
    above = path.read_text(encoding="utf-8").partition(MARKER)[0] if path.exists() else "# Benchmarks\n\n"
    parts = [
        f"{above}{MARKER}",
        "## Conditions",
        "Each row is a ratio of times, hrseg's divided by the peer's: below 1, hrseg is faster. Both sides are "
        "measured in turns in one run under the same conditions; times are medians with half the interquartile range. "
        "Where several routes are named, the fastest counts. Bold: the ratio is at most the target in the column "
        "'at most'. 'aim' is a stricter target. The last column compares the results of both sides in the same run. "
        "No ratio is reported while other processes use more than 0.3 CPUs, or where the quartiles are more than "
        "10 % apart. Allocator: `system` is what a plain script gets; with `keep`, freed memory stays in the "
        "process, as in hrseg's commands, which makes both sides faster.",
        "\n".join(f"- {name}: {value}" for name, value in common.items()),
    ]
    for subject, found in results.items():
        parts += [f"## {subject}", table(found)]
    write("\n\n".join(parts) + "\n", path)


def write(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def as_json(results: Mapping[str, Sequence[Result]], common: Mapping[str, str]) -> str:
    """One line: the conditions, and every row with its figures; null where not measured."""
    rows = [
        {
            "subject": subject,
            "what": result.row.what,
            "against": result.row.against,
            "ratio": result.ratio,
            "mark": result.row.mark,
            "aim": result.row.aim,
            "unit": result.unit,
            "ours": _plain(result.ours),
            "peer": _plain(result.peer),
            "equal": result.equal,
            "note": result.note,
        }
        for subject, found in results.items()
        for result in found
    ]
    return json.dumps({**common, "rows": rows}, allow_nan=False)


def _plain(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {"side": figure.side, "median": figure.median, "quartiles": [figure.low, figure.high]}


def _shown(figure: Figure | None, unit: str) -> str:
    if figure is None:
        return "-"
    factor, name = (1e3, "ms") if unit.startswith("s") else (1.0, unit)
    return f"{figure.side}: {figure.median * factor:.3g} ± {(figure.high - figure.low) / 2 * factor:.1g} {name}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
