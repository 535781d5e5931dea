"""Class, category and instance scores of predictions in PNG files, with hrseg and with cityscapesScripts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrseg.benchmark import official_evaluation, scenes
from hrseg.benchmark.measure import Case, Options, Row
from hrseg.data.cityscapes import Cityscapes
from hrseg.data.images import read_mask
from hrseg.evaluate.evaluator import Evaluation, Evaluator
from hrseg.evaluate.prediction_files import Predictions

SCENES = 8  # enough for reading ahead to matter, as it does with the 500 of Cityscapes
PACKAGES = ("cityscapesscripts==2.3.0", "numpy<2", "pillow<11")  # the numpy that the scripts were written for


class _Bar:
    def update(self) -> None:
        pass


class _Official:
    """cityscapesScripts in a process of its own, which times itself."""

    def __init__(self, python: Path, predictions: list[str], masks: list[str]):
        command = [str(python), official_evaluation.__file__]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._write(json.dumps([predictions, masks]))

    def __call__(self) -> dict[str, Any]:
        """The scores and the seconds they took."""
        self._write("")
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


def cases(options: Options) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        scenes.write(root, SCENES)
        dataset = Cityscapes(root, "val")
        python = _environment(root / "venv")
        sides: dict[str, Any] = {"hrseg": lambda: timed()[0], "official": python}
        if isinstance(python, Path):
            files = (root / "pred").glob("*.png"), (root / "gtFine").rglob("*_labelIds.png")
            official = _Official(python, *(sorted(map(str, paths)) for paths in files))
            stack.enter_context(official.process)  # leaving closes its input, which ends it
            sides["official"] = lambda: official()["seconds"][options.clock]

        def timed() -> tuple[float, Evaluation]:
            clock = time.perf_counter if options.clock == "wall" else time.process_time
            start = clock()
            evaluator = Evaluator(dataset, boundary_ratio=0, void_predictions=True)
            Predictions(dataset, root / "pred").evaluate(evaluator, lambda *_: None, _Bar())
            evaluation = evaluator.evaluation()
            return clock() - start, evaluation

        def equal() -> str:
            theirs, scores = official()["scores"], timed()[1].scores
            by_name = {entry["name"]: entry["iou"] for entry in scores.to_plain()["classes"]}
            instances = theirs["classInstScores"] | theirs["categoryInstScores"]
            pairs = [
                *((by_name[n], theirs["classScores"][n]) for n in by_name),
                *((v, theirs["categoryScores"][n]) for n, v in scores.category.items()),
                *((v, instances[n]) for n, v in {**scores.iiou, **scores.category_iiou}.items()),
            ]
            off = [abs((a if a is not None else np.nan) - b) for a, b in pairs]
            assert all(np.isnan(d) or d < 1e-9 for d in off), f"{np.nanmax(off)}"
            assert [a is None or np.isnan(a) for a, _ in pairs] == [bool(np.isnan(b)) for _, b in pairs], "absent"
            return f"{len(pairs)} scores within 1e-9"

        def decoding(seconds: float) -> str:
            paths = [*(root / "pred").glob("*.png"), *(root / "gtFine").rglob("*Ids.png")]
            start = time.process_time()
            for path in paths:
                read_mask(path)
            share = (time.process_time() - start) / torch.get_num_threads() / seconds
            return f"decoding the PNG files alone, as fast as all threads can, takes {share:.0%} of the time"

        what = f"{SCENES} predictions of 2048x1024: class, category, iIoU"
        against = f"{PACKAGES[0]} with {PACKAGES[1]}"
        row = Row(what, against, ["hrseg"], ["official"], 0.11, equal=equal, why=decoding)
        yield Case(sides, [row], unit="s, self-timed")


def _environment(folder: Path) -> Path | str:
    """The Python of an environment with cityscapesScripts; a sentence where it cannot be made."""
    python = folder / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return f"an environment with {', '.join(PACKAGES)} cannot be made"
    return python
