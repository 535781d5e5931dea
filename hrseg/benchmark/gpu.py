"""tools/benchmark.py gpu: in nine minutes on one GPU, whether hrseg is right there, how fast it is, whether it learns.

Each part is a process with a time limit of its own; what it finds is written line by line, so that a stop loses
nothing of it.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hrseg.errors import HrsegError
from hrseg.installed_packages import versions

TOTAL_S = 530.0  # of all parts together: below the nine minutes of the promise
LIMITS_S = {"right": 200.0, "measured": 150.0}  # the rest is for learning, which is not started with less than
LEAST_TO_LEARN_S = 60.0
ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "benchmarks_gpu.md"
NEEDED = ("segmentation_models_pytorch", "timm", "albumentations", "pydantic", "pytest", "hypothesis", "cv2", "scipy")
MEASURED = "Ratios of times: below 1, hrseg is faster. Medians; both sides in turns in one run."


def prove_measure_learn(out: Path, *, only: Sequence[str] = ()) -> int:
    """Do the three parts in order of worth and leave results.jsonl, the parts' output and the page in a folder.

    only: names of parts; all by default. Returns 0 where every part did all of it, else 1.
    Raises HrsegError where there is no GPU, or packages are missing.
    """
    if not torch.cuda.is_available():
        raise HrsegError("gpu", "there is no CUDA device on this machine.", "`make test` runs what can be run without.")
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        what = f"not installed: {', '.join(absent)}."
        raise HrsegError("gpu", what, 'pip install -e ".[test]", or wheels of them in the folder .whl.')
    out.mkdir(parents=True, exist_ok=True)
    results, began = out / "results.jsonl", time.monotonic()
    results.unlink(missing_ok=True)
    write(results, {"part": "conditions", **conditions()})
    codes = []
    for part in only or ("right", "measured", "learns"):
        left = TOTAL_S - (time.monotonic() - began)
        limit = min(LIMITS_S.get(part, left), left)
        if limit < LEAST_TO_LEARN_S:
            write(results, {"part": part, "what": "not started", "why": f"{left:.0f} s were left"})
            continue
        print(f"{part}: at most {limit:.0f} s ...", flush=True)
        codes.append(_run(part, out, limit))
        write(results, {"part": part, "what": "ended", "exit code": codes[-1], "s": time.monotonic() - began})
        (out / DOCUMENT).write_text(page(read(results)), encoding="utf-8")
    (out / DOCUMENT).write_text(page(read(results)), encoding="utf-8")
    print(f"written: {out / DOCUMENT}, {results}")
    return 0 if codes and not any(codes) else 1


def _run(part: str, out: Path, limit_s: float) -> int:
    """Run a part in a process of its own; 124 where it was stopped at its limit."""
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "HRSEG_GPU_RESULTS": str(out.resolve() / "results.jsonl"),
    }
    words = words_of(part, out, limit_s)
    with (out / f"{part}.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True)  # fmt: skip
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return 124


def words_of(part: str, out: Path, limit_s: float) -> list[str]:
    """The command of a part."""
    if part == "right":
        plugins = ["-p", "hrseg.benchmark.gpu_tests", "-p", "no:cacheprovider"]
        return [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", "tests/export", "-rf", "--tb=short", *plugins]
    module = {"measured": "gpu_measured", "learns": "gpu_learns"}[part]
    return [sys.executable, "-m", f"hrseg.benchmark.{module}", str(out.resolve() / "results.jsonl"), str(limit_s - 5)]


def _end(process: subprocess.Popen) -> None:
    """End a process with all that it started: it leads a session of its own."""
    try:
        os.killpg(process.pid, 15)
        process.wait(5)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to a JSON-lines file."""
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * _is_cut(path) + json.dumps(record) + "\n")


def _is_cut(path: Path) -> bool:
    """Whether the last line has no end: its writer was stopped."""
    content = path.read_bytes()
    return bool(content) and not content.endswith(b"\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The records of such a file; a last line that is not whole is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def conditions() -> dict[str, Any]:
    """The card, its memory, software and the date."""
    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name,
        "memory GiB": round(card.total_memory / 2**30),
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "date": datetime.date.today().isoformat(),
    }


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as docs/benchmarks_gpu.md."""
    of = {part: [r for r in records if r["part"] == part] for part in ("conditions", "right", "measured", "learns")}
    lines = ["# On a GPU", "", "Written by `make gpu` ([what it does](gpu.md)).", ""]
    lines += [f"- {name}: {value}" for r in of["conditions"] for name, value in r.items() if name != "part"]
    tests = [r for r in of["right"] if "outcome" in r]
    counts = {name: sum(r["outcome"] == name for r in tests) for name in ("passed", "failed", "skipped")}
    lines += ["", "## Right", "", ", ".join(f"{number} {name}" for name, number in counts.items()) + ".", ""]
    lines += [f"- FAILED {r['what']}: {r.get('why', '')}" for r in tests if r["outcome"] == "failed"]
    lines += ["", "## Measured", "", MEASURED, "", "| what | hrseg | against | ratio | ms | peak GiB |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    lines += [row(r) for r in of["measured"] if "ratio" in r]
    lines += ["", *(f"- {r['what']}: {r['why']}" for r in of["measured"] if "why" in r)]
    lines += ["", "## Learns", ""]
    lines += [f"- {r['what']}: {r.get('value', r.get('why', ''))}" for r in of["learns"] if r["what"] != "ended"]
    stopped = [f"{r['part']} (exit code {r['exit code']})" for r in records if r.get("exit code")]
    lines += ["", f"Not all was done: {', '.join(stopped)}."] if stopped else []
    return "\n".join(lines) + "\n"


def row(r: Mapping[str, Any]) -> str:
    """One measured ratio as a row of the page."""
    cells = [r["what"], r["ours"], r["against"], f"{r['ratio']:.3g}", f"{r['ms'][0]:.3g} / {r['ms'][1]:.3g}"]
    return f"| {' | '.join([*cells, ' / '.join(f'{gib:.2f}' for gib in r['peak GiB'])])} |"
