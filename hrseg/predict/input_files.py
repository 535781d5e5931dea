"""The inputs of `tools/predict.py`: files, folders, patterns, lists; and the name of each one's results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from hrseg.data.images import walk
from hrseg.data.images.large_images import ENDINGS
from hrseg.errors import DataError

VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True)
class Input:
    """An image or a video. relative: its path from `base`, the folder, or the part of a pattern, that it was found by.

    name: that of its results, with '/' between folders; never absolute, and without '..'.
    """

    path: Path
    base: Path
    name: str = ""

    @property
    def relative(self) -> PurePosixPath:
        return PurePosixPath(self.path.relative_to(self.base).as_posix())

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_ENDINGS


def find_inputs(words: Sequence[str], lines: Iterable[str], out: Path) -> list[Input]:
    """The inputs, each once, with distinct names. words: files, folders, patterns (**, *, ?), '-' for `lines`.

    Images and videos below a folder are found by their endings, hidden ones and what lies below `out` left out. Files
    keep the folders below the one that all of them share. Raises DataError where a folder or a pattern has nothing.
    """
    files: list[Path] = []
    found: list[Input] = []
    listed = [line.rstrip("\r\n") for line in lines] if "-" in words else []
    for word in [*(word for word in words if word != "-"), *(line for line in listed if line.strip())]:
        path = _absolute(word)
        if path.is_dir():
            below = [Input(Path(p), path) for p in walk(path) if p.lower().endswith((*ENDINGS, *VIDEO_ENDINGS))]
            below = [i for i in below if not i.path.is_relative_to(_absolute(out))]
            if not below:
                raise DataError(word, "holds no image or video.", f"Their endings: {', '.join(ENDINGS)}.")
            found += below
        elif glob.has_magic(word) and not path.exists():
            matches = sorted(p for p in map(_absolute, glob.glob(word, recursive=True)) if p.is_file())  # noqa: PTH207
            if not matches:
                raise DataError(word, "matches no file.")
            found += [Input(p, _fixed_part(word)) for p in matches]
        else:
            files.append(path)
    if files:
        base = Path(os.path.commonpath([p.parent for p in files]))
        found = [*(Input(p, base) for p in files), *found]
    if not found:
        raise DataError("input", "names no image.", "Give files, folders, patterns or videos.")
    return with_distinct_names(list({i.path: i for i in found}.values()))


def _absolute(word: str | Path) -> Path:
    return Path(os.path.abspath(Path(word).expanduser()))  # noqa: PTH100 (resolve() would follow links, and change names)


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    return _absolute(Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))]))


def with_distinct_names(inputs: Sequence[Input]) -> list[Input]:
    """Names that differ: the path without its ending; where two would have one name, with it, then with the base's.

    Raises DataError where even these are the same. Upper and lower case count as the same, as on some file systems.
    """
    ways: tuple[Callable[[Input], str], ...] = (
        lambda i: i.relative.with_suffix("").as_posix(),
        lambda i: i.relative.as_posix(),
        lambda i: (PurePosixPath(i.base.name) / i.relative).as_posix(),
    )
    names = [ways[0](i) for i in inputs]
    for way in ways[1:]:
        often = Counter(name.lower() for name in names)
        names = [way(i) if often[name.lower()] > 1 else name for i, name in zip(inputs, names, strict=True)]
    often = Counter(name.lower() for name in names)
    for name, one in zip(names, inputs, strict=True):
        if often[name.lower()] > 1:
            raise DataError(one.path, f"and another input would both be named {name}.", "Predict them one by one.")
    return [replace(one, name=name) for one, name in zip(inputs, names, strict=True)]
