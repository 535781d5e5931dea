"""The contract of data sets: everything that the program asks of one, with defaults; wrappers that keep to it.

A user's class may derive from `Dataset` but does not have to: `space`, `names`, `__len__` and `__getitem__` are enough.
`as_dataset`, called where data sets are built, completes such an object with the defaults. All other code uses the
members of `Dataset` without asking whether they exist.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hrseg.errors import ConfigError, DataError
from hrseg.task import LabelSpace, Sample

if TYPE_CHECKING:
    from hrseg.data.cityscapes_labels import Label
    from hrseg.data.pairs import ValueTable


class Dataset:
    """One split of a data set. `space`, `names`, `__len__` and `__getitem__` have no default.

    space: the classes, the task and the ignore index.
    names: one per sample, unique, without file endings; '/' separates folders.
    in_channels: of every image; None: not known before the images are read.
    definition: how absent classes count in the mean IoU, a key of `hrseg.metrics.DEFINITIONS`.
    boundary_ratio: the width of boundary IoU's band as a share of the image's diagonal.
    prediction_ids: what PNG files of predictions hold: class indices, or "labels", the values of the masks.
    table: the class index of each value of a mask; None: masks are not files of ids.
    label_table, label_ids: the benchmark's labels, and as uint8 [256] the label id of each class index; None unless the
        benchmark, like Cityscapes, counts in ids of its own.
    fully_ignored_is_a_problem: whether the check reports masks in which every pixel is ignored.
    checked_by_file: whether the check may look at `files` instead of reading whole samples. The files are one image
        and the masks that `read_target` reads.
    type_name: of the data set in messages; by default the name of the class.
    """

    space: LabelSpace
    names: Sequence[str]
    in_channels: int | None = None
    definition: str = "cityscapes"
    boundary_ratio: float = 0.02
    prediction_ids: Literal["classes", "labels"] = "classes"
    table: ValueTable | None = None
    label_table: Sequence[Label] | None = None
    label_ids: np.ndarray | None = None
    fully_ignored_is_a_problem: bool = True
    checked_by_file: bool = False
    type_name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type_name = cls.__name__
        for old, new in OLD_NAMES.items():
            if old in vars(cls):
                setattr(cls, new, vars(cls)[old])

    # Samples

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, i: int) -> Sample:
        """The image [H, W, C] and its target, not augmented. Raises DataError for what cannot be used."""
        raise NotImplementedError

    def open_sample(self, i: int) -> Sample:
        """A sample to crop from: slicing its image or its target may read no more than the slice."""
        return self[i]

    def has_targets(self) -> bool:
        """Whether this split has targets. Where only the samples can tell: True."""
        return True

    def read_target(self, i: int) -> np.ndarray | None:
        """The target of a sample alone: class indices [H, W], or {0, 1, ignore} [L, H, W]; None without targets."""
        return self[i].target

    def sample_target(self, i: int) -> np.ndarray | None:
        """The target as `self[i]` has it: ignored also where the image has no data."""
        return self.read_target(i)

    def read_valid_image(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The image of a sample alone; and bool [H, W], where it has data, or None: everywhere."""
        return self[i].image, None

    def image_size(self, i: int) -> tuple[int, int]:
        """(height, width) of an image, which predictions have where there is no target."""
        height, width = self[i].image.shape[:2]
        return height, width

    def image_type(self) -> np.dtype | None:
        """The number type of all images; None: not known before the images are read."""
        return None

    # Groups and names

    def cluster(self, i: int) -> str:
        """What a sample and its neighbours belong to, a city or a sequence, for intervals of scores and for folds."""
        return self.names[i]

    def image_key(self, stem: str) -> str:
        """What identifies an image in the name of any of its files; stem: a file's name without folders and ending."""
        return stem

    # Files, and what they mean

    def files(self, i: int) -> tuple[Path, Path | list[Path] | None] | None:
        """The paths of an image and its mask (a list of masks, None without masks); None: not read from files."""
        return None

    def all_masks(self) -> Sequence[Path]:
        """The masks of all samples, one after the other, equally many per sample; empty without masks."""
        return []

    def instance_path(self, i: int) -> Path | None:
        """The file with the instance ids of an image, for instance-weighted IoU; needs `label_table`."""
        return None

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """The values of a mask, read from `path`, as class indices. Raises DataError for a value without a meaning."""
        what = f"holds values of masks, which {self.type_name} does not explain: it has no to_indices(mask, path)."
        raise DataError(path, what, "Write class indices.")

    def meaning(self) -> dict[str, Any] | None:
        """Plain data that differs whenever the same files give other samples; None: samples cannot be cached."""
        return None

    # The check

    def strays(self) -> list[str]:
        """A sentence for each file that should not be there, such as a mask without an image."""
        return []

    def doubt(self, pixels: np.ndarray) -> str | None:
        """A sentence if the targets of the whole split cannot be right. pixels: int64 [K], its pixels of each class."""
        return None


OLD_NAMES = {"DEFINITION": "definition", "BOUNDARY_RATIO": "boundary_ratio", "PREDICTIONS": "prediction_ids"}
ATTRIBUTES = tuple(Dataset.__annotations__)
METHODS = tuple(name for name, _ in inspect.getmembers(Dataset, inspect.isfunction) if not name.startswith("_"))
REQUIRED = ("space", "names", "__len__", "__getitem__")


def as_dataset(built: Any, where: str = "data.dataset") -> Dataset:
    """An object with at least `space`, `names`, `__len__` and `__getitem__` as a `Dataset`.

    What it has of the contract is used, the rest has its default; attributes under their former names (`OLD_NAMES`) are
    understood. where: the setting in messages. Raises ConfigError where one of the four is missing.
    """
    missing = [name for name in REQUIRED if not hasattr(built, name)]
    if missing:
        what = f"{type(built).__name__} is not a data set: it has no {' and no '.join(missing)}."
        raise ConfigError(where, what, "Every data set has space, names, __len__ and __getitem__.")
    if not isinstance(built, Dataset):
        return _Completed(built)
    for old, new in OLD_NAMES.items():
        if old in vars(built):
            setattr(built, new, vars(built)[old])
    return built


class _Completed(Dataset):
    """An object that is not a `Dataset`, completed with the defaults."""

    def __init__(self, built: Any):
        self.built, self.type_name = built, type(built).__name__
        for name in (*ATTRIBUTES, *METHODS):
            if hasattr(built, name):
                setattr(self, name, getattr(built, name))
        for old, new in OLD_NAMES.items():
            if hasattr(built, old):
                setattr(self, new, getattr(built, old))

    def __len__(self) -> int:
        return len(self.built)

    def __getitem__(self, i: int) -> Sample:
        return self.built[i]


class WrappedDataset(Dataset):
    """All of another data set, member by member. A subclass changes what differs.

    `place` says which sample of the whole a sample is: a subclass that has some samples only overrides it, and what
    counts or lists samples (`names`, `__len__`, `all_masks`).
    """

    def __init__(self, whole: Dataset):
        self.whole = whole
        for name in ATTRIBUTES:
            setattr(self, name, getattr(whole, name))

    def place(self, i: int) -> int:
        """The index of sample i in the whole."""
        return i

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, i: int) -> Sample:
        return self.whole[self.place(i)]

    def open_sample(self, i: int) -> Sample:
        return self.whole.open_sample(self.place(i))

    def has_targets(self) -> bool:
        return self.whole.has_targets()

    def read_target(self, i: int) -> np.ndarray | None:
        return self.whole.read_target(self.place(i))

    def sample_target(self, i: int) -> np.ndarray | None:
        return self.whole.sample_target(self.place(i))

    def read_valid_image(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        return self.whole.read_valid_image(self.place(i))

    def image_size(self, i: int) -> tuple[int, int]:
        return self.whole.image_size(self.place(i))

    def image_type(self) -> np.dtype | None:
        return self.whole.image_type()

    def cluster(self, i: int) -> str:
        return self.whole.cluster(self.place(i))

    def image_key(self, stem: str) -> str:
        return self.whole.image_key(stem)

    def files(self, i: int) -> tuple[Path, Path | list[Path] | None] | None:
        return self.whole.files(self.place(i))

    def all_masks(self) -> Sequence[Path]:
        return self.whole.all_masks()

    def instance_path(self, i: int) -> Path | None:
        return self.whole.instance_path(self.place(i))

    def to_indices(self, mask: np.ndarray, path: Path) -> np.ndarray:
        return self.whole.to_indices(mask, path)

    def meaning(self) -> dict[str, Any] | None:
        return self.whole.meaning()

    def strays(self) -> list[str]:
        return self.whole.strays()

    def doubt(self, pixels: np.ndarray) -> str | None:
        return self.whole.doubt(pixels)
