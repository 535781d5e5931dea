"""The contract of data sets: what has only samples is completed, and a wrapper answers for every member."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from hrseg.data.cache import cached_dataset
from hrseg.data.dataset import ATTRIBUTES, METHODS, Dataset, WrappedDataset, as_dataset
from hrseg.data.folder import Folder
from hrseg.data.folds import Part
from hrseg.data.pairs import Pairs, ValueTable
from hrseg.errors import ConfigError, DataError
from hrseg.task import LabelSpace, Sample, SegmentationClass
from tests.conftest import ROOT

SPACE = LabelSpace((SegmentationClass("a", (1, 2, 3)), SegmentationClass("b", (3, 2, 1))))


class Bare:
    """A user's class with the four members that have no default."""

    def __init__(self, size=4):
        self.space, self.names = SPACE, ["x/0", "x/1", "y/2"]
        self.size = size

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return Sample(np.full((self.size, 6, 3), i, np.uint8), np.full((self.size, 6), i % 2, np.uint8), self.names[i])


class Telling(Dataset):
    """Every member with an answer of its own, which names the sample where there is one."""

    space, names = SPACE, ("s0", "s1", "s2", "s3")
    in_channels, definition, boundary_ratio, prediction_ids = 5, "ade20k", 0.125, "labels"
    table, label_table, label_ids = ValueTable({3: 0, 4: 1}), (), np.arange(256, dtype=np.uint8)
    fully_ignored_is_a_problem, checked_by_file = False, True

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return Sample(np.full((2, 2, 5), i, np.uint8), np.full((2, 2), i, np.uint8), self.names[i])

    def open_sample(self, i):
        return self[i]._replace(name=f"open {i}")

    def has_targets(self):
        return False

    def read_target(self, i):
        return np.full((2, 2), 100 + i)

    def sample_target(self, i):
        return np.full((2, 2), 200 + i)

    def read_valid_image(self, i):
        return np.full((2, 2, 5), 50 + i, np.uint8), np.full((2, 2), i != 1)

    def image_size(self, i):
        return 10 + i, 20 + i

    def image_type(self):
        return np.dtype(np.uint16)

    def cluster(self, i):
        return f"cluster {i}"

    def image_key(self, stem):
        return f"key {stem}"

    def files(self, i):
        return Path(f"{i}.png"), [Path(f"{i}_0.png"), Path(f"{i}_1.png")]

    def all_masks(self):
        return [Path(f"{i}_{label}.png") for i in range(len(self)) for label in range(2)]

    def instance_path(self, i):
        return Path(f"{i}_instances.png")

    def to_indices(self, mask, path):
        return mask + 7

    def meaning(self):
        return {"meaning": 1}

    def strays(self):
        return ["a stray"]

    def doubt(self, pixels):
        return f"doubt {pixels.sum()}"


ARGUMENTS = {"image_key": ("stem",), "to_indices": (np.zeros(2, int), Path("m.png")), "doubt": (np.ones(2, int),)}
OF_THE_PART = {"names": ["s3", "s1"], "all_masks": [Path(f"{i}_{label}.png") for i in (3, 1) for label in range(2)]}


def of_one_sample(name):
    return list(inspect.signature(getattr(Dataset, name)).parameters) == ["self", "i"]


def answer(dataset, name, *arguments):
    found = getattr(dataset, name)(*arguments)
    if isinstance(found, tuple) and isinstance(found[0], np.ndarray):
        return [np.asarray(part).tolist() for part in found]
    return found.tolist() if isinstance(found, np.ndarray) else found


@pytest.mark.parametrize("name", METHODS)
def test_a_part_answers_for_every_method_with_the_right_sample(name):
    whole = Telling()
    default, changed = vars(Dataset)[name], vars(Telling)[name]
    assert default is not changed and name in vars(WrappedDataset)
    part = Part(Part(whole, [1, 2, 3]), [2, 0])
    assert len(part) == 2 and [sample.name for sample in part] == ["s3", "s1"]
    if of_one_sample(name):
        for i, place in enumerate((3, 1)):
            assert answer(part, name, i) == answer(whole, name, place)
            assert answer(part, name, i) != answer(whole, name, 2)
    elif name in OF_THE_PART:
        assert getattr(part, name)() == OF_THE_PART[name]
    else:
        arguments = ARGUMENTS.get(name, ())
        assert answer(part, name, *arguments) == answer(whole, name, *arguments)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_part_has_every_attribute_of_the_whole(name):
    part, own = Part(Telling(), [3, 1]), vars(Telling)[name]
    assert not hasattr(Dataset, name) or own is not getattr(Dataset, name)
    assert getattr(part, name) == OF_THE_PART[name] if name in OF_THE_PART else getattr(part, name) is own


def test_a_cached_data_set_answers_like_the_one_it_holds(shapes, tmp_path):
    whole = Folder(shapes, "train")
    cached = Part(cached_dataset(whole, "raw", tmp_path, shapes, progress=False), [4, 2])
    for name in METHODS:
        if of_one_sample(name):
            assert answer(cached, name, 1) == answer(whole, name, 2)
    assert cached.type_name == "Folder"
    assert cached.table is whole.table and cached.image_type() == np.uint8 and cached.meaning() == whole.meaning()


def test_no_code_asks_whether_a_data_set_has_a_member():
    asks = re.compile(r"(getattr|hasattr)\((self\.)?_?(dataset|data_set|whole|train_set|val_set)\b")
    files = [path for path in (ROOT / "hrseg").rglob("*.py") if path.name != "dataset.py"]
    assert files and [path for path in files if asks.search(path.read_text(encoding="utf-8"))] == []


def test_the_four_members_of_a_users_class_are_enough():
    built = Bare()
    dataset = as_dataset(built)
    assert isinstance(dataset, Dataset) and len(dataset) == 3 and dataset.names is built.names
    for name in ATTRIBUTES:
        default = {"space": SPACE, "names": built.names, "type_name": "Bare"}.get(name, getattr(Dataset, name, None))
        assert getattr(dataset, name) == default
    assert dataset.cluster(1) == "x/1" and dataset.image_size(0) == (4, 6) and dataset.read_target(1).all()
    assert dataset.open_sample(2).name == "y/2" and dataset.image_key("stem") == "stem" and dataset.has_targets()
    assert dataset.files(0) is dataset.meaning() is dataset.instance_path(0) is dataset.doubt(np.ones(2)) is None
    assert list(dataset.all_masks()) == dataset.strays() == [] and dataset.image_type() is None
    with pytest.raises(DataError, match=r"p\.png: .*Bare.*to_indices\(mask, path\)"):
        dataset.to_indices(np.zeros((2, 2), int), Path("p.png"))
    assert as_dataset(dataset) is dataset
    assert pickle.loads(pickle.dumps(dataset)).cluster(1) == "x/1"  # workers that are spawned get it so
    assert pickle.loads(pickle.dumps(Part(dataset, [2])))[0].name == "y/2"


def test_what_a_users_class_has_of_the_contract_is_used():
    class Own(Bare):
        in_channels = 4

        def cluster(self, i):
            return self.names[i].split("/")[0]

    dataset = Part(as_dataset(Own()), [2])
    assert dataset.cluster(0) == "y" and dataset.in_channels == 4 and dataset.type_name == "Own"


def test_former_names_are_understood():
    class Own(Bare):
        DEFINITION, BOUNDARY_RATIO, PREDICTIONS = "ade20k", 0.01, "labels"

    class OfPairs(Pairs):
        DEFINITION, BOUNDARY_RATIO, PREDICTIONS = "ade20k", 0.01, "labels"
        space, names, images, targets = SPACE, (), (), None

    class SetLater(OfPairs):
        def __init__(self):
            self.DEFINITION = "cityscapes"

    for built in (Own(), OfPairs()):
        dataset = as_dataset(built)
        assert (dataset.definition, dataset.boundary_ratio, dataset.prediction_ids) == ("ade20k", 0.01, "labels")
    assert as_dataset(SetLater()).definition == "cityscapes"


def test_what_is_not_a_data_set_is_refused_by_what_it_lacks():
    with pytest.raises(ConfigError, match=r"data\.dataset: list is not a data set: it has no space and no names"):
        as_dataset([])
