"""The image files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hrseg.errors import DataError
from hrseg.files import name_as_text

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".npy")  # JPEG changes values, and a mask's values are its meaning
OTHER_ENDINGS = (".gif", ".webp", ".jp2", ".ppm", ".heic", ".npy")  # images in formats that are not read


def list_files(
    folder: Path, endings: Sequence[str], *, suffix: str = "", unread: list[str] | None = None
) -> dict[str, str]:
    """Paths below a folder by name: the path from the folder, '/' between folders, without `suffix` and ending; sorted.

    Names are text, see `name_as_text`; paths are as the system gives them.

    Hidden files and other endings are left out. unread: receives the paths of images in other formats. Raises
    DataError where two files have one name (a.png and a.jpg), and as `walk` does.
    """
    found: dict[str, str] = {}
    others = {*OTHER_ENDINGS, *IMAGE_ENDINGS} - {*endings}
    start = len(str(folder)) + 1
    for path in walk(folder):
        ending = ending_of(path)
        if ending not in endings:
            if unread is not None and ending in others:
                unread.append(path)
            continue
        name = name_as_text(path[start : len(path) - len(ending)].replace(os.sep, "/"))
        if not name.endswith(suffix):
            continue
        name = name.removesuffix(suffix)
        if name in found:
            raise DataError(path, f"has the same name as {Path(found[name]).name}.", "Keep one of the two.")
        found[name] = path
    return {name: found[name] for name in sorted(found)}


def ending_of(path: str) -> str:
    """The ending of a file's name, in lower case, as `Path.suffix` gives it, many times faster."""
    _, dot, ending = path.rpartition(".")
    return f"{dot}{ending}".lower()


def walk(folder: str | Path) -> Iterator[str]:
    """The paths of all files below a folder but the hidden ones (.DS_Store, the ._* of a Mac's archive), sorted.

    Strings, for there may be very many. Links to folders are followed. Raises DataError for one to a folder above it.
    """
    yield from _walk(os.fspath(folder), frozenset({os.path.realpath(folder)}))


def _walk(folder: str, above: frozenset[str]) -> Iterator[str]:
    """above: the real paths of this folder and of those that it lies in."""
    try:
        with os.scandir(folder) as entries:
            shown = [e for e in entries if not e.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(folder, f"cannot be read: {error.strerror}.") from None
    folders = {e.path for e in shown if _is_folder(e)}
    # Links that lead nowhere are files too, and reading them reports it; pipes and devices may never end and are not.
    files = {e.path for e in shown if e.is_symlink() or e.is_file()} - folders
    yield from sorted(files)
    for path in sorted(folders):
        real = os.path.realpath(path)
        if real in above:
            raise DataError(path, "leads back, by a link, into a folder that it lies in.", "Remove the link.")
        yield from _walk(path, above | {real})


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
