"""A new data set in which what was decided is done: masks mended, everything else linked, each change recorded."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from hrseg import build
from hrseg import config as settings
from hrseg.config import Config
from hrseg.data.dataset import Dataset, WrappedDataset
from hrseg.data.folder import Folder
from hrseg.data.images import read_mask
from hrseg.doctor.page import DECISIONS
from hrseg.doctor.suspects import FILE, FORMAT, Suspect, read_suspects, sha256_of
from hrseg.doctor.views import View
from hrseg.errors import DataError, HrsegError, first_line
from hrseg.files import write_json
from hrseg.made_files import new_folder
from hrseg.version import __version__

CHOICES = ("accept", "take", "ignore")
RECORD = "mended.json"
WRITTEN = ("P", "L", "RGB", "I;16", "I")  # kinds of PNG, as Pillow names them


def apply(
    decisions: Path, out: Path, *, suspects: Path | None = None, take_above: float | None = None
) -> dict[str, Any]:
    """Write the mended data set; returns the record of what was changed.

    decisions: what the page saved; or suspects.json, for `take_above` alone. suspects: the doctor's folder, if it is
    not where the decisions say. take_above: for suspects with at least this score that nobody decided about, the
    model's view is taken. Raises DataError where decisions, suspects and masks do not belong together, leaving nothing.
    """
    folder, content, listed, chosen = _read(decisions, suspects)
    if take_above is not None:
        chosen = {s.id: "take" for s in listed if s.score >= take_above} | chosen
    if not chosen:
        raise DataError(decisions, "decides nothing.", "Decide on doctor.html, or give --take-above 0.5.")
    config = settings.parse(content["config"], where=str(folder / FILE))
    root = Path(config.data.root).absolute()
    dataset = _plain_dataset(config)
    by_mask: dict[str, list[Suspect]] = {}
    for suspect in sorted(listed, key=lambda s: (s.score, -s.id)):  # of two that overlap, the higher one is done last
        if chosen.get(suspect.id) in ("take", "ignore"):
            by_mask.setdefault(_checked_mask(suspect, root, folder), []).append(suspect)
    with new_folder(out.absolute()) as new:
        if out.absolute().resolve().is_relative_to(root.resolve()):
            raise DataError(out, f"is inside of the data set {root}.", "Choose another --out.")
        changes = []
        for mask, some in sorted(by_mask.items()):
            changes.append(_mend(dataset, root / mask, new / mask, some, chosen, folder, mask))
        _link_rest(root, new, {PurePosixPath(mask) for mask in by_mask}, PurePosixPath())
        record = {
            "format": "hrseg mended 1",
            "hrseg": __version__,
            "of": str(root),
            "suspects": str(folder / FILE),
            "key": content["key"],
            "decisions": {c: sum(d == c for d in chosen.values()) for c in CHOICES},
            "take_above": take_above,
            "changes": changes,
        }
        write_json(new / RECORD, record)
    return record


def _read(decisions: Path, given: Path | None) -> tuple[Path, dict[str, Any], list[Suspect], dict[int, str]]:
    """The doctor's folder, what its suspects.json says, its suspects, and the decision of each by its id."""
    way_out = "It is the file that the page saves."
    try:
        plain = json.loads(decisions.read_text(encoding="utf-8-sig"))
        kind, key = plain["format"], plain["key"]
        if kind not in (DECISIONS, FORMAT):
            raise ValueError(f"its format is {kind!r}")
        entries = plain["decisions"] if kind == DECISIONS else []
        made = {int(e["id"]): (e["decision"], e["image"], e["mask_sha256"]) for e in entries}
        recorded = Path(plain["folder"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(decisions, f"holds no decisions: {first_line(error)}.", way_out) from None
    folder = given or (decisions.parent if (decisions.parent / FILE).is_file() else recorded)
    content, listed = read_suspects(folder)
    if content["key"] != key:
        what = f"was made for other suspects than those of {folder}."
        raise DataError(decisions, what, "Name the folder of its own with --suspects, or decide again.")
    by_id = {s.id: s for s in listed}
    for number, (decision, image, sha256) in made.items():
        suspect = by_id.get(number)
        if suspect is None or (suspect.image, suspect.mask_sha256) != (image, sha256):
            raise DataError(decisions, f"the decision about {number}, {image}, is of no suspect.", way_out)
        if decision not in CHOICES:
            raise DataError(decisions, f"'{decision}' is no decision.", f"Known: {', '.join(CHOICES)}.")
    return folder, content, listed, {number: decision for number, (decision, _, _) in made.items()}


def _plain_dataset(config: Config) -> Dataset:
    """Any split of the data set, for the meaning of its masks."""
    data = config.data.model_copy(update={"folds": None})
    dataset = build.dataset(config.model_copy(update={"data": data}), config.data.train_split)
    while isinstance(dataset, WrappedDataset):
        dataset = dataset.whole
    return dataset


def _checked_mask(suspect: Suspect, root: Path, folder: Path) -> str:
    """The path of a suspect's mask from the root. Raises DataError where it is not there as it was."""
    if suspect.mask is None:
        what = "its mask is not a single file below data.root, and cannot be mended."
        raise DataError(f"{folder / FILE}, {suspect.image}", what, "Accept or leave it.")
    parts = PurePosixPath(suspect.mask)
    if parts.is_absolute() or ".." in parts.parts or "\\" in suspect.mask:
        raise DataError(folder / FILE, f"'{suspect.mask}' is not a path below the data set.")
    path = root / suspect.mask
    if not path.is_file():
        raise DataError(path, "no such file.", "Was the data set moved? Run the doctor again.")
    if sha256_of(path) != suspect.mask_sha256:
        what = "was changed since the doctor looked at it (another checksum)."
        raise DataError(path, what, "Run the doctor again; decisions about the old mask do not fit the new one.")
    return suspect.mask


def _mend(
    dataset: Dataset, source: Path, target: Path, suspects: Sequence[Suspect], chosen: Mapping[int, str], folder: Path,
    name: str,
) -> dict[str, Any]:  # fmt: skip
    """Write one mask anew and read it back; returns the record of it."""
    before = indices(dataset, source)
    after, done = before.copy(), []
    for suspect in suspects:
        top, left, bottom, right = suspect.box
        window = np.s_[top:bottom, left:right]
        predicted = View.load(_inside(folder, suspect.view)).predicted
        if predicted.shape != before.shape or bottom > before.shape[0] or right > before.shape[1]:
            raise DataError(folder / FILE, f"what is kept of {suspect.image} has another size than its mask.")
        new = predicted[window] if chosen[suspect.id] == "take" else np.full(1, dataset.space.ignore_index)
        after[window] = np.where(suspect.inside(), new, after[window])
        done.append({"id": suspect.id, "decision": chosen[suspect.id], "kind": suspect.kind, "box": list(suspect.box)})
    write_mask(dataset, source, target, before, after)
    return {
        "mask": name,
        "image": suspects[0].image,
        "before_sha256": sha256_of(source),
        "after_sha256": sha256_of(target),
        "pixels": int(np.count_nonzero(after != before)),
        "from_to": _moves(before, after, dataset),
        "suspects": done,
    }


def _moves(before: np.ndarray, after: np.ndarray, dataset: Dataset) -> list[dict[str, Any]]:
    changed = after != before
    pairs, counts = np.unique(np.stack([before[changed], after[changed]]), axis=1, return_counts=True)
    names = dict(enumerate(dataset.space.names))
    return [
        {"from": names.get(int(a), "(ignored)"), "to": names.get(int(b), "(ignored)"), "pixels": int(n)}
        for (a, b), n in zip(pairs.T, counts, strict=True)
    ]


def _inside(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise DataError(folder / FILE, f"'{name}' is not a path below it.")
    return folder / name


def indices(dataset: Dataset, path: Path) -> np.ndarray:
    """The class indices [H, W] of a mask file."""
    if isinstance(dataset, Folder):
        return dataset.mask_values.read(path)
    return dataset.to_indices(read_mask(path), path)


def write_mask(dataset: Dataset, source: Path, target: Path, before: np.ndarray, after: np.ndarray) -> None:
    """A mask of the same kind as `source` with other class indices [H, W]. Raises DataError."""
    try:
        with Image.open(source, formats=("PNG",)) as opened:
            mode, palette = opened.mode, opened.getpalette()
            raw = np.array(opened)
    except (OSError, SyntaxError, ValueError):
        mode = "not a PNG"
    if mode not in WRITTEN:
        what = f"is a mask of a kind that is read but not written ({mode})."
        raise DataError(source, what, "Save the masks as PNG with ids or colours, and run the doctor again.")
    for new in np.unique(after[after != before]):
        raw[(after == new) & (before != new)] = _value(dataset, int(new), raw, source)
    buffer = io.BytesIO()
    picture = Image.fromarray(raw.astype(np.uint16) if mode.startswith("I") else raw)
    if mode == "P" and palette:
        picture.putpalette(palette + [0] * (768 - len(palette)))
    picture.save(buffer, "PNG", **({"bits": 8} if mode == "P" else {}))  # fewer would not hold all values
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(buffer.getvalue())
    if not np.array_equal(indices(dataset, target), after):
        raise DataError(source, "cannot be written so that it reads as decided.", "Please report this mask.")


def _value(dataset: Dataset, index: int, raw: np.ndarray, path: Path) -> Any:
    """What pixels of a class hold in a mask of ids [H, W], or of colours [H, W, 3]."""
    grey = raw.ndim == 2 or bool((raw[..., :1] == raw).all())
    if isinstance(dataset, Folder) and (not grey or dataset.mask_kind == "colors"):
        values = dataset.mask_values
        ignored = [*values.ignored_colors, None]
        color = ignored[0] if index == dataset.space.ignore_index else values.colors[index]
        if color is not None:
            return color
    elif grey and dataset.table is not None:
        highest = np.iinfo(raw.dtype).max
        known = [v for v, i in dataset.table.indices.items() if i == index and 0 <= v <= highest]
        if known:
            return known[0]
    name = "ignored pixels" if index == dataset.space.ignore_index else dataset.space.names[index]
    raise DataError(path, f"masks of this kind have no value for {name}.", "Add it to classes.yaml (ignore: ...).")


def _link_rest(root: Path, new: Path, mended: set[PurePosixPath], below: PurePosixPath) -> None:
    """Link all of a folder but what was mended; folders in which nothing was mended as a whole."""
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
        for entry in entries:
            path = below / entry.name
            if path in mended or path == PurePosixPath(RECORD):
                continue
            if any(path in mask.parents for mask in mended):
                (new / path).mkdir(exist_ok=True)
                _link_rest(root, new, mended, path)
            else:
                _link(Path(entry.path), new / path)
    except OSError as error:
        raise HrsegError(new / below, f"cannot be made: {error.strerror}.", "Choose another --out.") from error


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except (OSError, NotImplementedError):  # systems without links
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
