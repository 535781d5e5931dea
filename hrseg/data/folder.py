"""A user's folder: images/, masks/ and a classes.yaml."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from hrseg.data import folder_advice as advice
from hrseg.data.classes_file import ClassEntry, read_classes_file
from hrseg.data.compact_strings import compact_names, compact_paths
from hrseg.data.images import IMAGE_ENDINGS, MASK_ENDINGS, list_files
from hrseg.data.mask_values import MaskKind, MaskValues
from hrseg.data.pairs import Pairs, distinct_colors, masks_without_image
from hrseg.data.splits import Listed, look_alike, read_split_list, split_by_share, unlike
from hrseg.errors import DataError
from hrseg.files import name_as_text
from hrseg.task import IGNORE_INDEX, LabelSpace, SegmentationClass, Task

LAYOUT = """\
images/ and masks/ with files of the same names and classes.yaml beside them; a split is a folder of both \
(images/train, masks/train), a list of names (train.txt), or a share of all (data.val_share: 0.2)."""
ALL = "all"  # the split of all images, unless there is a list or a folder of this name
LOSSY_ENDINGS = (".jpg", ".jpeg")


class Folder(Pairs):
    """A user's images and masks, matched by name.

    split: the name of a folder below images/ and masks/, or of a list file ROOT/<split>.txt, or with val_share "train"
    or "val"; "all" is every image. task: multiclass; binary, one foreground class; multilabel, one folder of masks per
    class. classes: the classes file, by default ROOT/classes.yaml. val_share: this share of all images is "val", those
    with the smallest hashes of their names, so that an image hardly ever changes its side when others are added.
    masks: what the pixels of a mask are; auto: colours in RGB files, ids in all others; threshold: shades between the
    ids of two classes, of which the nearer one counts. mask_suffix: what a mask's name adds to the image's, for example
    "_mask". missing_mask: an image without a mask is an error, or background everywhere.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        task: Task | Literal["multiclass", "binary", "multilabel"] = Task.MULTICLASS,
        classes: str | Path | None = None,
        val_share: float | None = None,
        masks: MaskKind = "auto",
        mask_suffix: str = "",
        missing_mask: Literal["error", "background"] = "error",
    ):
        self.root, self.split, self.task = Path(root), split, Task(task)
        self.mask_kind, self.mask_suffix, self.missing_mask = masks, mask_suffix, missing_mask
        if masks not in ("auto", "ids", "colors", "threshold"):
            raise DataError("data.masks", f"'{masks}' is not a kind of mask.", "Use auto, ids, colors or threshold.")
        if missing_mask not in ("error", "background"):
            raise DataError("data.missing_mask", f"is '{missing_mask}'.", "Use error or background.")
        if val_share is not None and not 0 < val_share < 1:
            raise DataError("data.val_share", f"{val_share} is not a share between 0 and 1.", "For example 0.2.")
        if not (self.root / "images").is_dir():
            hint = advice.for_missing_folder(self.root, "images")
            raise DataError(self.root / "images", "no such folder.", hint or f"data.root is the folder with {LAYOUT}")
        self._read_classes(Path(classes) if classes is not None else self.root / "classes.yaml")
        self._find_masks(self._find_images(val_share))
        self.in_channels = self.common_kind().channels

    # Classes

    def _read_classes(self, path: Path) -> None:
        if not path.exists():
            what, way_out = advice.for_missing_classes(path, self.root / "masks", self.task)
            raise DataError(path, what, way_out)
        self.classes_path, file = path, read_classes_file(path)
        entries = file.classes
        if self.task is Task.BINARY and len(entries) == 1:
            entries = (ClassEntry("background", (0,), (0, 0, 0)), entries[0])
            if not entries[1].values:
                entries = (entries[0], entries[1]._replace(values=(1,)))
        if self.task is Task.BINARY and len(entries) != 2:
            what = f"has {len(entries)} classes; a binary task has one, the foreground, or background and foreground."
            raise DataError(path, what, "Set data.task: multiclass for more.")
        if self.task is Task.MULTILABEL and any(set(e.name) & set("/\\:") or e.name.startswith(".") for e in entries):
            raise DataError(path, "has a class whose name is not a folder name: masks/<class>/ holds its masks.")
        shown = [e.color or c for e, c in zip(entries, distinct_colors(len(entries)), strict=True)]
        ignore_index = IGNORE_INDEX if len(entries) <= IGNORE_INDEX else 65535
        ids = [None if self.task is Task.MULTILABEL else (e.values or (i,))[0] for i, e in enumerate(entries)]
        space = (SegmentationClass(e.name, c, id=i) for e, c, i in zip(entries, shown, ids, strict=True))
        self.space = LabelSpace(tuple(space), self.task, ignore_index)
        self.mask_values = MaskValues(file._replace(classes=entries), path, self.space, self.mask_kind)
        self.table = self.mask_values.table
        self._absent_index = self._index_without_mask() if self.missing_mask == "background" else 0

    def _index_without_mask(self) -> int:
        """The class of every pixel of an image without a mask."""
        names = [name.lower() for name in self.space.names]
        if self.task is Task.MULTICLASS and "background" not in names:
            what = f"{self.classes_path} has no class named background, which images without a mask would show."
            raise DataError("data.missing_mask", what, "Name it, or set data.missing_mask=error.")
        return names.index("background") if self.task is Task.MULTICLASS else 0

    # Images and masks

    def _find_images(self, val_share: float | None) -> Container[str]:
        """Sets `names` and `images`; returns the names of all images in their folder, other splits included."""
        images, list_file = self.root / "images", self.root / f"{_checked_split(self.split)}.txt"
        self.subfolder = Path()
        self._listed = Listed([], {})
        unread: list[str] = []
        is_list, is_folder = list_file.is_file(), (images / self.split).is_dir()
        if self.split == ALL and not is_list and not is_folder:
            found = list_files(images, IMAGE_ENDINGS, unread=unread)
            chosen = list(found)
        elif val_share is not None and self.split != ALL:
            if self.split not in ("train", "val"):
                raise DataError("data.val_share", f"makes the splits train and val, not '{self.split}'.")
            if (images / "train").is_dir() and (other := advice.validation_split(self.root)):
                what = f"{images} already has the folders train and {other}."
                setting = "" if other == "val" else f" data.val_split={other}"
                raise DataError("data.val_share", what, f"Set data.val_share=null{setting}")
            found = list_files(images, IMAGE_ENDINGS, unread=unread)
            chosen = _share(found, val_share, self.split)
        elif is_list:
            found = list_files(images, IMAGE_ENDINGS, unread=unread)
            self._listed = read_split_list(list_file, found)
            chosen = self._listed.names
        elif is_folder:
            self.subfolder = Path(self.split)
            found = list_files(images / self.split, IMAGE_ENDINGS, unread=unread)
            chosen = list(found)
        else:
            what = f"has no split '{self.split}': neither {images / self.split}/ nor {list_file} nor data.val_share."
            hint = advice.for_missing_split(self.root, self.split)
            raise DataError(self.root, what, hint or f"Expected: {LAYOUT}")
        if not chosen:
            what = f"split '{self.split}' is empty: {len(found)} images in {images / self.subfolder}."
            raise DataError(self.root, what, f"Images end in {', '.join(IMAGE_ENDINGS)}. Expected: {LAYOUT}")
        self.names, self.images = compact_names(chosen), compact_paths(found[name] for name in chosen)
        self._strays = [f"{path}: is in a format that is not read. Save it as PNG, JPEG or TIFF." for path in unread]
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
        self.mask_paths: Sequence[Path] | None = None  # of all images, for each one per folder; Path(): none
        self.targets = None
        if len(missing) == len(folders) and self.split == "test":
            return
        if missing:
            hint = None if (self.root / "masks").is_dir() else advice.for_missing_folder(self.root, "masks")
            raise DataError(missing[0], "no such folder.", hint or f"Expected: {LAYOUT}")
        found = [self._masks_in(folder, images) for folder in folders]
        ending = f"{self.mask_suffix}.png"  # of the mask that is expected where none is found
        places = list(zip(found, map(str, folders), strict=True))
        absent = self.missing_mask == "background"
        self.mask_paths = compact_paths(
            masks.get(name) or ("" if absent else f"{folder}/{name}{ending}")
            for name in self.names
            for masks, folder in places
        )
        if self.task is not Task.MULTILABEL:
            self.targets = self.mask_paths

    def _masks_in(self, folder: Path, images: Container[str]) -> dict[str, str]:
        """The mask of each image that has one in the folder, by its name."""
        unread: list[str] = []
        endings = (*MASK_ENDINGS, *LOSSY_ENDINGS) if self.mask_kind == "threshold" else MASK_ENDINGS
        masks = list_files(folder, endings, suffix=self.mask_suffix, unread=unread)
        wanted = {*self.names} - masks.keys()
        for path in unread:  # a mask in another format is told as such, when it is read, and not as missing
            name = name_as_text(Path(path).relative_to(folder).with_suffix("").as_posix())
            name = name.removesuffix(self.mask_suffix)
            if name in wanted:
                masks[name] = path
            else:
                self._strays.append(f"{path}: is in a format that is not read for masks. Save it as PNG.")
        strays = {name: path for name, path in masks.items() if name not in images}
        if self._listed.masks:
            listed = self._listed_masks(folder, endings, images)
            masks |= listed
            strays = {name: path for name, path in strays.items() if path not in listed.values()}
        missing = [name for name in self.names if name not in masks]
        self._strays += masks_without_image(strays.values())
        self._strays += self._advice_on_names(folder, missing, masks, strays, endings)
        return masks

    def _advice_on_names(
        self,
        folder: Path,
        missing: list[str],
        masks: Mapping[str, str],
        strays: Mapping[str, str],
        endings: Sequence[str],
    ) -> list[str]:
        """What would find the masks of the images that have none: another suffix, or a look at the letters."""
        if not missing:
            return []
        everything = list_files(folder, endings) if self.mask_suffix else strays
        suffix = advice.common_suffix(missing, everything)
        if suffix is not None:
            example = Path(everything[missing[0] + suffix]).name
            fits = f"the masks of {len(missing)} images are named NAME{suffix}, such as {example}"
            return [f"data.mask_suffix: {fits}. Set data.mask_suffix={suffix}"]
        twins = ((name, look_alike(name, strays)) for name in missing)
        alike = next(((name, twin) for name, twin in twins if twin), None) if strays else None
        if alike is None:
            return []
        image, mask = unlike(*alike), unlike(*reversed(alike))
        return [f"{folder}: the image '{image}' and the mask '{mask}' look alike. Give them one name."]

    def _listed_masks(self, folder: Path, endings: Sequence[str], images: Container[str]) -> dict[str, str]:
        """The masks that the list of the split names in its second column."""
        list_file = self.root / f"{self.split}.txt"
        if self.task is Task.MULTILABEL:
            raise DataError(list_file, "names masks, of which multilabel has one per class.", "List images alone.")
        there = list_files(folder, endings)
        by_file = {f"{name}{Path(path).suffix}": name for name, path in there.items()}
        chosen: dict[str, str] = {}
        for image, text in self._listed.masks.items():
            parts = PurePosixPath(name_as_text(text)).parts
            tails = ["/".join(parts[start:]) for start in range(len(parts))]
            name = next((by_file.get(tail, tail) for tail in tails if tail in by_file or tail in there), None)
            if name is None:
                raise DataError(list_file, f"there is no mask '{text}' of the image {image} below {folder}.")
            if name != image and name in images:
                what = f"gives the image {image} the mask '{text}', which has the name of another image."
                raise DataError(list_file, what, "Write one image a line.")
            chosen[image] = there[name]
        return chosen

    def _masks_of(self, i: int) -> list[Path]:
        assert self.mask_paths is not None
        folders = len(self.mask_paths) // len(self.images)
        return [self.mask_paths[place] for place in range(i * folders, (i + 1) * folders)]

    def files(self, i: int) -> tuple[Path, Path | list[Path] | None]:
        if self.mask_paths is None:
            return self.images[i], None
        masks = [path for path in self._masks_of(i) if path != Path()]
        several = self.task is Task.MULTILABEL or not masks
        return self.images[i], masks if several else masks[0]

    def has_targets(self) -> bool:
        return self.mask_paths is not None

    def all_masks(self) -> Sequence[Path]:
        return [] if self.mask_paths is None or self.missing_mask == "background" else self.mask_paths

    def meaning(self) -> dict[str, Any]:
        names = self.space.names if self.task is Task.MULTILABEL else None
        absent = {"missing_mask": self._absent_index} if self.missing_mask == "background" else {}
        return {**super().meaning(), **self.mask_values.plain(), "names": names, **absent}

    def strays(self) -> list[str]:
        return self._strays

    def doubt(self, pixels: np.ndarray) -> str | None:
        if self.task is Task.MULTILABEL or np.count_nonzero(pixels) != 1 or len(self.classes) == 1:
            return None
        # The usual reason: masks of 0 and 255 in which 255 means yes.
        assert self.table is not None
        only = self.space.names[int(pixels.argmax())]
        ids = ", ".join(
            f"{name}: {', '.join(map(str, values))}"
            for name, values in zip(self.space.names, self.mask_values.values, strict=True)
        )
        ignored = "".join(f", ignored: {value}" for value in self.mask_values.ignored_values)
        what = f"the masks of split '{self.split}' hold the class {only} alone, going by the values {ids}{ignored}."
        return f"{self.classes_path}: {what} Give each class the id that its pixels have, for example id: 255."

    # From masks to targets

    def read_target(self, i: int) -> np.ndarray | None:
        """Class indices [H, W]; for multilabel {0, 1, ignore} [L, H, W]: 1 for all values but 0 and the ignored one."""
        if self.mask_paths is None:
            return None
        paths = self._masks_of(i)
        read = self.mask_values.read_label if self.task is Task.MULTILABEL else self.mask_values.read
        planes = [self._without_mask(i) if path == Path() else read(path) for path in paths]
        if self.task is not Task.MULTILABEL:
            return planes[0]
        for plane, path in zip(planes, paths, strict=True):
            if plane.shape != planes[0].shape:
                raise DataError(path, f"is {plane.shape[0]}x{plane.shape[1]}, other labels of this image are not.")
        return np.stack(planes)

    def _without_mask(self, i: int) -> np.ndarray:
        return np.full(self.image_size(i), self._absent_index, self.mask_values.index_type)

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        return self.mask_values.to_indices(mask, path)


def _share(names: Iterable[str], share: float, split: str) -> list[str]:
    """The names of the split that a share makes, in order."""
    names = list(names)
    try:
        val = split_by_share(names, share)
    except ValueError:
        what = f"{len(names)} image{'' if len(names) == 1 else 's'} cannot be divided into train and val."
        way_out = (
            "Cut a large image into tiles, put each place or strip of tiles into one split, and save them as images."
        )
        raise DataError("data.val_share", what, way_out if names else f"Expected: {LAYOUT}") from None
    return [name for name in names if (name in val) == (split == "val")]


def _checked_split(split: str) -> str:
    """The name of a split, which becomes part of a path. Raises DataError if it may not."""
    if not split or split.startswith(".") or set(split) & set("/\\:"):
        raise DataError("data", f"'{split}' is not the name of a split.", "It is a folder of images/ or a list file.")
    return split
