"""A plugin of pytest: the outcome of each test of `make gpu` as a line of its results, written when it is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hrseg.benchmark.gpu import write


def pytest_runtest_logreport(report: Any) -> None:
    """One line a test: when it was called, or where its preparation failed or skipped it."""
    path = os.environ.get("HRSEG_GPU_RESULTS")
    if path is None or not (report.when == "call" or report.outcome != "passed"):
        return
    record = {"part": "right", "what": report.nodeid, "outcome": report.outcome, "s": round(report.duration, 2)}
    if report.outcome == "failed":
        record["why"] = str(report.longrepr).strip().splitlines()[-1][:300]
    write(Path(path), record)
