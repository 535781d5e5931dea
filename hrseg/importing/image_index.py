"""The image files below some folders, found by the names that annotations give them.

A name in an annotation is only ever compared with files that are there: no path in a file leads anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from hrseg.data.images import IMAGE_ENDINGS, ending_of, walk
from hrseg.importing.records import BrokenError, Picture

CONVERTED = (".bmp", ".webp")  # lossless or not, they are written as PNG
SPLITS = {"train": "train", "training": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}


class ImageIndex:
    """Image files by their path from one of the folders, and by the ends of that path."""

    def __init__(self, roots: Sequence[Path], *, but: Sequence[str] = ()):
        """but: folders whose files are no images, with '/' at the end."""
        self.by_path: dict[str, Path] = {}
        self._ends: dict[str, list[str]] = {}
        for root in roots:
            start = len(str(root)) + 1
            for path in walk(root):
                name = path[start:].replace("\\", "/")
                if ending_of(path) in (*IMAGE_ENDINGS, *CONVERTED) and not name.startswith(tuple(but)):
                    self.by_path.setdefault(name, Path(path))
        self._stems: dict[str, list[str]] = {}
        for name in self.by_path:
            self._ends.setdefault(PurePosixPath(name).name, []).append(name)
            self._stems.setdefault(PurePosixPath(name).stem, []).append(name)

    def find(self, name: str, folder: str = "") -> str:
        """The key in `by_path` of an image that an annotation names.

        folder: that of the annotation file, which names count from. Raises BrokenError where there is none, or where
        several fit.
        """
        wanted = re.sub(r"^(\./)+", "", name.replace("\\", "/"))
        for place in (f"{folder}/{wanted}" if folder else wanted, wanted):
            if place in self.by_path:
                return place
        return self._fitting(wanted, folder, self._ends, lambda path: path)

    def find_stem(self, name: str, folder: str = "") -> str:
        """The same for a name without ending."""
        return self._fitting(name, folder, self._stems, lambda path: path.rpartition(".")[0])

    def _fitting(self, name: str, folder: str, known: Mapping[str, Sequence[str]], end_of: Callable[[str], str]) -> str:
        """The one path with the longest end in common with a name; of several that in `folder`."""
        parts = PurePosixPath(name).parts
        fitting = known.get(parts[-1] if parts else "", ())
        for length in range(len(parts), 0, -1):
            end = "/".join(parts[-length:])
            found = [path for path in fitting if f"/{end_of(path)}".endswith(f"/{end}")]
            near = [path for path in found if folder and path.startswith(folder + "/")]
            if len(near) == 1 or len(found) == 1:
                return (near if len(near) == 1 else found)[0]
            if found:
                raise BrokenError(f"the image '{name}' may be any of {', '.join(found[:3])}.")
        raise BrokenError(f"there is no image '{name}'.")


def name_pictures(pictures: Iterable[Picture]) -> list[str]:
    """A name for each picture in the new data set, without ending, '/' between folders.

    The folders that all images of a split have in common are left out, for a name's folder says which images belong
    together. Where two splits then have the same name, it starts with the split.
    """
    pictures = list(pictures)
    folders: dict[str | None, list[str]] = {}
    for picture in pictures:
        parts = list(PurePosixPath(picture.key).parts[:-1])
        common = folders.setdefault(picture.split, parts)
        same = next(
            (i for i, (a, b) in enumerate(zip(common, parts, strict=False)) if a != b), min(map(len, (common, parts)))
        )
        folders[picture.split] = common[:same]
    names = [p.name or _name(PurePosixPath(p.key).parts[len(folders[p.split]) :]) for p in pictures]
    of_split: dict[str, set[str | None]] = {}
    for name, picture in zip(names, pictures, strict=True):
        of_split.setdefault(name, set()).add(picture.split)
    taken: set[str] = set()
    for i, (name, picture) in enumerate(zip(names, pictures, strict=True)):
        name = f"{picture.split or 'other'}/{name}" if len(of_split[name]) > 1 else name
        number, free = 2, name
        while free in taken:
            free, number = f"{name}_{number}", number + 1
        names[i] = free
        taken.add(free)
    return names


def _name(parts: Sequence[str]) -> str:
    """Without ending, and without what a line of a list file or a file system cannot hold."""
    parts = [*parts[:-1], PurePosixPath(parts[-1]).stem]
    clean = [re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\\:]", "_", part).strip().lstrip(".") or "_" for part in parts]
    return "/".join(clean)


def split_in_folders(path: str) -> str | None:
    """The split that one of the folders of a path stands for, the innermost first."""
    return next((split for part in reversed(path.split("/")[:-1]) if (split := split_of(part))), None)


def split_of(name: str) -> str | None:
    """The split that a folder or file stands for: valid is val."""
    return SPLITS.get(name.lower())
