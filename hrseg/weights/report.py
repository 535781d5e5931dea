"""What became of each tensor of a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

SHOWN = 6  # names of a kind in a message


@dataclass(frozen=True)
class Report:
    """What became of each tensor of a file, by name; names are the model's, where it has the tensor."""

    source: str
    matched: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)  # name in the file to name in the model
    dropped: dict[str, str] = field(default_factory=dict)  # name in the file, left out on purpose, to the reason
    filled: dict[str, str] = field(default_factory=dict)  # not in the file but known all the same, to the reason
    missing: list[str] = field(default_factory=list)  # in the model, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the model
    wrong_shape: dict[str, str] = field(default_factory=dict)  # to the two shapes
    other_classes: list[str] = field(default_factory=list)  # keep their initial values: the model has other classes
    kept: list[str] = field(default_factory=list)  # keep their initial values: the file has no head, or it was left out
    adapted: dict[str, str] = field(default_factory=dict)  # first convolutions, to how; they are matched too
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether every tensor of the file and of the model has a counterpart, or a reason to have none."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        total = len(self.matched) + len(self.filled) + len(self.missing) + len(self.wrong_shape)
        loaded = len(self.matched) + len(self.filled)
        parts = [f"{loaded} of {total + len(self.other_classes)} tensors from {self.source}"]
        if self.other_classes:
            parts.append(f"initial values, because the classes differ: {first_names(self.other_classes)}")
        if self.kept:
            parts.append(f"{len(self.kept)} tensors of the head keep their initial values: {first_names(self.kept)}")
        if self.adapted:
            how = "; ".join(dict.fromkeys(self.adapted.values()))
            parts.append(f"first convolution adapted from {how}, as timm and smp do: {first_names(self.adapted)}")
        for word, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                parts.append(f"{len(names)} {word}: {first_names(names)}")
        if self.wrong_shape:
            parts.append(f"{len(self.wrong_shape)} of a wrong shape: {first_names(_explained(self.wrong_shape))}")
        return "; ".join([*parts, *self.notes])

    def table(self, shown: int = SHOWN) -> str:
        """One line per kind, with the first `shown` names of each."""
        reasons = [f"{why} ({len(names)}): {first_names(names, 2)}" for why, names in _by_reason(self.dropped).items()]
        filled = [f"{why} ({len(names)}): {first_names(names, 2)}" for why, names in _by_reason(self.filled).items()]
        rows = {
            "matched": f"{len(self.matched)}",
            "renamed": f"{len(self.renamed)}",
            "dropped": f"{len(self.dropped)}" + "".join(f"\n{'':14}{reason}" for reason in reasons),
            "filled in": f"{len(self.filled)}" + "".join(f"\n{'':14}{reason}" for reason in filled),
            "missing": _counted(self.missing, shown),
            "unexpected": _counted(self.unexpected, shown),
            "wrong shape": _counted(_explained(self.wrong_shape), shown),
        }
        if self.adapted:
            rows["adapted"] = _counted(_explained(self.adapted), shown)
        if self.kept or self.other_classes:
            rows["initial values"] = _counted([*self.kept, *self.other_classes], shown)
        return "\n".join(f"  {name:<12}{row}" for name, row in rows.items())


def _explained(shapes: Mapping[str, str]) -> list[str]:
    return [f"{name} {why}" for name, why in shapes.items()]


def _by_reason(names: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in names.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def first_names(names: Collection[str], shown: int = SHOWN) -> str:
    first = list(names)[:shown]
    return ", ".join(first) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _counted(names: Collection[str], shown: int) -> str:
    return f"{len(names)}" + (f": {first_names(names, shown)}" if names else "")
