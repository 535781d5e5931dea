"""What every reader gives: categories, and pictures with annotations or with a whole label raster."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from hrseg.errors import HrsegError

IGNORED = -1  # in place of a category: its pixels are ignored
UNLABELLED = -2  # in a label raster: no annotation covers the pixel

Color = tuple[int, int, int]
Size = tuple[int, int]


class Category(NamedTuple):
    """A class as the source has it. color: None where the source gives none."""

    name: str
    color: Color | None = None


class Problem(NamedTuple):
    """Something that cannot be used. where: the file and the id in it. what: one sentence. kind: what is left out."""

    where: str
    what: str
    kind: str = "annotation"  # or "image"


class BrokenError(HrsegError):
    """One annotation or image cannot be used; the others can."""

    def __init__(self, what: str):
        super().__init__("", what)


class Window(NamedTuple):
    """The pixels of one annotation: a boolean array [h, w] whose first pixel is at row `top`, column `left`."""

    top: int
    left: int
    mask: np.ndarray


class Area(Protocol):
    """The ground that one annotation covers."""

    def draw(self, size: Size) -> Window:
        """Its pixels within an image of this size. Raises BrokenError where it is not sound."""
        ...


class Annotation(NamedTuple):
    """One annotation. category: an index into the source's categories, or IGNORED.

    where: its id for messages. order: a higher one lies on top; of equal ones the later. instance: annotations of one
    object have the same value; None: it is no single object.
    """

    where: str
    category: int
    area: Area
    order: float = 0
    instance: Hashable | None = None


class Drawn(NamedTuple):
    """A label raster. labels: int32 [H, W], category indices, IGNORED or UNLABELLED. objects: int32 [H, W], or None.

    objects: 0 where there is no object, else a number that differs between objects.
    """

    labels: np.ndarray
    objects: np.ndarray | None = None


@dataclass
class Picture:
    """One image with its labels.

    where: its name or id for messages. file: the image file, its content, or a function that gives that. key: where it
    lies, for example
    "train/a.jpg"; names in the new data set come from it. size: (height, width) as the source says. raster: gives the
    labels of all pixels of an image of a size, in place of annotations; None: there is nothing to learn from. name: in
    the new data set, where it does not come from key.
    """

    where: str
    file: Path | bytes | Callable[[], bytes]
    key: str
    split: str | None = None
    size: Size | None = None
    annotations: list[Annotation] = field(default_factory=list)
    raster: Callable[[Size], Drawn | None] | None = None
    name: str | None = None


@dataclass
class Source:
    """Everything that a reader found.

    complete: the source says of every pixel what it is, so that nothing has to be asked about the others. chooses:
    --unlabelled is an option all the same, for images without masks.
    """

    format: str
    categories: list[Category]
    pictures: Sequence[Picture]
    problems: list[Problem] = field(default_factory=list)
    complete: bool = False
    chooses: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """The words of the command. None: not given."""

    sources: tuple[Path, ...]
    out: Path
    format: str | None = None
    images: Path | None = None
    unlabelled: str | None = None
    copy: bool = False
    skip_broken: bool = False
    line_width: int | None = None
    soft: str | None = None
    classes: Path | None = None
    labels: Path | None = None
    class_field: str | None = None
    tile: int | None = None
    val_share: float | None = None


class Tree(NamedTuple):
    """A source: a folder with the paths of all its files, '/' between folders; of one file: its folder and itself."""

    root: Path
    files: list[str]
    is_folder: bool

    def named(self, *names: str) -> list[str]:
        """The files with one of these names, in any folder."""
        return [path for path in self.files if path.rpartition("/")[2] in names]

    def ending(self, *endings: str) -> list[str]:
        return [path for path in self.files if path.lower().endswith(endings)]


class Categories:
    """Categories in the order in which they are first named."""

    def __init__(self) -> None:
        self.all: list[Category] = []
        self._index: dict[str, int] = {}

    def index(self, name: str, color: Color | None = None) -> int:
        """The index of a category, which is added where it is new."""
        if name not in self._index:
            self._index[name] = len(self.all)
            self.all.append(Category(name, color))
        return self._index[name]

    def __contains__(self, name: str) -> bool:
        return name in self._index
