"""Which images are in a split: a list of names, as people and other projects write them, or a share of all."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from hrseg.errors import DataError
from hrseg.files import decoded_text, name_as_text, spelled_out

HEADER = re.compile(r"(image|img|mask|label|annotation|seg|file|name|path|id|split|s|[\s_,;.\"-])+", re.IGNORECASE)


class Listed(NamedTuple):
    """The images of a list, in its order; and the mask of each that the list gives one, as it is written there."""

    names: list[str]
    masks: dict[str, str]


def read_split_list(path: Path, images: Mapping[str, str]) -> Listed:
    """The images that a list names, one a line.

    images: paths by name. A line is a name from images/, with or without its ending, with '/' or '\\', also below a
    path that leads there; a second column, after a tab, a comma, a semicolon or a space, is its mask. A header and
    lines that begin with # are skipped. Raises DataError that names the line.
    """
    known = _Known(images)
    lines = list(_lines(path, known))
    chosen: dict[str, int] = {}
    masks: dict[str, str] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        name, mask = known.image_and_mask(line)
        if name is None:
            if line.startswith("#") or (number == lines[0][0] and HEADER.fullmatch(line)):
                continue
            raise _unknown(where, line, known)
        if name in chosen:
            raise DataError(where, f"'{line}' is in line {chosen[name]} too.", "Name each image once.")
        chosen[name] = number
        if mask:
            masks[name] = mask
    return Listed(list(chosen), masks)


def split_by_share(names: Iterable[str], share: float) -> set[str]:
    """The names of `share` of the images, at least one: those with the smallest hashes.

    Where images are added, an image changes its side only if the share of all makes it. Raises ValueError where there
    are fewer than two.
    """
    ordered = sorted(names, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    if len(ordered) < 2:
        raise ValueError("fewer than two images")
    count = int(share * len(ordered) + 0.5)
    return set(ordered[: min(max(count, 1), len(ordered) - 1)])


class _Known:
    """The images of a data set, found by what a list may call them."""

    def __init__(self, images: Mapping[str, str]):
        self.names = images
        self.by_file = {f"{name}{Path(file).suffix}": name for name, file in images.items()}
        self._by_lower = {file.lower(): name for file, name in self.by_file.items()}

    def image_and_mask(self, line: str) -> tuple[str | None, str | None]:
        """The image that a line names, and the mask in its second column."""
        if name := self.find(line):
            return name, None
        for separator in ("\t", ",", ";", " "):
            first, *others = [cell.strip().strip('"') for cell in line.split(separator)] or [""]
            if name := self.find(first):
                return name, next((cell.replace("\\", "/") for cell in others if cell), None)
        return None, None

    def find(self, text: str) -> str | None:
        """The image with this name, or with the longest end of this path that is one below images/."""
        text = unicodedata.normalize("NFC", text.strip().strip('"'))
        for spelled in (text, text.replace("\\", "/")):
            if name := self._exactly(spelled.removeprefix("./")):
                return name
        parts = PurePosixPath(text.replace("\\", "/")).parts
        starts = [i + 1 for i, part in enumerate(parts) if part == "images"]
        tails = ("/".join(parts[start:]) for start in starts)
        return next((name for tail in tails if ".." not in parts and (name := self._exactly(tail))), None)

    def _exactly(self, text: str) -> str | None:
        if text in self.names:
            return text
        return self.by_file.get(text) or self._by_lower.get(text.lower())


def _lines(path: Path, known: _Known) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers. In an old encoding, as the file names themselves may be."""
    content = path.read_bytes()
    try:
        text = decoded_text(content)
    except UnicodeDecodeError as error:
        named = [name_as_text(line.decode("utf-8", "surrogateescape")) for line in content.splitlines()]
        text = "\n".join(named)
        if not any("\\x" in line and known.image_and_mask(line.strip())[0] for line in named):
            number = content.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{path}, line {number}", "is not text in UTF-8.", "Save the list in UTF-8, the encoding of the names."
            ) from None
    # Not splitlines(): names may hold U+2028 and others at which it splits too.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if line.strip():
            yield number, line.strip()


def _unknown(where: str, line: str, known: _Known) -> DataError:
    parts = PurePosixPath(line.replace("\\", "/"))
    if parts.is_absolute() or PureWindowsPath(line).drive or ".." in parts.parts:
        return DataError(where, f"'{line}' leads out of images/.", "Names count from images/.")
    way_out = "A line is a name, as images/ has it."
    twin = look_alike(line, known.names) or look_alike(line, known.by_file)
    if twin:
        way_out = f"It looks like '{twin}', which is spelled '{unlike(twin, line)}', the line '{unlike(line, twin)}'."
    return DataError(where, f"there is no image '{spelled_out(line)}'.", way_out)


def look_alike(text: str, others: Iterable[str]) -> str | None:
    """The other text that the eye would take for this one: it differs in marks, spaces, or letters of other scripts."""
    plain = _for_the_eye(text)
    same = next((other for other in others if other != text and _for_the_eye(other) == plain), None)
    if same is not None or text.isascii():
        return same
    return next((other for other in others if _differs_in_script_alone(text, other)), None)


def _differs_in_script_alone(one: str, other: str) -> bool:
    """Whether two texts have the same letters but for some of which one is not ASCII, at most half of them."""
    if len(one) != len(other):
        return False
    differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return 2 * len(differing) <= len(one) and all(a.isascii() != b.isascii() for a, b in differing)


def unlike(text: str, other: str) -> str:
    """Text with its hidden characters, and the letters outside ASCII that the other lacks, as escapes."""
    return "".join(c if c.isascii() or c in other else c.encode("unicode_escape").decode() for c in spelled_out(text))


def _for_the_eye(text: str) -> str:
    """Without marks, controls and kinds of spaces, in one case."""
    spread = unicodedata.normalize("NFKD", text)
    return "".join(c for c in spread if unicodedata.category(c)[0] not in "MCZ").casefold()
