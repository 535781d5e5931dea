"""The result files of `tools/predict.py`: their names, and whether they are complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from hrseg.errors import DataError
from hrseg.predict.films import film_ending
from hrseg.predict.input_files import Input
from hrseg.predict.label_ids import label_ids
from hrseg.predict.writer import class_index_paths
from hrseg.report import pictures
from hrseg.report.png import RGB, PngWriter
from hrseg.task import LabelSpace

# Keywords under which a result says what it was made from
INPUT, STATE, LEGEND = "hrseg input", "hrseg state", "hrseg legend"


@dataclass(frozen=True)
class Outputs:
    """What is written below a folder. made_by: identifies the weights and all else that changes the answer."""

    folder: Path
    made_by: str
    colors: bool = True
    overlay: bool = True
    probabilities: bool = False
    frames: bool = False  # of videos: the class indices of each frame
    label_ids: bool = False  # masks hold the data set's own values
    masks: str = "ids"  # the folder of the masks

    def state(self, one: Input) -> str:
        """A checksum that changes with the file, the weights and the settings."""
        about = one.path.stat()
        wanted = (self.colors, self.overlay, self.probabilities, self.frames)
        text = f"{about.st_size} {about.st_mtime_ns} {self.made_by} {wanted}" + " label ids" * self.label_ids
        return hashlib.sha256(text.encode()).hexdigest()

    def text(self, one: Input) -> dict[str, str]:
        """What the results of an input say they were made from."""
        return {INPUT: path_text(one), STATE: self.state(one)}

    def paths(self, one: Input, space: LabelSpace) -> list[Path]:
        """All files of one input; the first is written last, and says what it was made from."""
        if one.is_video:
            return [self.folder / "overlay" / f"{one.name}{ending}" for ending in (".json", film_ending())]
        paths = [self.folder / f"{path}.png" for path in class_index_paths(one.name, space, self.masks)]
        paths += [self.folder / kind / f"{one.name}.png" for kind in ("colors", "overlay") if getattr(self, kind)]
        return paths + [self.folder / "probabilities" / f"{one.name}.npz"] * self.probabilities


def path_text(one: Input) -> str:
    """The path of an input below its base; bytes that are not UTF-8, which file names may have, are escaped."""
    return one.relative.as_posix().encode("utf-8", "backslashreplace").decode()


def result_text(path: Path) -> dict[str, str]:
    """What a result says it was made from; empty where there is no result or the file is not from hrseg."""
    with suppress(Exception):  # a foreign file may make Pillow and json raise anything
        if path.suffix == ".json":
            return dict(json.loads(path.read_text(encoding="utf-8")))
        with Image.open(path, formats=("PNG",)) as image:
            return {str(key): str(value) for key, value in image.info.items()}
    return {}


def with_free_names(inputs: Sequence[Input], outputs: Outputs, space: LabelSpace) -> list[Input]:
    """The inputs, with their ending in the name where the plain name holds the result of another input.

    Raises DataError where that is taken as well.
    """
    renamed = []
    taken = {one.name.lower() for one in inputs}
    for one in inputs:
        for name in (one.name, one.relative.as_posix()):
            one, plain = replace(one, name=name), one
            first = outputs.paths(one, space)[0]
            free = name == plain.name or name.lower() not in taken
            if free and (not first.exists() or result_text(first).get(INPUT) == path_text(one)):
                break
        else:
            what = f"is the result of something else; {plain.path} is not written over it."
            raise DataError(outputs.paths(one, space)[0], what, "Give another --out.")
        renamed.append(one)
    return renamed


def is_complete(one: Input, outputs: Outputs, space: LabelSpace) -> bool:
    """Whether all results of an input are there, of this file, these weights and these settings."""
    first, *others = outputs.paths(one, space)
    if not first.exists() or not all(path.exists() for path in others):
        return False
    return one.path.exists() and result_text(first).get(STATE) == outputs.state(one)


def require_own_legend(legend: Path) -> None:
    """Raise DataError where another file has the name of the legend."""
    if legend.exists() and LEGEND not in result_text(legend):
        raise DataError(legend, "is not a legend of hrseg; it is not overwritten.", "Give another --out.")


def write_legend(path: Path, space: LabelSpace) -> None:
    """The classes beside their colours."""
    picture = pictures.legend({c.name: c.color for c in space.classes})
    with PngWriter(path, picture.shape[:2], RGB, text={LEGEND: "of classes.json"}) as file:
        file.write(picture)


def classes_to_plain(space: LabelSpace, *, ids: bool = False) -> dict[str, Any]:
    """The content of classes.json. ids: masks hold the data set's own values."""
    classes = [
        {"index": i, **({} if c.id is None else {"id": c.id}), "name": c.name, "color": list(c.color)}
        for i, c in enumerate(space.classes)
    ]
    nodata = label_ids(space).nodata if ids else space.nodata_index
    return {"task": space.task.value, "classes": classes, "masks": "id" if ids else "index", "nodata": nodata}
