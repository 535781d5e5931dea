"""Predictions as training data: what `tools/predict.py --sure` leaves, for data.dataset=folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.config.yaml_files import yaml_text
from hrseg.data.images import IMAGE_ENDINGS
from hrseg.errors import ConfigError, HrsegError
from hrseg.files import write_json, write_text
from hrseg.made_files import CONFIG_MARK, require_replaceable
from hrseg.predict.input_files import Input
from hrseg.predict.label_ids import label_ids
from hrseg.predict.outputs import Outputs, is_complete, path_text, with_free_names
from hrseg.task import LabelSpace, Task
from hrseg.version import __version__
from hrseg.weights.source import find_file, sha256

WHERE = "--sure"
RECORD = "sure.json"


def require_possible(inputs: Sequence[Input], outputs: Outputs, space: LabelSpace) -> None:
    """Raise ConfigError or HrsegError where the folder cannot become training data, before anything is written."""
    if space.task is Task.MULTILABEL:
        raise ConfigError(WHERE, "is not for overlapping labels.", "Use --probabilities.")
    for one in inputs:
        if one.path.suffix.lower() not in IMAGE_ENDINGS:
            what = f"{one.path} is not an image that training reads."
            raise ConfigError(WHERE, what, f"Their endings: {', '.join(IMAGE_ENDINGS)}.")
    for name in ("classes.yaml", RECORD):
        require_replaceable(outputs.folder / name)


def write_training_data(
    inputs: Sequence[Input], outputs: Outputs, space: LabelSpace, checkpoints: Sequence[str | Path], sure: float
) -> None:
    """images/ (links), classes.yaml, and sure.json: checkpoints, threshold and the share of pixels kept.

    The masks are there already. Raises HrsegError where an image's place is taken by another file.
    """
    ids = label_ids(space) if outputs.label_ids else None
    nodata = space.nodata_index if ids is None else ids.nodata
    images, kept, pixels = {}, 0, 0
    for one in with_free_names(inputs, outputs, space):
        if not is_complete(one, outputs, space):
            continue
        link_image(one.path, outputs.folder / "images" / f"{one.name}{one.path.suffix}")
        with Image.open(outputs.paths(one, space)[0]) as mask:
            sure_pixels, size = int(np.count_nonzero(np.asarray(mask) != nodata)), mask.width * mask.height
        images[one.name] = {"from": path_text(one), "kept": sure_pixels / size}
        kept, pixels = kept + sure_pixels, pixels + size
    entries = [
        {"name": c.name, "id": i if ids is None else int(ids.table[i]), "color": list(c.color)}
        for i, c in enumerate(space.classes)
    ]
    text = yaml_text({"classes": entries, "ignore": nodata})
    write_text(outputs.folder / "classes.yaml", f"{CONFIG_MARK} {__version__}\n{text}")
    record = {
        "hrseg": __version__, "checkpoints": [{"path": str(c), "sha256": sha256(find_file(c))} for c in checkpoints],
        "threshold": sure, "kept": kept / pixels if pixels else 0.0, "images": images,
    }  # fmt: skip
    write_json(outputs.folder / RECORD, record)


def link_image(source: Path, target: Path) -> None:
    """A link to an image, or a copy where there are none. Raises HrsegError where another file has its place."""
    try:
        if target.exists() or target.is_symlink():
            same = target.exists() and (target.samefile(source) or target.read_bytes() == source.read_bytes())
            if not same:
                raise HrsegError(target, "is there, and is another image.", "Give another --out.")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.symlink_to(source.resolve())
        except (OSError, NotImplementedError):  # file systems without links
            shutil.copyfile(source, target)
    except OSError as error:
        raise HrsegError(target, f"cannot be written: {error.strerror}.", "Give another --out.") from error
