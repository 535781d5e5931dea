"""Comparisons from evidence alone: paired, honest about seeds, and only of what can be compared."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from hrseg.commands.compare import main
from hrseg.config import Config
from hrseg.errors import ConfigError, DataError
from hrseg.evaluate.comparison import paired_differences
from hrseg.metrics import ImageCounts, PerImage, scores_of_images
from tests.metrics.test_per_image import matrices, space

TRUTH = matrices(30).sum(axis=2)  # pixels of each class in each image


def run(
    better: float = 0.0, seed: int = 0, *, truth=TRUTH, definition="cityscapes", clusters=10, names="bild"
) -> PerImage:
    """Evidence over the same labels: about 60 % and `better` of the pixels right, the rest spread over the classes."""
    rng = np.random.default_rng(seed)
    hardness = np.random.default_rng(7).uniform(-0.2, 0.2, len(truth))
    per_image = PerImage(space(truth.shape[1]), definition)
    for index, pixels in enumerate(truth):
        share = 0.6 + better + hardness[index] + rng.normal(0, 0.01)
        right = (share * pixels).astype(np.int64)
        counts = np.diag(right)
        counts[np.arange(len(pixels)), rng.permutation(len(pixels))] += pixels - right
        per_image.add(index, f"{names}_{index}", ImageCounts(counts), str(index % clusters))
    return per_image


def saved(folder, per_image: PerImage, seed: int = 0, **settings) -> str:
    folder.mkdir()
    per_image.save(folder / "per_image.npz")
    config = {"run": {"seed": seed, "dir": folder.name}, "optim": {"lr": 0.1, **settings}}
    (folder / "metrics.json").write_text(json.dumps({"config": config}))
    return str(folder)


def test_a_difference_is_that_of_the_scores_and_turns_its_sign():
    a, b = run(0.1, 1), run(0.0, 2)
    found, turned = paired_differences([a], [b], classes=True), paired_differences([b], [a])
    for definition in ("cityscapes", "smp"):
        expected = scores_of_images(a, definition).miou - scores_of_images(b, definition).miou
        assert paired_differences([a], [b], definition=definition)["miou"].difference == pytest.approx(expected)
    assert turned["miou"].difference == -found["miou"].difference and found["miou"].shown
    assert found["c1"].difference == scores_of_images(a).classes[1].iou - scores_of_images(b).classes[1].iou


def test_a_win_on_one_seed_is_called_one(tmp_path, capsys):
    a, b = saved(tmp_path / "a", run(0.1, 1)), saved(tmp_path / "b", run(0.0, 2))
    assert main([a, b, "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert "A is better by" in out and "ONE SEED EACH" in out and "30 images in 10 clusters" in out
    found = json.loads((tmp_path / "found.json").read_text())["differences"]["miou"]
    assert found["interval"][0] > 0 and found["difference"] == found["first"][0] - found["second"][0]


def test_several_seeds_count_their_own_spread(tmp_path, capsys):
    first = [saved(tmp_path / f"a{s}", run(0.1, s), s) for s in range(3)]
    second = [saved(tmp_path / f"b{s}", run(0.0, 10 + s), s) for s in range(2)]
    assert main([*first, "--against", *second]) == 0
    out, err = capsys.readouterr()
    assert "A is better by" in out and "ONE SEED" not in out and "differ" not in err


def test_equal_methods_show_no_difference(tmp_path, capsys):
    assert main([saved(tmp_path / "a", run(0.0, 1)), saved(tmp_path / "b", run(0.0, 2))]) == 0
    assert "no difference is shown" in capsys.readouterr().out


def test_one_checkpoint_scored_twice_is_called_that(tmp_path, capsys):
    assert main([saved(tmp_path / "a", run()), saved(tmp_path / "b", run())]) == 0
    out = capsys.readouterr().out
    assert "alike in every image: is it one checkpoint" in out and "ONE SEED" not in out


def test_runs_of_one_method_differ_in_the_seed_alone(tmp_path, capsys, caplog):
    first = [saved(tmp_path / "a0", run(0, 1), 0), saved(tmp_path / "a1", run(0, 2), 1, lr=0.2)]
    second = [saved(tmp_path / "b0", run(0, 3), 5), saved(tmp_path / "b1", run(0, 4), 5)]
    assert main([*first, "--against", *second]) == 0
    assert "A differ in more than the seed: optim.lr" in caplog.text and "B share a seed" in caplog.text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (run(names="anders"), "different images: 60 are in one of them only"),
        (run(truth=TRUTH[:20]), "10 are in one of them only, such as bild_2"),
        (run(truth=TRUTH + 1), "different labels in 30 images, such as bild_0"),
        (run(truth=TRUTH[:, :4]), "different classes"),
    ],
)
def test_runs_on_different_data_are_refused(other, message):
    with pytest.raises(DataError, match=message):
        paired_differences([run()], [other])


def test_runs_scored_differently_need_a_word(tmp_path):
    with pytest.raises(ConfigError, match=r"cityscapes and smp.*--definition"):
        paired_differences([run()], [run(definition="smp")])
    with pytest.raises(ConfigError, match="--cluster"):
        paired_differences([run()], [run(clusters=3)])
    words = [saved(tmp_path / "a", run()), saved(tmp_path / "b", run(clusters=3, definition="smp"))]
    assert main([*words, "--cluster", r"\d$", "--definition", "hrnet"]) == 0


@pytest.fixture
def six(tmp_path):
    """Three methods: in three seeds, in two, in one."""
    made = []
    for method, (better, seeds) in enumerate(((0.0, 3), (0.1, 2), (0.05, 1))):
        for seed in range(seeds):
            folder = tmp_path / f"m{method}_{seed}"
            folder.mkdir()
            run(better, 10 * method + seed).save(folder / "per_image.npz")
            settings = Config().to_plain()
            settings["run"]["seed"], settings["optim"]["lr"] = seed, 0.1 * (method + 1)
            plain = {"config": settings, "images": 30}
            (folder / "log.jsonl").write_text(json.dumps({"step": 1, "kind": "val", "time_s": 3.0 + seed}) + "\n")
            (folder / "metrics.json").write_text(json.dumps(plain))
            made.append(str(folder))
    return made


def test_a_table_has_a_row_for_each_method_with_its_seeds_grouped(six, capsys):
    assert main([*six, "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["seeds"] for row in rows] == ["2", "1", "3"]  # the best first
    assert [row["method"] for row in rows] == [f"optim.lr={0.1 * (m + 1)}" for m in (1, 2, 0)]
    values = [scores_of_images(run(0.0, seed)).miou for seed in range(3)]
    assert float(rows[2]["miou"]) == pytest.approx(np.mean(values))
    assert float(rows[2]["std"]) == pytest.approx(np.std(values, ddof=1)) and rows[1]["std"] == ""
    assert float(rows[1]["low"]) == scores_of_images(run(0.05, 20)).miou_interval[0]
    assert float(rows[2]["low"]) < np.mean(values) < float(rows[2]["high"])
    assert float(rows[2]["seconds"]) == pytest.approx(4 / 30)
    assert int(rows[0]["parameters"]) > 1e6 and float(rows[0]["macs"]) > 1e9


def test_a_table_is_written_as_markdown_and_as_latex(six, capsys):
    assert main([*six, "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert main([*six, "--latex"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(r"\begin{tabular}{lrrrrrrr}") and text.count(r" \\") == 4
    assert r"mean IoU \%" in text and " % " not in text


def test_a_run_without_its_settings_has_no_place_in_a_table(six, tmp_path, capsys):
    (tmp_path / "m0_0" / "metrics.json").unlink()
    assert main([*six, "--markdown"]) == 2
    assert "metrics.json" in capsys.readouterr().err


def test_one_run_is_scored_anew(tmp_path, capsys):
    folder = saved(tmp_path / "a", run())
    assert main([folder, "--definition", "smp", "--cluster", "image"]) == 0
    out = capsys.readouterr().out
    assert "definition smp" in out and "30 clusters" in out


@pytest.mark.parametrize("words", [["none"], ["a", "b", "c"], ["a", "b", "--against", "none"]])
def test_what_cannot_be_compared_is_told(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        saved(tmp_path / name, run())
    assert main(words) == 2
    assert "error: " in capsys.readouterr().err
