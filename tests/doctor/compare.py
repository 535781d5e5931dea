"""How well the doctor finds errors that were put in, beside cleanlab and the IoU of each image, on the same models.

python -m tests.doctor.compare RUN RUN RUN --spoilt data/spoilt --doctor runs/doctor --cleanlab PYTHON

PYTHON is one that has cleanlab (pip install cleanlab, into an environment of its own). Ignored pixels, which cleanlab
does not know, are given the predicted class as their label.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hrseg.build.evaluation import evaluation_plan
from hrseg.build.trained_model import load_trained_model
from hrseg.data.cityscapes import Cityscapes
from hrseg.data.loader import Normalise
from hrseg.doctor.judging import judges
from hrseg.doctor.suspects import read_suspects

CLEANLAB = """
import json, sys, numpy as np
from cleanlab.segmentation.rank import get_label_quality_scores
scores = []
for path in sys.argv[1:]:
    part = np.load(path)
    of_images, _ = get_label_quality_scores(part["labels"], part["probabilities"].astype(np.float32), verbose=False)
    scores += of_images.tolist()
print(json.dumps(scores))
"""


def average_precision(scores: Sequence[float], wrong: Sequence[bool]) -> float:
    """Mean of the precision at each wrong item, in the order of falling scores."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.asarray(wrong, bool)[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()) if hits.any() else float("nan")


@torch.inference_mode()
def baselines(runs: Sequence[str], overrides: Sequence[str], python: str) -> tuple[list[str], list[float], list[float]]:
    """Names of the images, cleanlab's score and the mean IoU of each, both from the models of folds."""
    names, ious, files = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for judge in judges(runs, overrides):
            model = load_trained_model(judge.source).model
            inference = evaluation_plan(judge.config, judge.dataset.space.task).inference
            normalise = Normalise(judge.normalisation)
            kept, labels = [], []
            for i in range(len(judge.dataset)):
                sample = judge.dataset[i]
                image = torch.from_numpy(sample.image).permute(2, 0, 1)[None]
                probabilities = inference.probabilities(inference(model, normalise(image)))[0].numpy()
                predicted, known = probabilities.argmax(0), sample.target < len(probabilities)
                present = np.union1d(np.unique(predicted[known]), np.unique(sample.target[known]))
                both = [((predicted == c) & (sample.target == c) & known).sum() for c in present]
                either = [(((predicted == c) | (sample.target == c)) & known).sum() for c in present]
                names.append(judge.dataset.names[i])
                ious.append(float(np.mean(np.divide(both, either))))
                kept.append(probabilities.astype(np.float16))
                labels.append(np.where(known, sample.target, predicted))
                if len(kept) == 25 or i == len(judge.dataset) - 1:
                    files.append(f"{folder}/{len(files):04d}.npz")
                    np.savez(files[-1], labels=np.stack(labels), probabilities=np.stack(kept))
                    kept, labels = [], []
        told = subprocess.run([python, "-c", CLEANLAB, *files], capture_output=True, text=True, check=True)
    return names, json.loads(told.stdout.splitlines()[-1]), ious


def touched(doctor: Path, spoilt: Path, first: int) -> tuple[int, int]:
    """How many of the first suspects touch an error, and how many there are."""
    there = json.loads((spoilt / "spoilt.json").read_text())
    now, true = Cityscapes(spoilt, "train"), Cityscapes(there["of"], "train")
    place = {name: i for i, name in enumerate(now.names)}
    suspects = read_suspects(doctor)[1][:first]
    hits = 0
    for s in suspects:
        i, (top, left, bottom, right) = place[s.image], s.box
        wrong = now.read_target(i) != true.read_target(i)
        hits += bool((wrong[top:bottom, left:right] & s.inside()).any())
    return hits, len(suspects)


def table(rows: dict[str, dict[str, float]], kinds: dict[str, str]) -> str:
    """Average precision of each method, over all spoilt images and for each kind alone (without the other kinds)."""
    names = sorted(next(iter(rows.values())))
    lines = [f"{'':<24}{'images':>8}" + "".join(f"{method:>14}" for method in rows)]
    for kind in ["all", *dict.fromkeys(kinds.values())]:
        chosen = [n for n in names if n not in kinds or kind in ("all", kinds[n])]
        wrong = [n in kinds for n in chosen]
        found = [average_precision([rows[m][n] for n in chosen], wrong) for m in rows]
        lines.append(f"{kind:<24}{sum(wrong):>8}" + "".join(f"{ap:>14.3f}" for ap in found))
    return "\n".join(lines)


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("runs", nargs="+")
    words.add_argument("--spoilt", type=Path, required=True)
    words.add_argument("--doctor", type=Path, required=True)
    words.add_argument("--cleanlab", required=True, metavar="PYTHON")
    given = words.parse_args()
    kinds_of = json.loads((given.spoilt / "spoilt.json").read_text())["kinds"]
    images, cleanlab, iou = baselines(given.runs, [f"data.root={given.spoilt}"], given.cleanlab)
    ours = {e["image"]: e["score"] for e in read_suspects(given.doctor)[0]["images"]}
    print(table({
        "doctor": ours,
        "cleanlab": {n: -s for n, s in zip(images, cleanlab, strict=True)},
        "image IoU": {n: -s for n, s in zip(images, iou, strict=True)},
    }, kinds_of))  # fmt: skip
    for number in (20, 50):
        print("of the first {1} regions, {0} touch an error".format(*touched(given.doctor, given.spoilt, number)))
