"""What was predicted, what was seen and what went wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hrseg.console import counted
from hrseg.errors import DataError
from hrseg.predict.bands import Band, class_shares
from hrseg.report import pictures
from hrseg.task import LabelSpace, Task


@dataclass
class Tally:
    """What one process did. pixels: int64 [K], per class. already_there: inputs whose results were complete before."""

    pixels: np.ndarray
    images: int = 0
    videos: int = 0
    already_there: int = 0
    confidence: float = 0.0  # summed over images and frames
    answers: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, bands: Sequence[Band], space: LabelSpace) -> None:
        self.pixels = self.pixels + sum(pictures.pixels_per_class(band.labels, space) for band in bands)
        self.confidence += float(np.mean([band.confidence for band in bands]))
        self.answers += 1


@contextmanager
def noted_problems(tally: Tally, bar: tqdm) -> Iterator[None]:
    """Note a DataError raised inside instead of raising it; the bar advances by one."""
    try:
        yield
    except DataError as error:
        tally.problems.append(str(error))
    finally:
        bar.update()


def show_confidence(bar: tqdm, tally: Tally, text: str = "") -> None:
    """The mean confidence so far, beside the bar."""
    confidence = f"mean confidence {tally.confidence / max(1, tally.answers):.2f}"
    bar.set_postfix_str(", ".join(filter(None, (confidence, text))), refresh=False)
    if not bar.disable and time.time() - bar.last_print_t >= bar.mininterval:
        bar.refresh()


def summary(parts: Sequence[Tally], folder: Path, space: LabelSpace) -> str:
    """What all processes predicted, and the most frequent classes."""
    images, videos, there = (
        sum(getattr(part, name) for part in parts) for name in ("images", "videos", "already_there")
    )
    made = [counted(number, noun) for number, noun in ((images, "image"), (videos, "video")) if number]
    before = f", {there} {'was' if there == 1 else 'were'} there already" if there else ""
    lines = [f"{' and '.join(made) or 'nothing'} predicted{before}: {folder}"]
    pixels = np.sum([part.pixels for part in parts], axis=0)
    total = int(pixels.sum()) if space.task is not Task.MULTILABEL else 0
    if total:
        most = list(class_shares(pixels, total, space).items())[:5]
        shown = [f"{name} {text}" for name, share in most if (text := f"{share:.1%}") != "0.0%"]
        lines.append(f"share of pixels: {', '.join(shown)}")
    notes: Counter[str] = sum((part.notes for part in parts), Counter())
    lines += [f"{count} of them: {note}" for note, count in notes.items()]
    return "\n".join(lines)
