"""From the words of the command to a new data set: recognise, read, draw, write, and say what was done."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.console import counted, progress
from hrseg.data.images import inspect_image
from hrseg.data.pairs import distinct_colors, size_mismatch
from hrseg.errors import DataError, HrsegError
from hrseg.files import write_json
from hrseg.importing.archive import unpack
from hrseg.importing.drawing import MOST_OBJECTS, Values, draw
from hrseg.importing.formats import FORMATS, recognise, require_options, tree
from hrseg.importing.image_index import name_pictures
from hrseg.importing.layout import Layout
from hrseg.importing.records import IGNORED, BrokenError, Category, Color, Options, Picture, Problem, Size, Source
from hrseg.made_files import new_folder
from hrseg.version import __version__

BACKGROUND = ("background", "_background_")
MOST_CLASSES = 65_000


@dataclass
class Tally:
    """What was counted. names: of the images of each split that were written, in order."""

    names: dict[str | None, list[str]] = field(default_factory=dict)
    annotations: Counter[int] = field(default_factory=Counter)  # by the source's category
    labelled: int = 0
    overlapping: int = 0
    empty: list[str] = field(default_factory=list)
    instances: int = 0

    def of_class(self, category: int) -> int:
        """The annotations of one of the source's categories; of what the import added: none."""
        return self.annotations[category] if category >= 0 else 0

    @property
    def images(self) -> int:
        return sum(map(len, self.names.values()))


def import_data(options: Options, told: Callable[[str], None] = print) -> dict[str, Any]:
    """Make a data set of what a tool exported; returns what import.json says. Raises HrsegError, leaving nothing."""
    given = [*options.sources, *(path for path in (options.images, options.classes, options.labels) if path)]
    for path in given:
        if not path.exists():
            raise DataError(path, "no such file or folder.")
    with new_folder(options.out.absolute()) as folder:
        unpacked = folder / ".unpacked"
        places = {path: unpacked / str(i) for i, path in enumerate(options.sources) if _is_archive(path)}
        try:
            for path, place in places.items():
                place.mkdir(parents=True)
                unpack(path, place)
            sources = tuple(places.get(path, path) for path in options.sources)
            done = _import(replace(options, sources=sources, copy=options.copy or bool(places)), folder, told)
        except HrsegError as error:
            # The archive is what people know, not where it was unpacked.
            parts = [_shown(str(part), places) for part in (error.where, error.what, error.way_out)]
            raise type(error)(*parts) from None
        done["source"] = [str(path) for path in options.sources]
        write_json(folder / "import.json", _all_shown(done, places))
        shutil.rmtree(unpacked, ignore_errors=True)
    return done


def _is_archive(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".zip"


def _shown(text: str, places: dict[Path, Path]) -> str:
    for path, place in places.items():
        text = text.replace(str(place), str(path))
    return text


def _all_shown(plain: Any, places: dict[Path, Path]) -> Any:
    if isinstance(plain, dict):
        return {key: _all_shown(value, places) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_all_shown(value, places) for value in plain]
    return _shown(plain, places) if isinstance(plain, str) else plain


def _import(options: Options, folder: Path, told: Callable[[str], None]) -> dict[str, Any]:
    trees = [tree(path) for path in options.sources]
    name = options.format or ("geo" if options.labels else recognise(trees))
    require_options(name, options)
    source = FORMATS[name].read(trees, options)
    where = options.sources[0]
    if not source.pictures or not source.categories:
        if source.problems and not options.skip_broken:
            raise _all_of(source.problems, where)
        what = "names no classes" if source.pictures else "holds no images with labels"
        raise DataError(where, f"{what} (read as {name}).", "--format says what it is.")
    values, categories, first_id = _meaning(source, name, where, options)
    colors = _colors(categories)
    layout = Layout(folder, copy=options.copy, colors=colors, first_id=first_id)
    problems = list(source.problems)
    try:
        tally = _write_pictures(source.pictures, layout, values, problems)
    finally:
        layout.finish()
    if problems and not options.skip_broken:
        raise _all_of(problems, where)
    if not tally.images:
        raise DataError(where, "leaves no image with labels.", "Is the unlabelled rest background? --unlabelled")
    layout.write_classes(categories, colors, first_id, values.ignore)
    splits = {split: names for split, names in tally.names.items() if split is not None}
    if len(tally.names) > 1:
        for split, names in tally.names.items():
            layout.write_list(split or "other", names)
    elif splits:
        told(f"all images are of the split '{next(iter(splits))}': data.val_share makes two")
    return {
        "format": name,
        "hrseg": __version__,
        "unlabelled": options.unlabelled,
        "images": {split or ("other" if splits else "all"): len(names) for split, names in tally.names.items()},
        "classes": [
            {"name": c.name, "id": i, "annotations": tally.of_class(i - values.shift)}
            for i, c in enumerate(categories, start=first_id)
        ],
        "annotations": sum(tally.annotations.values()),
        "ignored_annotations": tally.annotations[IGNORED],
        "instances": tally.instances,
        "overlap_share": round(tally.overlapping / tally.labelled, 6) if tally.labelled else 0.0,
        "left_out": {
            "images": [{"where": p.where, "why": p.what} for p in problems if p.kind == "image"],
            "annotations": [{"where": p.where, "why": p.what} for p in problems if p.kind == "annotation"],
            "empty": tally.empty,
        },
        "notes": source.notes,
    }


def _meaning(source: Source, name: str, where: Path, options: Options) -> tuple[Values, list[Category], int]:
    """What masks hold; the classes in order; the id of the first. 0 is only ever the background."""
    categories = list(source.categories)
    if source.complete and options.unlabelled and not source.chooses:
        raise HrsegError("--unlabelled", f"there is nothing to choose: {name} says of every pixel what it is.")
    if not source.complete and options.unlabelled is None:
        what = f"{name} does not say what the pixels are that no annotation covers."
        way_out = (
            "Choose: --unlabelled background (they are a class of their own) or --unlabelled ignore (nobody looked "
            "at them: they are left out of training and scores)."
        )
        raise DataError(where, what, way_out)
    background = next((i for i, c in enumerate(categories) if c.name.lower() in BACKGROUND), None)
    first_id = shift = 0 if background == 0 else 1
    if options.unlabelled == "background" and background is None:
        categories.insert(0, Category("background", (0, 0, 0)))
        background = first_id = 0
    highest = len(categories) - 1 + first_id
    if highest > MOST_CLASSES:
        raise DataError(where, f"has {len(categories):,} classes, more than {MOST_CLASSES:,}.")
    ignore, dtype = (255, np.uint8) if highest < 255 else (65535, np.uint16)
    fill = ignore
    if options.unlabelled == "background" and background is not None:
        fill = background + first_id
    objects = np.uint16 if highest * 1000 + MOST_OBJECTS < 2**16 else np.int32
    return Values(fill, shift, ignore, dtype, objects), categories, first_id


def _colors(categories: Sequence[Category]) -> list[Color]:
    """The source's colours; others where it gives none or the same one twice."""
    free = iter(distinct_colors(2 * len(categories) + 1))
    taken = {c.color for c in categories}
    colors: list[Color] = []
    for category in categories:
        color = category.color
        while color is None or color in colors:
            color = next((c for c in free if c not in taken), None) or _unused(colors)
        colors.append(color)
    return colors


def _unused(colors: Sequence[Color]) -> Color:
    known = set(colors)
    return next(
        c for c in ((r, g, b) for r in range(255, 0, -1) for g in range(256) for b in range(256)) if c not in known
    )


def _write_pictures(pictures: Sequence[Picture], layout: Layout, values: Values, problems: list[Problem]) -> Tally:
    tally = Tally()
    with progress(len(pictures), "import", "image", shown=len(pictures) > 1) as bar:
        for picture, name in zip(pictures, name_pictures(pictures), strict=True):
            try:
                _write_picture(picture, name, layout, values, problems, tally)
            except BrokenError as error:
                problems.append(Problem(picture.where, error.what, "image"))
                layout.remove(name)
            except DataError as error:
                problems.append(Problem(picture.where, f"{error.what} {error.way_out}".strip(), "image"))
                layout.remove(name)
            bar.update()
    return tally


def _write_picture(
    picture: Picture, name: str, layout: Layout, values: Values, problems: list[Problem], tally: Tally
) -> None:
    path = layout.add_image(name, picture.file() if callable(picture.file) else picture.file)
    info = inspect_image(path)
    size = info.height, info.width
    if picture.size is not None and picture.size != size:
        raise BrokenError(_other_size(size, picture.size))
    mask = draw(picture, size, values, problems)
    if mask is None:
        tally.empty.append(picture.where)
        layout.remove(name)
        return
    layout.add_mask(name, mask.values)
    if mask.objects is not None:
        layout.add_objects(name, mask.objects)
        tally.instances += 1
    tally.names.setdefault(picture.split, []).append(name)
    tally.annotations.update(mask.drawn)
    tally.labelled += mask.labelled
    tally.overlapping += mask.overlapping


def _other_size(image: Size, labels: Size) -> str:
    what = f"{size_mismatch(image, labels)[:-1]} in the annotations."
    turned = image == labels[::-1] and image[0] != image[1]
    return what + (" The photograph may carry an orientation tag that the tool did not follow." if turned else "")


def _all_of(problems: Sequence[Problem], where: Path) -> DataError:
    kinds = Counter(problem.kind for problem in problems)
    told = " and ".join(counted(number, kind) for kind, number in sorted(kinds.items()))
    lines = "".join(f"\n  {problem.where}: {problem.what}" for problem in problems)
    return DataError(where, f"{told} cannot be used.", f"Correct them, or leave them out with --skip-broken:{lines}")
