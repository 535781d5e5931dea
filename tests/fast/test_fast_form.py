"""Evaluation by the fast form of a model scores as the model itself does."""

from __future__ import annotations

import json

import pytest

from hrseg.commands import test as test_command
from hrseg.fast import engines
from hrseg.fast.optimize import Optimized
from tests.shapes import save_checkpoint


@pytest.mark.parametrize("members", [1, 2])
def test_scores_are_those_of_the_model_as_it_is(members, saved, shapes, tmp_path, monkeypatch):
    used = []
    answer = Optimized.forward
    monkeypatch.setattr(Optimized, "forward", lambda self, x: used.append(self.backend) or answer(self, x))
    monkeypatch.setattr("hrseg.evaluate.evaluation.FEW_IMAGES", 2)
    paths = [saved, save_checkpoint(tmp_path / "other.pt", seed=1)][:members]
    words = [word for path in paths for word in ("--checkpoint", str(path))]
    words += ["data.dataset=folder", f"data.root={shapes}", "data.workers=0", "eval.pictures=0", "run.threads=1"]
    scores = {}
    for backend in ("none", "torch", "auto"):
        folder = tmp_path / backend
        assert test_command.main([*words, f"eval.backend={backend}", "--out", str(folder)]) == 0
        scores[backend] = json.loads((folder / "metrics.json").read_text())["miou"]
    assert set(used) == {"torch", *engines.installed_engines("fp32")[:1]} and len(used) == 4 * members
    # A pixel whose classes tie may change sides.
    assert scores["torch"] == pytest.approx(scores["none"], abs=1e-3)
    assert scores["auto"] == pytest.approx(scores["none"], abs=1e-3)
