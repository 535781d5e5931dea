"""make gpu: what it says without a GPU, and that whatever was found by its end is on the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from hrseg.benchmark import gpu
from tests.conftest import ROOT


def test_without_a_gpu_it_says_so_in_one_line():
    words = [sys.executable, "tools/benchmark.py", "gpu"]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 2 and "no CUDA device" in done.stderr and done.stderr.count("\n") == 1


def test_a_part_that_is_stopped_leaves_what_it_found(tmp_path, monkeypatch):
    record = {"part": "learns", "what": "CamVid val", "value": "mIoU 0.5"}
    cut = json.dumps(record) + "\n" + '{"part": '
    code = f"import sys, time\nfile = open(sys.argv[1], 'a')\nfile.write({cut!r})\nfile.close()\ntime.sleep(60)"
    (tmp_path / "gpu_learns.py").write_text(code)
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "conditions", lambda: {"card": "none"})
    monkeypatch.setattr(gpu, "TOTAL_S", 2.0)
    monkeypatch.setattr(gpu, "LEAST_TO_LEARN_S", 1.0)
    monkeypatch.setattr(
        gpu,
        "words_of",
        lambda part, out, limit: [sys.executable, str(tmp_path / "gpu_learns.py"), str(out / "results.jsonl")],
    )
    assert gpu.prove_measure_learn(tmp_path / "out", only=["learns"]) == 1
    page = (tmp_path / "out" / gpu.DOCUMENT).read_text()
    assert "mIoU 0.5" in page and "exit code 124" in page


def test_the_page_has_a_row_a_ratio_and_names_what_failed():
    records = [
        {"part": "conditions", "card": "A card"},
        {"part": "right", "what": "tests/gpu/test_a.py::test_b", "outcome": "failed", "why": "AssertionError"},
        {"part": "right", "what": "tests/gpu/test_a.py::test_c", "outcome": "passed"},
        {"part": "measured", "what": "w18", "ours": "hrseg bf16", "against": "textbook", "ratio": 0.25, "ms": [1, 4],
         "peak GiB": [0.1, 0.2]},
        {"part": "measured", "what": "eight", "why": "failed: out of memory"},
    ]  # fmt: skip
    page = gpu.page(records)
    for said in (
        "1 passed, 1 failed",
        "test_b: AssertionError",
        "| w18 | hrseg bf16 | textbook | 0.25 |",
        "eight: failed",
    ):
        assert said in page
