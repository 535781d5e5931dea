"""From models and their images to a folder with suspects.json and doctor.html."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hrseg import build
from hrseg.console import progress
from hrseg.data.dataset import Dataset
from hrseg.doctor import collection
from hrseg.doctor.judging import Judge, judges, root_of, views
from hrseg.doctor.page import Cutter, write_page
from hrseg.doctor.regions import Knowledge, Strengths, regions
from hrseg.doctor.suspects import FILE, FORMAT, Region, Suspect, key_of, plain, runs_of, sha256_of
from hrseg.doctor.views import Habits, View
from hrseg.doctor.whole_images import Sketch, sketch, tiny, whole_image_fault
from hrseg.errors import DataError
from hrseg.files import write_json
from hrseg.made_files import new_folder, require_new_folder
from hrseg.report.pictures import displayable
from hrseg.task import Normalisation
from hrseg.version import __version__

log = logging.getLogger(__name__)
PER_IMAGE = 20  # suspects at most


class Item(NamedTuple):
    """An image among all that are judged. place: in its data set."""

    dataset: Dataset
    place: int
    normalisation: Normalisation

    @property
    def name(self) -> str:
        return self.dataset.names[self.place]

    def photo(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        return displayable(self.dataset.read_valid_image(self.place)[0], self.normalisation)

    def target(self) -> np.ndarray:
        target = self.dataset.sample_target(self.place)
        if target is None:
            raise DataError(self.name, "has no labels.", "Choose a split that has them.")
        return target

    def mask(self) -> Path | None:
        files = self.dataset.files(self.place)
        return files[1] if files and isinstance(files[1], Path) else None


class First(NamedTuple):
    """What the first look at all images leaves in memory: some kB for each."""

    items: list[Item]
    habits: Habits
    strengths: Strengths
    sketches: list[Sketch]
    prints: np.ndarray
    masks: np.ndarray
    looks: np.ndarray


def examine(
    sources: Sequence[str],
    overrides: Sequence[str],
    out: Path,
    *,
    split: str | None = None,
    most: int = 1000,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Write the doctor's folder and return what suspects.json says.

    sources: the runs or checkpoints of folds, or one. most: suspects that are listed. Raises HrsegError, leaving
    nothing.
    """
    require_new_folder(out)
    chosen = judges(sources, overrides, split=split, trust_code=trust_code)
    with new_folder(out.absolute()) as folder:
        device = build.device(chosen[0].config.run)
        first = first_look(chosen, folder / "views", device, trust_code=trust_code)
        names = [item.name for item in first.items]
        listed, per_image = rank(first, folder / "views", most)
        suspects = [_suspect(n, first.items[i], i, region, root_of(chosen[0])) for n, (i, region) in enumerate(listed)]
        entries = [plain(suspect) for suspect in suspects]
        classes = chosen[0].dataset.space
        content = {
            "format": FORMAT,
            "hrseg": __version__,
            "key": key_of(entries),
            "folder": str(out.absolute()),
            "config": _with_whole_root(chosen[0].config.to_plain()),
            "models": [judge.to_plain() for judge in chosen],
            "unseen": all(judge.unseen for judge in chosen),
            "split": split,
            "classes": list(classes.names),
            "images": [{"image": names[i], "score": round(per_image[i], 4)} for i in np.argsort(-np.array(per_image))],
            "near_duplicates": collection.near_duplicates(
                names, first.prints, first.masks, ignored_from=len(classes.classes)
            ),
            "unusual_images": collection.unusual_images(names, first.looks),
            "confused_classes": collection.confused_classes(first.habits, classes.names),
            "suspects": entries,
        }
        write_json(folder / FILE, content)
        _write_page(folder, content, listed, first.items, suspects)
        kept = {suspect.view for suspect in suspects}
        for path in (folder / "views").iterdir():
            if f"views/{path.name}" not in kept:
                path.unlink()
    return content


def first_look(chosen: Sequence[Judge], folder: Path, device: torch.device, *, trust_code: bool = False) -> First:
    """Ask the models about all images, keep their views in a folder, and add up what they usually say."""
    items: list[Item] = []
    classes = len(chosen[0].dataset.space.classes)
    habits, strengths, sketches, prints, masks, looks = Habits(classes), Strengths(), [], [], [], []
    with progress(sum(len(judge.dataset) for judge in chosen), "asking the models", "image") as bar:
        for judge in chosen:
            for place, target, view in views(judge, device, trust_code=trust_code):
                view.save(folder / view_name(len(items)))
                item = Item(judge.dataset, place, judge.normalisation)
                photo = item.photo()
                items.append(item)
                habits.add(target, view)
                strengths.add(target, view, classes)
                sketches.append(sketch(target, view, classes))
                prints.append(collection.fingerprint(photo))
                masks.append(tiny(target))
                looks.append(collection.look(photo, view.predicted, classes))
                bar.update()
    return First(items, habits, strengths, sketches, np.stack(prints), np.stack(masks), np.stack(looks))


def rank(first: First, folder: Path, most: int) -> tuple[list[tuple[int, Region]], list[float]]:
    """The worst regions of all images with the place of their image, best first; and the score of each image.

    An image with a fault of its whole mask has a score above 1, as no other is expected to.
    """
    known = Knowledge(first.strengths, first.habits.thresholds())
    names = [item.name for item in first.items]
    best: list[tuple[float, int, int, Region]] = []
    per_image: list[float] = []
    with progress(len(first.items), "looking for faults", "image") as bar:
        for i, item in enumerate(first.items):
            view, target = View.load(folder / view_name(i)), item.target()
            whole = whole_image_fault(target, view, first.habits.classes, names, first.sketches, i)
            found = [whole] if whole else regions(target, view, known, most=PER_IMAGE)
            per_image.append(1 + whole.score if whole else image_score([region.score for region in found]))
            for n, region in enumerate(found):
                entry = (region.score, -i, -n, region)
                if len(best) < most:
                    heapq.heappush(best, entry)
                elif entry[:3] > best[0][:3]:
                    heapq.heapreplace(best, entry)
            bar.update()
    best.sort(key=lambda entry: entry[:3], reverse=True)
    return [(-entry[1], entry[3]) for entry in best], per_image


def image_score(scores: Sequence[float]) -> float:
    """How suspicious an image is: the root of the sum of the squares of its regions' scores."""
    return float(np.sqrt(np.square(scores).sum())) if len(scores) else 0.0


def _with_whole_root(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings, to be understood from any folder."""
    return {**plain, "data": {**plain["data"], "root": str(Path(plain["data"]["root"]).absolute())}}


def view_name(place: int) -> str:
    return f"{place:06d}.png"


def _suspect(number: int, item: Item, place: int, region: Region, root: Path) -> Suspect:
    names, mask = item.dataset.space.names, item.mask()
    within = mask is not None and mask.is_relative_to(root)
    return Suspect(
        id=number,
        image=item.name,
        view=f"views/{view_name(place)}",
        mask=mask.relative_to(root).as_posix() if within and mask else None,
        mask_sha256=sha256_of(mask) if within and mask else None,
        box=region.box,
        area=region.area,
        label=None if region.label is None else names[region.label],
        said=None if region.said is None else names[region.said],
        sure=round(region.sure, 4),
        score=round(region.score, 4),
        kind=region.kind,
        detail=region.detail,
        runs=runs_of(region.inside),
    )


def _write_page(
    folder: Path, content: dict[str, Any], listed: Sequence[tuple[int, Region]], items: Sequence[Item],
    suspects: Sequence[Suspect],
) -> None:  # fmt: skip
    """Cut the pictures image by image, each read once."""
    cuts: dict[int, dict[str, str]] = {}
    by_image: dict[int, list[int]] = {}
    for number, (i, _) in enumerate(listed):
        by_image.setdefault(i, []).append(number)
    with progress(len(by_image), "cutting pictures", "image") as bar:
        for i, numbers in by_image.items():
            item, view = items[i], View.load(folder / "views" / view_name(i))
            cutter = Cutter(item.photo(), item.target(), view.predicted, item.dataset.space)
            for number in numbers:
                cuts[number] = cutter.cut(listed[number][1])
            bar.update()
    write_page(folder / "doctor.html", content, suspects, [cuts[n] for n in range(len(listed))], items[0].dataset.space)
