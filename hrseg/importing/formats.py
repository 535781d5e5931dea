"""The formats by name, and which one a source is: by its content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hrseg.data.images import walk
from hrseg.errors import DataError, HrsegError, nearest
from hrseg.importing import (
    coco,
    cvat,
    geodata,
    label_studio,
    labelme,
    masks,
    panoptic,
    roboflow_masks,
    supervisely,
    vistas,
    voc,
    yolo,
)
from hrseg.importing.records import Options, Source, Tree


class Format(NamedTuple):
    """A reader, whether a source is its own, and the options that it has."""

    read: Callable[[Sequence[Tree], Options], Source]
    recognises: Callable[[Sequence[Tree]], bool]
    options: frozenset[str] = frozenset()


IMAGES = frozenset({"images"})
# In the order in which they are tried.
FORMATS = {
    "geo": Format(
        geodata.read, geodata.recognises, frozenset({"labels", "classes", "class_field", "tile", "val_share"})
    ),
    "coco_panoptic": Format(panoptic.read, panoptic.recognises, IMAGES),
    "roboflow_masks": Format(roboflow_masks.read, roboflow_masks.recognises),
    "coco": Format(coco.read, coco.recognises, IMAGES),
    "labelme": Format(labelme.read, labelme.recognises, IMAGES | {"line_width"}),
    "label_studio": Format(label_studio.read, label_studio.recognises, IMAGES),
    "supervisely": Format(supervisely.read, supervisely.recognises, IMAGES),
    "vistas": Format(vistas.read, vistas.recognises),
    "voc": Format(voc.read, voc.recognises, IMAGES),
    "cvat": Format(cvat.read, cvat.recognises, IMAGES),
    "yolo": Format(yolo.read, yolo.recognises),
    "masks": Format(masks.read, masks.recognises, frozenset({"soft", "classes"})),
}
OPTIONS = ("images", "line_width", "soft", "classes", "labels", "class_field", "tile", "val_share")


def tree(path: Path) -> Tree:
    """A source with all its files."""
    if not path.is_dir():
        return Tree(path.parent, [path.name], False)
    start = len(str(path)) + 1
    return Tree(path, [file[start:].replace("\\", "/") for file in walk(path)], True)


def recognise(trees: Sequence[Tree]) -> str:
    """The name of the format of a source. Raises DataError where it is none of the known ones."""
    for name, form in FORMATS.items():
        if form.recognises(trees):
            return name
    first = trees[0]
    where = first.root if first.is_folder else first.root / first.files[0]
    raise DataError(where, "is in no format that is recognised.", f"--format says which one: {', '.join(FORMATS)}.")


def require_options(name: str, options: Options) -> None:
    """Raise HrsegError for an option that the format does not have."""
    if name not in FORMATS:
        raise HrsegError("--format", f"no format '{name}'.", nearest(name, FORMATS))
    for option in OPTIONS:
        if getattr(options, option) is not None and option not in FORMATS[name].options:
            those = ", ".join(known for known, form in FORMATS.items() if option in form.options)
            raise HrsegError(f"--{option.replace('_', '-')}", f"is for {those}; this is {name}.", "Leave it out.")
