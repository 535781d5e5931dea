"""Times several ways of doing one thing in turns, A B A B, after a warm-up: medians, quartiles, and ratios in rows."""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

MAX_OTHER_LOAD = 0.3  # CPU seconds per second that other processes may take during a measurement
MAX_SPREAD = 0.1  # between the quartiles, as a share of the median
TRIES = 3
SHORTEST_S = 0.02  # shorter calls are timed several at a time
ROUND_S, MOST_TIMES = 0.5, 5  # shorter rounds are repeated, up to this many times as often

Side = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """The options of the command line, the same for every subject."""

    variant: str = "w18"
    size: tuple[int, int] = (512, 1024)
    device: str = "cpu"
    clock: Literal["wall", "cpu"] = "wall"  # cpu: this process's CPU time, for a machine that is not quiet
    rounds: int = 15
    short: bool = False  # leave out peers that take minutes to prepare
    also: tuple[str, ...] = ()  # variants whose inference is measured too


@dataclass(frozen=True)
class Row:
    """One ratio: our time over the peer's. Where several sides are named, the fastest counts.

    mark: the largest ratio that is good enough. equal: compares the results of both and returns the evidence in a few
    words; raises AssertionError where they differ. why: gives the reason, from the seconds, where the mark is missed.
    """

    what: str
    against: str
    ours: Sequence[str]
    peers: Sequence[str]
    mark: float
    aim: float | None = None
    equal: Callable[[], str] | None = None
    why: Callable[[float], str] | None = None


@dataclass(frozen=True)
class Case:
    """Sides by name, measured in turns, and their ratios. A side is a call, or the reason why there is none.

    unit: "s" times the calls. With any other unit, such as "MiB" or "s, self-timed", the calls return the figure.
    """

    sides: Mapping[str, Side | str]
    rows: Sequence[Row]
    unit: str = "s"


@dataclass(frozen=True)
class Figure:
    """Median and quartiles of one side."""

    side: str
    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        return (self.high - self.low) / self.median


class _Try(NamedTuple):
    figures: Mapping[str, Figure]
    load: float | None  # of other processes during the measurement


@dataclass(frozen=True)
class Result:
    """A row and what was measured. ratio is None where none can be given; note says why."""

    row: Row
    unit: str
    ours: Figure | None = None
    peer: Figure | None = None
    ratio: float | None = None
    equal: str = "-"
    note: str = ""


def missing(*modules: str) -> str:
    """A sentence where a peer's packages are not installed, otherwise ''."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed (pip install 'hrseg[bench]')" if absent else ""


def run_case(case: Case, options: Options) -> list[Result]:
    """Check that the results are equal, then measure all sides of a case in turns; again if the machine was not quiet.

    Of several tries, a row shows the one in which its own two sides were quietest.
    """
    evidence = [compare_results(row, case) for row in case.rows]
    calls = {name: side for name, side in case.sides.items() if not isinstance(side, str)}
    tries: list[_Try] = []
    while len(tries) < TRIES:
        with OtherLoad() as other:
            figures = {name: _figure(name, values) for name, values in _in_turns(calls, case, options).items()}
        tries.append(_Try(figures, other.load))
        if not _unquiet(figures.values(), other.load, options):
            break
    return [_result(row, case, tries, equal, options) for row, equal in zip(case.rows, evidence, strict=True)]


def computed(macs: float, kind: torch.dtype = torch.float32) -> Callable[[float], str]:
    """Compares the speed of so many multiply-adds with that of a matrix product of the same type."""

    def why(seconds: float) -> str:
        a, b = torch.randn(2, 1024, 1024).to(kind)
        times = []
        for _ in range(15):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        product = 1024**3 / statistics.median(times)
        of = f"{str(kind).removeprefix('torch.')} matrices"
        share = f"{macs / seconds / 1e9:.0f} of the {product / 1e9:.0f} GMAC/s that a product of {of} reaches here"
        return f"it computes {share}; batch norm, additions and upsampling are not counted"

    return why


def compare_results(row: Row, case: Case) -> str:
    if row.equal is None or any(isinstance(case.sides[name], str) for name in (*row.ours, *row.peers)):
        return "-"
    try:
        return row.equal()
    except AssertionError as error:
        return f"DIFFERENT: {error}"


def _in_turns(calls: Mapping[str, Side], case: Case, options: Options) -> dict[str, list[float]]:
    if case.unit != "s":
        return _turns(calls, max(3, options.rounds // 5))
    repeats, round_s = {}, 0.0
    for name, call in calls.items():
        _timed(call, 1, options)
        once = max(_timed(call, 1, options), 1e-6)
        repeats[name] = math.ceil(SHORTEST_S / once)
        round_s += repeats[name] * once
    timed = {name: _timer(call, repeats[name], options) for name, call in calls.items()}
    times = min(max(ROUND_S / round_s, 1), MOST_TIMES) if timed else 1
    return _turns(timed, math.ceil(options.rounds * times))


def _turns(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            values[name].append(call())
    return values


def _timer(call: Side, repeats: int, options: Options) -> Callable[[], float]:
    return lambda: _timed(call, repeats, options)


def _timed(call: Side, repeats: int, options: Options) -> float:
    """Seconds per call, the mean of several."""
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    start = clock()
    for _ in range(repeats):
        call()
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()
    return (clock() - start) / repeats


def _figure(name: str, values: Sequence[float]) -> Figure:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(name, median, low, high)


def _unquiet(figures: Any, load: float | None, options: Options) -> str:
    """Why no ratio can be given, or ''. With CPU time there is always one: it is for machines that are not quiet."""
    if options.clock == "cpu":
        return ""
    if load is not None and load > MAX_OTHER_LOAD:
        return f"no ratio: other processes took {load:.1f} CPUs meanwhile"
    wide = [figure for figure in figures if figure.spread > MAX_SPREAD]
    if wide:
        worst = max(wide, key=lambda figure: figure.spread)
        return f"no ratio: the quartiles of {worst.side} lie {worst.spread:.0%} apart"
    return ""


def _result(row: Row, case: Case, tries: Sequence[_Try], equal: str, options: Options) -> Result:
    def unrest(found: _Try) -> tuple[bool, float]:
        sides = _fastest(row.ours, found.figures), _fastest(row.peers, found.figures)
        return (found.load or 0) > MAX_OTHER_LOAD, max((side.spread for side in sides if side), default=0)

    figures, load = min(tries, key=unrest)
    ours, peer = _fastest(row.ours, figures), _fastest(row.peers, figures)
    if ours is None or peer is None:
        reasons = [side for name in (*row.ours, *row.peers) if isinstance(side := case.sides[name], str)]
        return Result(row, case.unit, ours, peer, equal=equal, note="; ".join(dict.fromkeys(reasons)))
    note = "the results differ" if equal.startswith("DIFFERENT") else _unquiet((ours, peer), load, options)
    if note:
        return Result(row, case.unit, ours, peer, equal=equal, note=note)
    ratio = ours.median / peer.median
    why = row.why(ours.median) if row.why and ratio > row.mark else ""
    return Result(row, case.unit, ours, peer, ratio, equal, why)


def _fastest(names: Sequence[str], figures: Mapping[str, Figure]) -> Figure | None:
    return min((figures[name] for name in names if name in figures), key=lambda f: f.median, default=None)


class OtherLoad:
    """How many CPUs other processes took between entering and leaving; `load` is None without /proc."""

    load: float | None = None

    def __enter__(self) -> OtherLoad:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        before, after = self._before, self._now()
        if before is not None and after is not None and after[0] > before[0]:
            elapsed, busy, own = (b - a for a, b in zip(before, after, strict=True))
            self.load = max(0.0, (busy - own) / elapsed)

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds: of the clock, of all busy CPUs (including time stolen by other machines), of this process's tree."""
        try:
            user, nice, system, _, _, irq, softirq, steal = map(
                int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
            )
            processes = dict(_processes())
        except (OSError, ValueError):
            return None
        own, tree = 0, {os.getpid()}
        for pid, (parent, ticks) in sorted(processes.items()):
            if pid in tree or parent in tree:
                tree.add(pid)
                own += ticks
        tick = os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), (user + nice + system + irq + softirq + steal) / tick, own / tick


def _processes() -> Any:
    """(pid, (parent, CPU ticks with those of ended children)) of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            yield int(folder.name), (int(fields[1]), sum(map(int, fields[11:15])))
