"""The learning part of `make gpu`: CamVid from random weights in the time that is left.

python -m hrseg.benchmark.gpu_learns RESULTS SECONDS
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hrseg.benchmark.gpu import ROOT, write

TRIAL, START_S, END_S = 60, 20.0, 20.0  # iterations that show the speed; seconds of start and of the last validation
LEAST = 100  # iterations


def main(results: Path, limit_s: float) -> int:
    """Measure the speed in a short run, then train as long as there is time. Returns an exit code."""
    end = time.monotonic() + limit_s
    root = Path(os.environ.get("HRSEG_SHARED", ROOT.parent / "shared")) / "data" / "camvid"
    if not root.is_dir():
        write(results, {"part": "learns", "what": "CamVid", "why": f"skipped: {root} is not there (set HRSEG_SHARED)"})
        return 0
    trial, whole = (results.parent / f"learns_{name}" for name in ("trial", "whole"))
    if code := _train(root, trial, TRIAL, []):
        return code
    log = [json.loads(line) for line in (trial / "log.jsonl").read_text().splitlines()]
    rates = [record["images_per_s"] for record in log if record["kind"] == "train"][2:]
    config = ROOT / "configs" / "camvid_gpu.yaml"
    from hrseg import config as settings

    per_s = statistics.median(rates) / settings.load(config).train.batch_size
    iterations = int((end - time.monotonic() - START_S - END_S) * per_s * 0.9)
    if iterations < LEAST:
        why = f"not started: the time left is enough for {max(0, iterations)} iterations"
        write(results, {"part": "learns", "what": "CamVid", "why": why})
        return 1
    start = time.monotonic()
    code = _train(root, whole, iterations, [])
    metrics = whole / "metrics.json"
    if metrics.exists():
        miou = json.loads(metrics.read_text())["miou"]
        spent = f"{iterations} iterations, {time.monotonic() - start:.0f} s"
        write(
            results, {"part": "learns", "what": "CamVid val, from random weights", "value": f"mIoU {miou:.4f}, {spent}"}
        )
    return code


def _train(root: Path, folder: Path, iterations: int, more: Sequence[str]) -> int:
    words = ["tools/train.py", "configs/camvid_gpu.yaml", f"data.root={root}", f"run.dir={folder}"]
    words += [f"train.iterations={iterations}", f"train.val_every={iterations}", *more]
    return subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
