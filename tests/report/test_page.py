"""The page of a run: whole in one file, without network, with names that are shown and not run."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from hrseg.commands import report
from hrseg.errors import HrsegError
from hrseg.report import page
from tests.report.made import run

EVIL = "<script>document.title='run'</script>"


def test_names_from_files_are_shown_and_not_run(tmp_path):
    folder = run(tmp_path / EVIL.replace("/", ":"), [f"{EVIL}/{n}" for n in range(4)])
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["classes"][0]["name"] = metrics["command"] = f"</script>{EVIL}"
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text = page.write_report(folder).read_text()
    assert "document.title=&#39;run&#39;" in text
    assert len(re.findall(r"<script", text)) == 2 and "<script>document" not in text  # its data and its own script


def test_the_page_asks_nothing_of_a_network(tmp_path):
    text = page.write_report(run(tmp_path / "run", ["a", "b", "c"])).read_text()
    assert "default-src 'none'" in text and "unsafe-eval" not in text
    markup = text.rsplit("<script>", 1)[0]
    assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?!#|data:)[\w/.]|@import|url\(|https?://""", markup)


def test_scores_curves_confusions_and_the_run_card_are_there(tmp_path):
    folder = run(tmp_path / "mine", [f"{n:02}" for n in range(6)])
    metrics = json.loads((folder / "metrics.json").read_text())
    text = page.write_report(folder).read_text()
    low, high = metrics["miou_interval"]
    for shown in (
        f"<b>{100 * metrics['miou']:.2f}</b>",
        f"95 % interval {100 * low:.2f} to {100 * high:.2f}",
        *(f"{100 * row['iou']:.2f}" for row in metrics["classes"]),
        "Confusions that cost most",
        "Training loss",
        "Mean IoU in validation",
        "tools/test.py --checkpoint best.pt",
        "python 3.11",
        "train.batch_size=8",
    ):
        assert shown in text, shown
    assert "boundary" not in text.split("<body>")[1].split('id="data"')[0].replace("boundary_", "")


def test_boundary_iou_has_a_figure_and_a_column_where_it_was_measured(tmp_path):
    boundary = np.array([[5, 0, 1], [10, 0, 4]])  # intersection and union: IoU 50 %, absent, 25 %
    text = page.write_report(run(tmp_path / "mine", ["a", "b"], boundary=boundary)).read_text()
    assert "boundary IoU %" in text and "<b>37.50</b>" in text and "<div>25.00</div>" in text


def test_two_runs_stand_side_by_side_with_their_differences(tmp_path):
    ours, theirs = (run(tmp_path / name, ["a", "b", "c"], wrong=w) for name, w in (("new", 0.1), ("old", 0.4)))
    metrics = json.loads((ours / "metrics.json").read_text())
    metrics["config"]["optim"]["lr"] = 0.123
    (ours / "metrics.json").write_text(json.dumps(metrics))
    path = page.write_report(ours, theirs)
    text = path.read_text()
    before = json.loads((theirs / "metrics.json").read_text())["miou"]
    assert path.name == "report_against_old.html"
    assert f"{100 * (metrics['miou'] - before):+.2f}" in text and "95 % interval of the difference +" in text
    assert re.search(r"<code>optim\.lr</code></th><td><code>0\.123</code></td><td><code>0\.01</code>", text)
    assert "not scored on the same images" not in text
    assert "not scored on the same images" in page.write_report(ours, run(tmp_path / "other", ["x", "y"])).read_text()


def test_runs_with_other_classes_are_not_compared(tmp_path):
    ours, theirs = run(tmp_path / "a", ["a"]), run(tmp_path / "b", ["a"])
    metrics = json.loads((theirs / "metrics.json").read_text())
    metrics["classes"][0]["name"] = "track"
    (theirs / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(HrsegError, match="other classes"):
        page.write_report(ours, theirs)


def test_scores_alone_make_a_page(tmp_path, capsys):
    folder = run(tmp_path / "old", ["a", "b"])
    (folder / "examples.npz").unlink()
    (folder / "log.jsonl").unlink()
    assert report.main([str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "Confusions" in text and 'id="viewer"' not in text and "Training loss" not in text


def test_a_folder_without_scores_ends_with_2(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "no metrics.json" in capsys.readouterr().err


def test_the_page_of_many_pictures_stays_small(tmp_path):
    folder = run(tmp_path / "noise", [str(n) for n in range(14)], wrong=1, size=(384, 768))
    assert page.write_report(folder).stat().st_size < 10e6  # noise: the worst that photos and label maps can be
