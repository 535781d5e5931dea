"""A user's folder: images/, masks/ and a classes.yaml."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hrseg.config import read_yaml
from hrseg.data.compact_strings import compact_names, compact_paths
from hrseg.data.images import (
    IMAGE_ENDINGS,
    MASK_ENDINGS,
    list_files,
    read_mask,
    read_palette,
)
from hrseg.data.pairs import Pairs, ValueTable, distinct_colors, masks_without_image
from hrseg.errors import DataError
from hrseg.task import IGNORE_INDEX, LabelSpace, SegmentationClass, Task

LAYOUT = """\
images/ and masks/ with files of the same names and classes.yaml beside them; a split is a folder of both \
(images/train, masks/train), a list of names (train.txt), or a share of all (data.val_share: 0.2)."""

Value = Annotated[int, Field(ge=0, le=65535)]
Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]


class ClassEntry(BaseModel):
    """One entry of classes.yaml: a name, and the value or colour in masks; the colour is for pictures too."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(min_length=1)]
    id: Value | None = None
    color: Color | None = None


class ClassesFile(BaseModel):
    """The content of classes.yaml. ignore: the value or the colour of pixels that are ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: Annotated[list[ClassEntry], Field(min_length=1)]
    ignore: Value | Color | None = None

    @field_validator("classes", mode="before")
    @classmethod
    def _names_alone(cls, entries: Any) -> Any:
        return [{"name": e} if isinstance(e, str) else e for e in entries] if isinstance(entries, list) else entries


class Folder(Pairs):
    """A user's images and masks, matched by name.

    split: the name of a folder below images/ and masks/, or of a list file ROOT/<split>.txt, or with val_share "train"
    or "val". task: multiclass; binary, one foreground class; multilabel, one folder of masks per class.
    classes: the classes file, by default ROOT/classes.yaml. val_share: this share of all images is "val", chosen by a
    hash of the name, so that an image keeps its split when others are added. masks: what the pixels of a mask are;
    auto: colours in RGB files, ids in all others. mask_suffix: what a mask's name adds to the image's, for example
    "_mask".
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        task: Task | Literal["multiclass", "binary", "multilabel"] = Task.MULTICLASS,
        classes: str | Path | None = None,
        val_share: float | None = None,
        masks: Literal["auto", "ids", "colors"] = "auto",
        mask_suffix: str = "",
    ):
        self.root, self.split, self.task = Path(root), split, Task(task)
        self.mask_kind, self.mask_suffix = masks, mask_suffix
        if masks not in ("auto", "ids", "colors"):
            raise DataError("data.masks", f"'{masks}' is not a kind of mask.", "Use auto, ids or colors.")
        if val_share is not None and not 0 < val_share < 1:
            raise DataError("data.val_share", f"{val_share} is not a share between 0 and 1.", "For example 0.2.")
        if not (self.root / "images").is_dir():
            raise DataError(self.root / "images", "no such folder.", f"data.root is the folder with {LAYOUT}")
        self._read_classes(Path(classes) if classes is not None else self.root / "classes.yaml")
        self._find_masks(self._find_images(val_share))
        self.in_channels = self.common_kind().channels

    # Classes

    def _read_classes(self, path: Path) -> None:
        self.classes_path = path
        file = _parse_classes(path)
        entries, ignore = file.classes, file.ignore
        if self.task is Task.BINARY and len(entries) == 1:
            entries = [ClassEntry(name="background", id=0, color=(0, 0, 0)), entries[0]]
        if self.task is Task.BINARY and len(entries) != 2:
            what = f"has {len(entries)} classes; a binary task has one, the foreground, or background and foreground."
            raise DataError(path, what, "Set data.task: multiclass for more.")
        ids = [i if e.id is None else e.id for i, e in enumerate(entries)]
        _refuse_duplicates(path, "name", [e.name for e in entries])
        _refuse_duplicates(path, "color", [e.color for e in entries if e.color is not None])
        shown = [e.color or c for e, c in zip(entries, distinct_colors(len(entries)), strict=True)]
        ignore_index = IGNORE_INDEX if len(entries) <= IGNORE_INDEX else 65535
        space = (SegmentationClass(e.name, c) for e, c in zip(entries, shown, strict=True))
        self.space = LabelSpace(tuple(space), self.task, ignore_index)

        self.index_type = np.uint8 if ignore_index == IGNORE_INDEX else np.uint16
        self.colors = [e.color for e in entries]
        self.ignored_value, self.ignored_color = None, None
        if isinstance(ignore, tuple):
            self.ignored_color = ignore
        elif ignore is not None:
            self.ignored_value = ignore
        if self.task is Task.MULTILABEL:
            if any(set(e.name) & set("/\\:") or e.name.startswith(".") for e in entries):
                raise DataError(path, "has a class whose name is not a folder name: masks/<class>/ holds its masks.")
            return
        _refuse_duplicates(path, "id", ids)
        if self.ignored_value is None and ignore_index not in ids:
            self.ignored_value = ignore_index
        if self.ignored_value in ids or (self.ignored_color is not None and self.ignored_color in self.colors):
            raise DataError(path, f"ignores {ignore}, which is a class too.", "Give the two different values.")
        self.ids = ids
        table = {value: index for index, value in enumerate(ids)}
        if self.ignored_value is not None:
            table[self.ignored_value] = ignore_index
        self.table = ValueTable(table, ignore_index)

    # Images and masks

    def _find_images(self, val_share: float | None) -> Container[str]:
        """Sets `names` and `images`; returns the names of all images in their folder, other splits included."""
        images, list_file = self.root / "images", self.root / f"{_checked_split(self.split)}.txt"
        self.subfolder = Path()
        unread: list[str] = []
        if val_share is not None:
            if self.split not in ("train", "val"):
                raise DataError("data.val_share", f"makes the splits train and val, not '{self.split}'.")
            if (images / "train").is_dir() and (images / "val").is_dir():
                raise DataError("data.val_share", f"{images} already has the folders train and val.", "Set it to null.")
            found = list_files(images, IMAGE_ENDINGS, unread=unread)
            chosen = [n for n in found if (_hash_share(n) < val_share) == (self.split == "val")]
            if found and not chosen:
                what = f"{val_share} of {len(found)} images leaves none for '{self.split}'."
                raise DataError("data.val_share", what, "Write train.txt and val.txt with their names instead.")
        elif list_file.is_file():
            found = list_files(images, IMAGE_ENDINGS, unread=unread)
            chosen = _read_list(list_file, found)
        elif (images / self.split).is_dir():
            self.subfolder = Path(self.split)
            found = list_files(images / self.split, IMAGE_ENDINGS, unread=unread)
            chosen = list(found)
        else:
            what = f"has no split '{self.split}': neither {images / self.split}/ nor {list_file} nor data.val_share."
            raise DataError(self.root, what, f"Expected: {LAYOUT}")
        if not chosen:
            what = f"split '{self.split}' is empty: {len(found)} images in {images / self.subfolder}."
            raise DataError(self.root, what, f"Images end in {', '.join(IMAGE_ENDINGS)}. Expected: {LAYOUT}")
        self.names, self.images = compact_names(chosen), compact_paths(found[name] for name in chosen)
        self._strays = _unread_files(unread, IMAGE_ENDINGS)
        return found

    def _mask_folders(self) -> list[Path]:
        """One folder, or for multilabel one per class."""
        masks = self.root / "masks"
        labels = self.space.names if self.task is Task.MULTILABEL else ("",)
        return [masks / label / self.subfolder for label in labels]

    def _find_masks(self, images: Container[str]) -> None:
        """Sets `mask_paths` and `targets`. images: the names that a mask may have."""
        folders = self._mask_folders()
        missing = [folder for folder in folders if not folder.is_dir()]
        self.mask_paths: Sequence[Path] | None = None  # of all images, for each one per folder
        self.targets = None
        if len(missing) == len(folders) and self.split == "test":
            return
        if missing:
            raise DataError(missing[0], "no such folder.", f"Expected: {LAYOUT}")
        found = []
        for folder in folders:
            unread: list[str] = []
            masks = list_files(folder, MASK_ENDINGS, suffix=self.mask_suffix, unread=unread)
            found.append(masks)
            self._strays += masks_without_image(path for name, path in masks.items() if name not in images)
            self._strays += _unread_files(unread, MASK_ENDINGS)
        ending = f"{self.mask_suffix}.png"  # of the mask that is expected where none is found
        places = list(zip(found, map(str, folders), strict=True))
        self.mask_paths = compact_paths(
            masks.get(name) or f"{folder}/{name}{ending}" for name in self.names for masks, folder in places
        )
        if self.task is not Task.MULTILABEL:
            self.targets = self.mask_paths

    def _masks_of(self, i: int) -> list[Path]:
        assert self.mask_paths is not None
        folders = len(self.mask_paths) // len(self.images)
        return [self.mask_paths[place] for place in range(i * folders, (i + 1) * folders)]

    def files(self, i: int) -> tuple[Path, Path | list[Path] | None]:
        if self.task is Task.MULTILABEL and self.mask_paths is not None:
            return self.images[i], self._masks_of(i)
        return super().files(i)

    def has_targets(self) -> bool:
        return self.mask_paths is not None

    def all_masks(self) -> Sequence[Path]:
        return [] if self.mask_paths is None else self.mask_paths

    def meaning(self) -> dict[str, Any]:
        ignored = {"value": self.ignored_value, "color": self.ignored_color}
        names = self.space.names if self.task is Task.MULTILABEL else None
        return {**super().meaning(), "masks": self.mask_kind, "colors": self.colors, "ignored": ignored, "names": names}

    def strays(self) -> list[str]:
        return self._strays

    def doubt(self, pixels: np.ndarray) -> str | None:
        if self.task is Task.MULTILABEL or np.count_nonzero(pixels) != 1 or len(self.classes) == 1:
            return None
        # The usual reason: masks of 0 and 255 in which 255 means yes.
        only = self.space.names[int(pixels.argmax())]
        ids = ", ".join(f"{name}: {value}" for name, value in zip(self.space.names, self.ids, strict=True))
        ignored = "" if self.ignored_value is None else f", ignored: {self.ignored_value}"
        what = f"the masks of split '{self.split}' hold the class {only} alone, going by the values {ids}{ignored}."
        return f"{self.classes_path}: {what} Give each class the id that its pixels have, for example id: 255."

    # From masks to targets

    def read_target(self, i: int) -> np.ndarray | None:
        """Class indices [H, W]; for multilabel {0, 1, ignore} [L, H, W]: 1 for all values but 0 and the ignored one."""
        if self.mask_paths is None:
            return None
        if self.task is not Task.MULTILABEL:
            path = self.mask_paths[i]
            return self.to_indices(read_mask(path, colors=self.mask_kind == "colors"), path)
        paths = self._masks_of(i)
        planes = [self._read_plane(path) for path in paths]
        for plane, path in zip(planes, paths, strict=True):
            if plane.shape != planes[0].shape:
                raise DataError(path, f"is {plane.shape[0]}x{plane.shape[1]}, other labels of this image are not.")
        return np.stack(planes)

    def _read_plane(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        if mask.ndim == 3:
            raise DataError(path, "is an RGB picture.", "The mask of a label has one channel: 0 is no, else yes.")
        plane = (mask != 0).astype(self.index_type)
        if self.ignored_value is not None:
            plane[mask == self.ignored_value] = self.space.ignore_index
        return plane

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        if mask.ndim == 3 and self.mask_kind != "ids":
            return self._colors_to_indices(mask, path)
        if mask.ndim == 2 and self.mask_kind == "auto" and None not in self.colors:
            self._check_palette(mask, path)
        assert self.table is not None  # multilabel masks do not come here
        return self.table(mask, path, f"Classes are in {self.classes_path}.")

    def _colors_to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        colors = {c: i for i, c in enumerate(self.colors) if c is not None}
        if len(colors) < len(self.colors):
            nameless = self.space.names[self.colors.index(None)]
            what = f"is an RGB picture, but class '{nameless}' has no color in {self.classes_path}."
            raise DataError(path, what, "Give every class its color, or save masks with one channel of ids.")
        if self.ignored_color is not None:
            colors[self.ignored_color] = self.space.ignore_index
        red, green, blue = (mask[:, :, c].astype(np.int32) for c in range(3))
        plus_one = np.take(_color_table(tuple(colors.items())), red << 16 | green << 8 | blue)
        if plus_one.size and not plus_one.all():
            row, column = np.argwhere(plus_one == 0)[0]
            color = [int(v) for v in mask[row, column]]
            what = f"the color {color} at row {row}, column {column} is not a class in {self.classes_path}."
            raise DataError(path, what, "Smoothed edges? Save masks without anti-aliasing, and not as JPEG.")
        return (plus_one - 1).astype(self.index_type)

    def _check_palette(self, mask: np.ndarray, path: Path) -> None:
        """Refuse a palette that has the colours of the classes in another order: its indices are not the ids."""
        palette = read_palette(path)
        if palette is None:
            return
        own: dict[Any, int] = dict(zip(self.colors, self.ids, strict=True))
        used = [int(v) for v in np.unique(mask) if v != self.ignored_value and v < len(palette)]
        by_color = {value: own.get(tuple(int(c) for c in palette[value])) for value in used}
        if None not in by_color.values() and any(value != meant for value, meant in by_color.items()):
            what = "its palette has the colors of the classes, but its indices are not their ids."
            raise DataError(path, what, "Set data.masks: colors to go by color, or ids to go by index.")


def _parse_classes(path: Path) -> ClassesFile:
    plain = read_yaml(path)
    plain = {"classes": plain} if isinstance(plain, list) else plain
    try:
        return ClassesFile.model_validate(plain)
    except ValidationError as error:
        explained = (f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        way_out = "It is a list of {name: road, id: 0, color: [128, 64, 128]}, id and color as far as they are needed."
        raise DataError(path, "; ".join(explained) + ".", way_out) from None


def _unread_files(paths: Iterable[str], endings: tuple[str, ...]) -> list[str]:
    return [f"{path}: is not read, files here end in {', '.join(endings)}." for path in paths]


def _refuse_duplicates(path: Path, what: str, values: list) -> None:
    for value in values:
        if values.count(value) > 1:
            raise DataError(path, f"two classes have the {what} {value}.", "Ids default to the position in the list.")


def _checked_split(split: str) -> str:
    """The name of a split, which becomes part of a path. Raises DataError if it may not."""
    if not split or split.startswith(".") or set(split) & set("/\\:"):
        raise DataError("data", f"'{split}' is not the name of a split.", "It is a folder of images/ or a list file.")
    return split


def _read_list(path: Path, images: dict[str, str]) -> list[str]:
    """The names in a list file, one per line, with or without the image's ending."""
    by_file = {f"{name}{Path(file).suffix}": name for name, file in images.items()}
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise DataError(path, "is not a text file in UTF-8.") from None
    chosen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        where = f"{path}, line {number}"
        if PurePosixPath(line).is_absolute() or PureWindowsPath(line).drive or ".." in PurePosixPath(line).parts:
            raise DataError(where, f"'{line}' leads out of images/.", "Names count from images/.")
        name = line if line in images else by_file.get(line)
        if name is None:
            raise DataError(where, f"there is no image '{line}'.", "A line is a name, as images/ has it.")
        if name in chosen:
            raise DataError(where, f"'{line}' is in line {chosen[name]} too.", "Name each image once.")
        chosen[name] = number
    return list(chosen)


def _hash_share(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


@lru_cache(maxsize=4)
def _color_table(colors: tuple[tuple[tuple[int, int, int], int], ...]) -> np.ndarray:
    """The index, plus one, of each of the 2^24 colours; unknown ones are 0, and their memory is never touched."""
    table = np.zeros(1 << 24, np.int32)
    for (red, green, blue), index in colors:
        table[red << 16 | green << 8 | blue] = index + 1
    return table
