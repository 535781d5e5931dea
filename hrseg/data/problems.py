"""What is wrong with a data set, in few words: problems of one kind are told together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hrseg.data.pairs import GreyEdges, UnknownValues
from hrseg.errors import DataError, HrsegError

SHOWN = 20  # lines in one message
ALONE = 2  # problems of one kind that are told one by one
SHOWN_VALUES = 8  # of masks, in one message
LAST = "\nFix these first. data.check=false skips the check; training then stops at the first bad file."


@dataclass(frozen=True)
class Problem:
    """One problem. where: a file or a setting.

    kind: what it has in common with others whose sentence differs. unknown: values of a mask that are no class.
    """

    where: str
    what: str
    way_out: str = ""
    kind: str = ""
    unknown: tuple[object, ...] = ()

    def __str__(self) -> str:
        return str(HrsegError(self.where, self.what, self.way_out))

    @classmethod
    def of(cls, error: HrsegError, kind: str = "") -> Problem:
        """An error as a problem."""
        if isinstance(error, GreyEdges):
            return cls(error.where, error.what, error.way_out, "grey edges")
        if isinstance(error, UnknownValues):
            return cls(error.where, error.what, error.way_out, "", error.unknown)
        return cls(error.where, error.what, error.way_out, kind)

    @classmethod
    def told(cls, text: str, kind: str = "") -> Problem:
        """A sentence with its path, 'PATH: what is wrong'."""
        where, _, what = text.partition(": ")
        return cls(where, what, kind=kind)


def lines(problems: Iterable[Problem], *, one_by_one: bool = False) -> list[str]:
    """A line for each kind of problem, those of settings first; one_by_one: for each problem."""
    each = list(dict.fromkeys(problems))  # splits that overlap have some in common
    each.sort(key=lambda problem: not problem.where.startswith("data."))
    if one_by_one:
        return [str(problem) for problem in each]
    groups: defaultdict[tuple[str, ...], list[Problem]] = defaultdict(list)
    for problem in each:
        key = ("values", problem.way_out) if problem.unknown else (problem.kind or problem.what, problem.way_out)
        groups[key].append(problem)
    return [line for group in groups.values() for line in _told_together(group)]


def refuse_problems(problems: Sequence[Problem], splits: Iterable[str], *, one_by_one: bool = False) -> None:
    """Raises one DataError of all problems, if there are any. one_by_one: with a line for each of them."""
    count = len(dict.fromkeys(problems))
    if not count:
        return
    told = lines(problems, one_by_one=one_by_one)
    shown = told if one_by_one else told[:SHOWN]
    text = "".join(f"\n- {line}" for line in shown)
    if len(told) > len(shown):
        text += f"\n- and {len(told) - len(shown)} more kinds of problems."
    if not one_by_one and (len(told) > len(shown) or count > len(told)):
        text += "\ntools/check_data.py CONFIG --all lists every file."
    number = "1 problem" if count == 1 else f"{count} problems"
    raise DataError(f"data ({', '.join(splits)})", f"{number}.{text}{LAST}")


def _told_together(group: Sequence[Problem]) -> list[str]:
    if len(group) <= ALONE:
        return [str(problem) for problem in group]
    first = group[0]
    if not first.unknown:
        return [str(HrsegError(f"{first.where} and {len(group) - 1} more", first.what, first.way_out))]
    masks: defaultdict[object, list[str]] = defaultdict(list)
    for problem in group:
        for value in problem.unknown:
            masks[value].append(problem.where)
    often = sorted(masks, key=lambda value: -len(masks[value]))[:SHOWN_VALUES]
    told = [f"{_value(v)} in {len(masks[v])} mask{'s' * (len(masks[v]) > 1)} (first: {masks[v][0]})" for v in often]
    more = f", and {len(masks) - len(often)} more" if len(masks) > len(often) else ""
    why = first.what[first.what.index(") is ") + 2 :]  # of one value, after its row and column
    return [f"{', '.join(told)}{more}: {why.removeprefix('is ').removesuffix('.')}. {first.way_out}".rstrip()]


def _value(value: object) -> str:
    return f"value {value}" if isinstance(value, int) else f"color {list(value)}"  # type: ignore[call-overload]
