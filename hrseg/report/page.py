"""One self-contained page per run: how good it is, where it fails, what changed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from hrseg.config import flattened
from hrseg.console import counted
from hrseg.errors import HrsegError
from hrseg.files import whole_file
from hrseg.made_files import require_replaceable
from hrseg.metrics import difference, image_ious, interval, yes_pixels
from hrseg.report import charts, run_folder
from hrseg.report.matrix import confusion_matrix_view
from hrseg.report.run_folder import EvaluatedRun
from hrseg.report.viewer import viewer_data
from hrseg.task import Task

LOOKS = ("ours", "theirs")  # classes of the style sheet: this run, and the one it is compared with


def write_report(
    folder: Path, against: Path | None = None, *, out: Path | None = None, progress: tuple[int, int] | None = None
) -> Path:
    """Write a run's report.html from the files in its folder; with `against`, a comparison with another run.

    out: by default report.html in the folder, or report_against_<other>.html for a comparison. progress: iterations
    done and planned of a training that goes on; the page then loads itself again every half minute.
    Raises HrsegError where a folder holds no evaluated run, or the two have different classes.
    """
    ours = run_folder.read_run(folder)
    theirs = run_folder.read_run(against) if against is not None else None
    if theirs and theirs.classes != ours.classes:
        raise HrsegError(theirs.folder, f"has other classes than {folder}.", "Compare runs on one data set.")
    name = f"report_against_{re.sub(r'[^A-Za-z0-9_.-]', '_', theirs.name)}.html" if theirs else "report.html"
    out = out or folder / name
    require_replaceable(out)
    text = html(ours, theirs, progress)
    with whole_file(out, way_out="Choose another place with --out.") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def html(ours: EvaluatedRun, theirs: EvaluatedRun | None = None, progress: tuple[int, int] | None = None) -> str:
    """The page as text. Everything from files is escaped; its policy forbids the network and any script but its own."""
    script, style = (resources.files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrseg.report", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "points": points, "grouped": grouped, "plain": json.dumps}
    environment.filters |= {"counted": counted, "data_name": run_folder.data_name}
    runs = [run for run in (ours, theirs) if run]
    names, same_data = _names(runs), len({run_folder.data_hash(run.per_image) for run in runs}) == 1
    return environment.get_template("page.html").render(
        title=" against ".join(names),
        names=names,
        looks=LOOKS,
        runs=runs,
        compared=theirs is not None,
        same_data=same_data,
        headlines=_headlines(runs, same_data),
        classes=_classes(runs),
        confusions=_confusions(runs),
        progress=progress,
        written=time.strftime("%Y-%m-%d %H:%M"),
        subtitles=[_subtitle(run) for run in runs],
        matrices=[confusion_matrix_view(run) for run in runs],
        precision_recall=_precision_recall(runs, names),
        curves=_curves(runs, names),
        class_curves=_class_curves(runs, names),
        histogram=_histogram(runs, names),
        cards=[{"pairs": _card(run), "settings": flattened(run.metrics["config"]).items()} for run in runs],
        settings=run_folder.differing_settings(theirs.metrics["config"], ours.metrics["config"]) if theirs else [],
        viewer=viewer_data(runs, names),
        script=Markup(script),
        style=Markup(style),
        # The hash is of the element's content, newlines at its ends included.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if share is None or np.isnan(share) else f"{100 * share:.{digits}f}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "–" if difference is None else f"{100 * difference:+.2f}".replace("-", "−")


def grouped(number: int) -> str:
    """A whole number with a thin space at the thousands."""
    return f"{number:,}".replace(",", "\u202f")


def _names(runs: Sequence[EvaluatedRun]) -> list[str]:
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


HEADLINES = (  # label, name in metrics.json, what it says
    ("foreground IoU", "foreground_iou", "overlap of the foreground in ground truth and prediction, over their union"),
    ("foreground Dice", "foreground_dice", "F1: harmonic mean of precision and recall"),
    ("precision", "foreground_precision", "share of what is predicted as foreground that is"),
    ("recall", "foreground_recall", "share of the foreground that is found"),
    ("mean IoU", "miou", "overlap of ground truth and prediction, over their union"),
    ("pixel accuracy", "pixel_accuracy", "share of pixels predicted correctly"),
    ("class accuracy", "class_accuracy", "share of each class found, mean over classes"),
    ("boundary IoU", "boundary_miou", "IoU near outlines, mean over classes"),
    ("category IoU", "category_miou", "IoU of groups of classes"),
    ("instance-weighted IoU", "mean_iiou", "every object counts the same"),
    ("mean IoU per image", "image_miou", "mean over the images, false alarms included"),
    ("worst tenth", "worst_decile_miou", "mean IoU per image over the worst tenth of the images"),
    ("calibration error", "ece", "gap between confidence and accuracy; lower is better"),
)


def _headlines(runs: Sequence[EvaluatedRun], same_data: bool) -> list[dict[str, Any]]:
    """The scores at the top, as far as they were measured, with 95 % intervals; the first is the main one.

    The interval of a difference is known where both runs were scored on the same data.
    """
    measured = [run.summed_scores() for run in runs]
    found = []
    for label, name, told in HEADLINES:
        if not all(name in of_run for of_run in measured):
            continue
        values = [float(of_run[name].value()) for of_run in measured]
        paired = (
            difference([measured[0][name]], [measured[-1][name]], runs[0].per_image.clusters) if same_data else None
        )
        sign = -1 if name == "ece" else 1
        found.append(
            {
                "label": label,
                "told": told,
                "values": values,
                "intervals": [interval(m[name], r.per_image.clusters) for m, r in zip(measured, runs, strict=True)],
                "change": values[0] - values[-1],
                "change_interval": paired.interval if paired else None,
                # Coloured only where the data show a difference, or where no interval is known.
                "better": 0 if paired and paired.interval and not paired.shown else sign * (values[0] - values[-1]),
            }
        )
    return found


def _change(values: Sequence[float | None]) -> float | None:
    ours, theirs = (*values, None)[:2]
    return None if ours is None or theirs is None else ours - theirs


def _classes(runs: Sequence[EvaluatedRun]) -> dict[str, Any]:
    """The class table: a row per class, with a value per run."""
    tables = [run.metrics["classes"] for run in runs]
    pixels = sum(row["pixels"] for row in tables[0]) or 1
    classes = runs[0].per_image.space.classes
    rows = [
        {
            "name": row["name"],
            "color": "rgb({},{},{})".format(*classes[number].color),
            "iou": [table[number]["iou"] for table in tables],
            "accuracy": [table[number]["accuracy"] for table in tables],
            "boundary": [table[number].get("boundary_iou") for table in tables],
            "change": _change([table[number]["iou"] for table in tables]),
            "share": row["pixels"] / pixels,
        }
        for number, row in enumerate(tables[0])
    ]
    if runs[0].per_image.space.task is Task.BINARY:
        rows.reverse()  # the foreground first
    return {"rows": rows, "boundary": any(v is not None for row in rows for v in row["boundary"])}


def _confusions(runs: Sequence[EvaluatedRun]) -> list[dict[str, Any]]:
    costly = run_folder.costliest_confusions(runs[0])
    before = {c[:2]: c for c in run_folder.costliest_confusions(runs[1], count=10_000)} if len(runs) > 1 else {}
    return [{"now": c, "before": before.get(c[:2])} for c in costly]


def _curves(runs: Sequence[EvaluatedRun], names: Sequence[str]) -> list[tuple[str, Markup]]:
    """Titles and charts of what log.jsonl holds."""

    def line(number: int, kind: str, key: str, *, points: bool = False) -> charts.Line:
        found = [(r["step"], r[key]) for r in runs[number].records if r["kind"] == kind and r.get(key) is not None]
        return charts.Line(names[number], LOOKS[number], [s for s, _ in found], [v for _, v in found], points)

    wanted = (
        ("Training loss", "train", "loss", False),
        ("Validation loss", "val", "loss", False),
        ("Mean IoU in validation, %", "val", "miou", True),
        ("Learning rate", "train", "lr", False),
        ("Pixels kept by OHEM, %", "train", "kept_share", True),
    )
    drawn = []
    for title, kind, key, as_percent in wanted:
        chart = [line(number, kind, key, points=kind == "val") for number in range(len(runs))]
        if any(len(entry.x) for entry in chart):
            drawn.append((title, charts.lines(title, chart, percent=as_percent)))
    return drawn


def _precision_recall(runs: Sequence[EvaluatedRun], names: Sequence[str]) -> list[dict[str, Any]]:
    """A chart for the foreground of a binary task, or for each label: precision over recall, best threshold marked."""
    drawn = []
    labels = [run.metrics.get("labels") or [run.metrics.get("foreground")] for run in runs]
    counts = [run.per_image.stacked("thresholds") for run in runs]
    for number, label in enumerate(labels[0]):
        lines, told = [], []
        for name, look, of_run, rows in zip(names, LOOKS, counts, labels, strict=False):
            if of_run is None or label is None or not rows[number] or not rows[number]["best"]:
                continue
            right, predicted, truth = yes_pixels(of_run.sum(axis=0)[number])
            some = predicted > 0
            lines.append(charts.Line(name, look, right[some] / truth, right[some] / predicted[some]))
            best = rows[number]["best"]
            at = f"{name}, threshold {best['threshold']:.2f}"
            lines.append(charts.Line(at, look, [best["recall"]], [best["precision"]], points=True))
            told.append(
                f"{name}: best IoU {percent(best['iou'])} %, Dice {percent(best['dice'])} %, "
                f"at threshold {best['threshold']:.2f}"
            )
        if lines:
            title = f"precision over recall: {label['name']}"
            chart = charts.lines(title, lines, percent=True, x_name="recall")
            drawn.append({"title": title, "chart": chart, "told": "; ".join(told)})
    return drawn


def _class_curves(runs: Sequence[EvaluatedRun], names: Sequence[str]) -> list[dict[str, Any]]:
    """A small chart for each class of its IoU in the validations of log.jsonl; none for fewer than two of them."""
    drawn = []
    for name in runs[0].classes:
        lines, last = [], None
        for number, run in enumerate(runs):
            found = [(r["step"], r["class_iou"].get(name)) for r in run.records if r.get("class_iou")]
            found = [(step, iou) for step, iou in found if iou is not None]
            if len(found) > 1:
                last = found[-1][1] if number == 0 else last
                steps, ious = zip(*found, strict=True)
                lines.append(charts.Line(names[number], LOOKS[number], steps, ious))
        if lines:
            drawn.append({"name": name, "last": last, "chart": charts.sparkline(f"IoU of {name}", lines)})
    return drawn


def _subtitle(run: EvaluatedRun) -> str:
    config = run.metrics["config"]
    images = counted(len(run.per_image), "image")
    network = f"{config['model']['arch']} over {config['model']['encoder']}"
    scored = f"scored on {images} of {run_folder.data_name(config)}, split {run.metrics.get('split')}"
    return f"{network}, {scored}" if run.metrics["checkpoint"] else scored.capitalize()


def _histogram(runs: Sequence[EvaluatedRun], names: Sequence[str]) -> Markup:
    ious = [image_ious(run.per_image) for run in runs]
    drawn = [(n, look, v[~np.isnan(v)]) for n, look, v in zip(names, LOOKS, ious, strict=False)]
    drawn = [entry for entry in drawn if len(entry[2])]
    return charts.histogram("images by their mean IoU", drawn) if drawn else Markup("")


def _card(run: EvaluatedRun) -> list[tuple[str, str]]:
    """What made the scores, as pairs of label and text."""
    metrics, config = run.metrics, run.metrics["config"]
    checkpoint = metrics["checkpoint"]  # none for predictions that came as files
    images = counted(len(run.per_image), "image")
    trained = [r for r in run.records if r["kind"] == "train"]
    last = trained[-1] if trained else None
    training = f"{_time(last['time_s'])} since the last start, to iteration {last['step']}" if last else None
    pairs = [
        ("command", metrics.get("command")),
        ("network", f"{config['model']['arch']} over {config['model']['encoder']}" if checkpoint else None),
        (
            "data",
            f"{run_folder.data_name(config)}, split {metrics.get('split')}, {images}",
        ),
        ("data hash", run_folder.data_hash(run.per_image)),
        ("checkpoint", f"{checkpoint['path']}, iteration {checkpoint['step']}" if checkpoint else None),
        ("sha256", checkpoint["sha256"] if checkpoint else None),
        ("averaged with", ", ".join(other["path"] for other in metrics.get("averaged_with") or []) or None),
        ("seed", config["run"]["seed"]),
        ("definition", metrics["definition"]),
        ("training", training),
        ("versions", ", ".join(f"{k} {v}" for k, v in metrics.get("versions", {}).items())),
    ]
    return [(label, str(text)) for label, text in pairs if text is not None]


def _time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
