"""A region whose label is in doubt, and the file that lists them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.errors import DataError, first_line

FORMAT = "hrseg suspects 1"
FILE = "suspects.json"
WRONG, MISSING, NONE, BORDER, OTHER, SHIFTED, SWAPPED = KINDS = (
    "wrong class",
    "missing object",
    "object that is none",
    "border off",
    "mask of another image",
    "mask shifted",
    "class swapped",
)
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are outside


@dataclass(frozen=True)
class Region:
    """Pixels of one image that look wrong. inside: bool [h, w], which pixels of the box.

    label, said: class indices, the label's and the model's; None where there are several. sure: mean probability of
    what the model says. score: in [0, 1], how likely the label is wrong and how much it matters. detail: in words.
    """

    box: Box
    inside: np.ndarray
    label: int | None
    said: int | None
    sure: float
    score: float
    kind: str
    detail: str = ""

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.inside))


@dataclass(frozen=True)
class Suspect:
    """A region as the file has it. view: the file of the model's view, from the folder. mask: from the data root."""

    id: int
    image: str
    view: str
    mask: str | None
    mask_sha256: str | None
    box: Box
    area: int
    label: str | None
    said: str | None
    sure: float
    score: float
    kind: str
    detail: str
    runs: list[int]

    def inside(self) -> np.ndarray:
        """bool [h, w]: which pixels of the box."""
        top, left, bottom, right = self.box
        return from_runs(self.runs, (bottom - top, right - left))


def runs_of(inside: np.ndarray) -> list[int]:
    """Run lengths of bool [h, w], row by row, beginning with those outside."""
    flat = np.concatenate([[False], inside.reshape(-1), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = [*changes.tolist(), inside.size] if not changes.size or changes[-1] != inside.size else changes.tolist()
    return np.diff([0, *ends]).tolist()


def from_runs(runs: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The inverse. Raises ValueError where they do not fill the size."""
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size)


def key_of(suspects: Sequence[Mapping[str, Any]]) -> str:
    """A checksum by which decisions know their suspects."""
    return hashlib.sha256(json.dumps(list(suspects), sort_keys=True).encode()).hexdigest()


def plain(suspect: Suspect) -> dict[str, Any]:
    return {**asdict(suspect), "box": list(suspect.box)}


def read_suspects(folder: Path) -> tuple[dict[str, Any], list[Suspect]]:
    """All that the file in a doctor's folder says, and its suspects. Raises DataError."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        entries = content["suspects"]
        if key_of(entries) != content["key"]:
            raise ValueError("its checksum differs, it was changed after it was written")
        found = [Suspect(**{**entry, "box": tuple(entry["box"])}) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"is not a list of suspects: {first_line(error)}."
        raise DataError(path, what, "It is what `hrseg doctor RUN... --out DIR` writes.") from None
    return content, found


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
