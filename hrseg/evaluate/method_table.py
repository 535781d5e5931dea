"""Several methods, each in one or more seeds, as one table for a paper or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hrseg import build
from hrseg import config as settings
from hrseg.errors import DataError
from hrseg.evaluate.comparison import MAY_DIFFER, require_same_data
from hrseg.metrics import PerImage, mean_interval, summed_scores
from hrseg.report.run_folder import differing_settings
from hrseg.tracking import read_log

SIDE = 512  # pixels of the image whose multiplications are counted, where the settings name no crop
HEADS = ("method", "seeds", "mean IoU %", "std over seeds", "95 % interval", "parameters, M", "GMACs", "s/image")


class Method(NamedTuple):
    """The runs that differ in the seed alone.

    std: over the seeds, NaN for one. seconds: an image, in the last validation.
    """

    name: str
    seeds: int
    miou: float
    std: float
    interval: tuple[float, float] | None
    parameters: int | None
    macs: float | None
    seconds: float | None


def methods_of_runs(folders: Sequence[Path], runs: Sequence[PerImage], definition: str | None) -> list[Method]:
    """The methods of runs in folders with metrics.json, the best first.

    Raises DataError where a run has no metrics.json, or the runs are not on the same images and labels.
    """
    require_same_data(runs)
    metrics = [_metrics(folder) for folder in folders]
    groups: list[list[int]] = []
    for number, own in enumerate(metrics):
        for group in groups:
            if not _differing(metrics[group[0]]["config"], own["config"]):
                group.append(number)
                break
        else:
            groups.append([number])
    firsts = [metrics[group[0]]["config"] for group in groups]
    found = []
    for group in groups:
        measures = [summed_scores(runs[n], definition or runs[n].definition)["miou"] for n in group]
        values = [float(m.value()) for m in measures]
        parameters, macs = _size(metrics[group[0]]["config"], runs[group[0]])
        timed = [seconds / metrics[n]["images"] for n in group if (seconds := _validation_s(folders[n]))]
        found.append(
            Method(
                _name(metrics[group[0]]["config"], firsts, [folders[n] for n in group]),
                len(group),
                float(np.mean(values)),
                float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
                mean_interval(measures, runs[group[0]].clusters),
                parameters,
                macs,
                float(np.mean(timed)) if timed else None,
            )
        )
    return sorted(found, key=lambda method: -method.miou)


def as_markdown(methods: Sequence[Method]) -> str:
    """A table of Markdown."""
    rows = [HEADS, ["---"] + ["---:"] * (len(HEADS) - 1), *map(_cells, methods)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def as_latex(methods: Sequence[Method]) -> str:
    """A tabular of LaTeX, with the rules of the package booktabs."""
    special = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"})
    lines = [" & ".join(cell.translate(special) for cell in row) + r" \\" for row in (HEADS, *map(_cells, methods))]
    columns = "l" + "r" * (len(HEADS) - 1)
    ends = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([*ends, r"\end{tabular}", ""])


def as_csv(methods: Sequence[Method]) -> str:
    """Plain numbers, shares in [0, 1]; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["method", "seeds", "miou", "std", "low", "high", "parameters", "macs", "seconds"])
    for m in methods:
        std = "" if np.isnan(m.std) else m.std
        writer.writerow([m.name, m.seeds, m.miou, std, *(m.interval or ("", "")), m.parameters, m.macs, m.seconds])
    return text.getvalue()


def _cells(m: Method) -> list[str]:
    return [
        m.name,
        str(m.seeds),
        f"{100 * m.miou:.2f}",
        "-" if np.isnan(m.std) else f"{100 * m.std:.2f}",
        f"{100 * m.interval[0]:.2f} to {100 * m.interval[1]:.2f}" if m.interval else "-",
        "-" if m.parameters is None else f"{m.parameters / 1e6:.2f}",
        "-" if m.macs is None else f"{m.macs / 1e9:.1f}",
        "-" if m.seconds is None else f"{m.seconds:.3f}",
    ]


def _metrics(folder: Path) -> dict[str, Any]:
    path = (folder if folder.is_dir() else folder.parent) / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["config"]["run"]["seed"], found["images"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"is not the metrics.json of an evaluated run: {error}."
        raise DataError(path, what, "Score it again: tools/test.py.") from None
    return found


def _validation_s(folder: Path) -> float | None:
    """How long the last validation of a run took, from its log.jsonl."""
    path = (folder if folder.is_dir() else folder.parent) / "log.jsonl"
    records = read_log(path) if path.is_file() else []
    return next((r.get("time_s") for r in reversed(records) if r["kind"] == "val"), None)


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [key for key, *_ in differing_settings(ours, theirs) if not key.startswith(MAY_DIFFER)]


def _name(config: Mapping[str, Any], all_methods: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> str:
    """The settings in which the methods differ; of a single method the folder of its first run."""
    keys = sorted({key for other in all_methods for key in _differing(config, other)})
    plain = settings.flattened(config)
    if not 0 < len(keys) <= 4:
        return folders[0].resolve().name
    return ", ".join(f"{key}={json.dumps(plain.get(key))}" for key in keys)


def _size(config: Mapping[str, Any], run: PerImage) -> tuple[int | None, float | None]:
    """Parameters, and multiplications with an image of the crop's size; None where the network cannot be built here."""
    try:
        parsed = settings.parse(dict(config))
        channels = len(parsed.data.mean) if parsed.data.mean else 3
        height, width = parsed.augment.crop or (SIDE, SIDE)
        with torch.device("meta"):
            model = build.model(parsed, run.space, channels).eval()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.zeros(1, channels, height, width))
        return sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2
    except Exception:  # settings of other versions, pieces of elsewhere: the scores are the table's point
        return None, None
