"""Predictions as PNG files to class, category and instance scores, beside Cityscapes' own judge."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.benchmark import scenes
from hrseg.benchmark.measure import Case, Options, Row, missing
from hrseg.data.cityscapes import Cityscapes
from hrseg.engine.judge import Evaluation, Judge
from hrseg.engine.predictions import Predictions

SCENES = 3


class _Bar:
    def update(self) -> None:
        pass


def cases(options: Options) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scenes.write(root, SCENES)
        dataset = Cityscapes(root, "val")

        def ours() -> Evaluation:
            judge = Judge(dataset, boundary_ratio=0)
            Predictions(dataset, root / "pred").evaluate(judge, lambda *_: None, _Bar())
            return judge.evaluation()

        def official() -> dict[str, Any]:
            from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as judge

            if not hasattr(np, "in1d"):
                np.in1d = np.isin  # type: ignore[attr-defined] # gone from numpy 2.4, without which it ends here
            judge.args.quiet, judge.args.JSONOutput = True, False
            truths = sorted(map(str, (root / "gtFine").rglob("*_labelIds.png")))
            return judge.evaluateImgLists(sorted(map(str, (root / "pred").glob("*.png"))), truths, judge.args)

        def equal() -> str:
            theirs, scores = official(), ours().scores
            plain = scores.to_plain()
            by_name = {entry["name"]: entry["iou"] for entry in plain["classes"]}
            pairs = [
                *((by_name[n], theirs["classScores"][n]) for n in by_name),
                *((v, theirs["categoryScores"][n]) for n, v in scores.category.items()),
                *((v, (theirs["classInstScores"] | theirs["categoryInstScores"])[n]) for n, v in scores.iiou.items()),
            ]
            off = [abs((a if a is not None else np.nan) - b) for a, b in pairs]
            assert all(np.isnan(d) or d < 1e-9 for d in off), f"{np.nanmax(off)}"
            assert [a is None or np.isnan(a) for a, _ in pairs] == [bool(np.isnan(b)) for _, b in pairs], "absent"
            return f"{len(pairs)} scores within 1e-9"

        sides: dict[str, Any] = {"hrseg": ours, "official": missing("cityscapesscripts") or official}
        what = f"{SCENES} predictions of 2048x1024: class, category, iIoU"
        yield Case(sides, [Row(what, "cityscapesScripts", ["hrseg"], ["official"], 0.11, equal=equal)])
