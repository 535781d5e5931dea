"""The benchmark tells a ratio only where it may: equal results, a quiet machine, both sides there."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time

import pytest

from hrseg.benchmark import measure, report
from hrseg.benchmark.measure import Case, Options, OtherLoad, Result, Row, run_case
from hrseg.commands.benchmark import main

OPTIONS = Options(rounds=5)


def one(sides, *, equal=None, ours=("ours",), mark=0.5, why=None) -> Result:
    """The result of a case whose sides tell their own figures."""
    case = Case(sides, [Row("a thing", "another", ours, ["peer"], mark, equal=equal, why=why)], unit="MiB")
    return run_case(case, OPTIONS)[0]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(measure, "MAX_OTHER_LOAD", 1000.0)


def test_a_ratio_is_of_medians_and_the_fastest_of_several_sides_counts():
    sides = {"ours": lambda: 3.0, "also ours": lambda: 1.0, "peer": lambda: 4.0}
    result = one(sides, ours=["ours", "also ours"])
    assert (result.ratio, result.ours.side, result.note) == (0.25, "also ours", "")


def test_no_ratio_where_the_results_differ():
    def differ() -> str:
        raise AssertionError("3 pixels")

    result = one({"ours": lambda: 1.0, "peer": lambda: 4.0}, equal=differ)
    assert result.ratio is None and result.equal == "DIFFERENT: 3 pixels"


def test_no_ratio_where_the_quartiles_lie_apart_and_it_measures_again_first():
    turns = iter(range(1000))
    result = one({"ours": lambda: 1.0 + next(turns), "peer": lambda: 4.0})
    assert result.ratio is None and "the quartiles of ours lie" in result.note
    assert next(turns) == measure.TRIES * 3


def test_of_several_tries_a_row_shows_its_quietest():
    noisy, quieter, noisiest = (1.0, 2.0, 3.0), (4.0, 4.1, 4.2), (5.0, 7.0, 9.0)
    ours, other = iter([*noisy, *quieter, *noisiest]), iter([*noisiest] * 3)
    sides = {"ours": lambda: next(ours), "peer": lambda: 8.2, "another": lambda: next(other)}
    result = one(sides)
    assert (result.ours.median, result.ratio) == (4.1, 0.5)


def test_where_a_round_is_short_there_are_more_of_them(monkeypatch):
    monkeypatch.setattr(measure, "SHORTEST_S", 1e-3)
    turns = itertools.count()

    def side() -> None:
        next(turns)
        time.sleep(measure.SHORTEST_S)

    run_case(Case({"ours": side}, []), OPTIONS)
    assert next(turns) >= OPTIONS.rounds * measure.MOST_TIMES


def test_no_ratio_where_others_use_the_machine(monkeypatch):
    monkeypatch.setattr(measure, "MAX_OTHER_LOAD", -1.0)
    result = one({"ours": lambda: 1.0, "peer": lambda: 4.0})
    assert result.ratio is None and "other processes took" in result.note


def test_a_peer_that_is_not_installed_is_said():
    result = one({"ours": lambda: 1.0, "peer": measure.missing("hrseg", "no_such_package")})
    assert result.ratio is None and result.note == "no_such_package not installed (pip install 'hrseg[bench]')"


def test_the_reason_stands_where_the_mark_is_missed_only():
    assert (
        one({"ours": lambda: 3.0, "peer": lambda: 4.0}, why=lambda seconds: f"{seconds} s: no kernel").note
        == "3.0 s: no kernel"
    )
    assert one({"ours": lambda: 1.0, "peer": lambda: 4.0}, why=lambda seconds: "no kernel").note == ""


def test_own_processes_are_no_other_load():
    burn = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.4: pass"
    with OtherLoad() as other:
        subprocess.run([sys.executable, "-c", burn], check=True)
    (_, _, before), (_, _, after) = other._before, other._now()
    assert after - before >= 0.35  # ticks are hundredths of a second


def test_sides_take_turns():
    order: list[str] = []
    sides = {"ours": lambda: order.append("ours") or 1.0, "peer": lambda: order.append("peer") or 1.0}
    one(sides)
    assert order[:4] == ["ours", "peer", "ours", "peer"]


def test_the_command_closes_with_one_line_of_json_and_writes_the_document(tmp_path, capsys):
    words = ["loss", "--size", "32x64", "--clock", "cpu", "--rounds", "3"]
    written = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    assert main([*words, *written]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    rows = json.loads(last)["rows"]
    assert [row["equal"] for row in rows if row["mark"] == 0.55] == ["gradients, bit for bit"] * 2
    assert (tmp_path / "a.json").read_text() == last + "\n"
    assert (tmp_path / "a.md").read_text().count("| OHEM forward + backward") == len(rows) == 4


def test_a_renewed_page_keeps_what_stands_above_the_results(tmp_path):
    path = tmp_path / "benchmarks.md"
    path.write_text(f"# Benchmarks\n\nMuch faster.\n\n{report.MARKER}\n\nold rows\n", encoding="utf-8")
    report.write_document({"loss": []}, {"date": "today"}, path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# Benchmarks\n\nMuch faster.\n\n{report.MARKER}\n") and "- date: today" in text
    assert "old rows" not in text


@pytest.mark.parametrize(("words", "said"), [
    (["loss", "--size", "512"], "argument --size: '512' is not height x width"),
    (["loss", "--variant", "w19"], "error: --variant: no variant 'w19'. Did you mean 'w18'?"),
])  # fmt: skip
def test_a_wrong_option_is_reported_in_a_sentence(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err
