import multiprocessing
import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hrseg.build import train_transform
from hrseg.commands.cache import main
from hrseg.config import AugmentConfig
from hrseg.data import cache, folder
from hrseg.data.dataset import Dataset
from hrseg.data.loader import TrainSet, eval_loader, train_loader
from hrseg.errors import ConfigError, DataError
from hrseg.task import LabelSpace, Sample, SegmentationClass, Task

KINDS = ("strips", "raw")
SIZES = ((130, 70), (64, 90), (63, 64), (200, 33))  # below, at and above the height of a strip


@pytest.fixture
def root(tmp_path):
    """Images of several sizes with masks of three classes."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name / "train").mkdir(parents=True)
    (tmp_path / "data" / "classes.yaml").write_text("classes: [sky, road, tree]")
    for number, size in enumerate(SIZES):
        save(tmp_path / "data" / "images" / "train" / f"{number}.png", rng.integers(0, 256, (*size, 3), np.uint8))
        save(tmp_path / "data" / "masks" / "train" / f"{number}.png", rng.integers(0, 3, size, np.uint8))
    return tmp_path / "data"


def save(path, array):
    Image.fromarray(array).save(path)


def open_cache(root, kind="raw", **options):
    dataset = folder.Folder(root, "train")
    return dataset, cache.cached_dataset(dataset, kind, root / ".hrseg_cache", root, progress=False, **options)


class Made(Dataset):
    """A data set in memory that has its files."""

    space = LabelSpace((SegmentationClass("a", (0, 0, 0)),) * 2)

    def __init__(self, samples, path):
        self.samples, self.path, self.names = samples, path, [sample.name for sample in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i]

    def files(self, i):
        return self.path / self.names[i], None

    def meaning(self):
        return {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_sample_is_bit_for_bit_what_the_files_hold(root, kind):
    dataset, cached = open_cache(root, kind)
    assert len(cached) == len(SIZES) and cached.names == dataset.names and cached.space is dataset.space
    for i in range(len(dataset)):
        for found, expected in zip(cached[i], dataset[i], strict=True):
            assert np.array_equal(found, expected) and getattr(found, "dtype", 0) == getattr(expected, "dtype", 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_window_of_any_image_and_mask_is_that_of_the_array(tmp_path, kind, dtype, channels):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, (150, 40, channels * np.dtype(dtype).itemsize), np.uint8)  # NaN and infinity too
    target = rng.integers(0, 2, (2, 150, 40), np.uint8)
    (tmp_path / "a").write_bytes(b"source")
    made = Made([Sample(bits.view(dtype), target, "a")], tmp_path)
    sample = cache.cached_dataset(made, kind, tmp_path / "cache", tmp_path, progress=False).open_sample(0)
    for _ in range(30):
        (top, bottom), (left, right) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in (150, 40))
        window = (slice(top, bottom), slice(left, right))
        image = np.ascontiguousarray(sample.image[window])
        assert image.dtype == dtype and np.array_equal(image.view(np.uint8), bits[window])
        assert np.array_equal(sample.target[..., *window], target[..., *window])


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_see_the_same_with_and_without_a_cache(root, kind):
    dataset, cached = open_cache(root, kind)
    transform = train_transform(AugmentConfig(scale=(0.5, 2.0), crop=(48, 32), max_class_share=0.5), dataset.space)
    for key in ((epoch, i) for epoch in range(4) for i in range(len(dataset))):
        plain, quick = (TrainSet(each, transform)[key] for each in (dataset, cached))
        assert (plain.image == quick.image).all() and (plain.target == quick.target).all()
        assert plain[2:] == quick[2:]
    for plain, quick in zip(eval_loader(dataset), eval_loader(cached), strict=True):
        assert (plain.image == quick.image).all() and (plain.target == quick.target).all()


def test_workers_read_the_cache_and_it_can_be_sent_to_them(root):
    dataset, cached = open_cache(root, "strips")
    transform = train_transform(AugmentConfig(crop=(32, 32)), dataset.space)
    batches = [list(train_loader(cached, transform, batch_size=2, steps=3, workers=workers)) for workers in (0, 1)]
    assert all((one.image == other.image).all() for one, other in zip(*batches, strict=True))
    again = pickle.loads(pickle.dumps(cached))
    assert (again[0].image == cached[0].image).all()


def test_a_crop_reads_only_its_strips(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    made = Made([Sample(np.zeros((256, 64, 3), np.uint8), None, "a")], tmp_path)
    image = cache.cached_dataset(made, "strips", tmp_path / "cache", tmp_path, progress=False).open_sample(0).image
    start, end = image.starts[1:3]
    content = bytearray(image.path.read_bytes())
    content[:start], content[end : image.starts[-1]] = bytes(start), bytes(image.starts[-1] - end)
    image.path.write_bytes(content)  # all but the second strip is gone
    assert image[64:128, 0:64].shape == (64, 64, 3)
    with pytest.raises(Exception):  # noqa: B017 - whatever the codec says
        image[63:128, 0:64]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_of_other_content_is_refused_and_renewed_on_demand(root, kind):
    open_cache(root, kind)
    image = root / "images" / "train" / "0.png"
    save(image, np.zeros((*SIZES[0], 3), np.uint8))
    with pytest.raises(DataError, match=r"made from other files than the present ones for 1 of 4.*0\.png.*build"):
        open_cache(root, kind)
    assert not open_cache(root, kind, renew=True)[1][0].image.any()
    save(root / "masks" / "train" / "1.png", np.zeros(SIZES[1], np.uint8))
    with pytest.raises(DataError, match=r"1 of 4 samples, such as .*1\.png"):
        open_cache(root, kind)


def test_a_file_of_the_same_content_is_no_other_file_wherever_and_whenever_it_was_written(root, tmp_path):
    open_cache(root)
    os.utime(root / "images" / "train" / "0.png", (0, 0))
    moved = shutil.copytree(root, tmp_path / "moved")  # with new times
    written = [path.stat().st_mtime_ns for path in moved.rglob("*.raw")]
    open_cache(moved)
    assert len(written) == len(SIZES) and written == [path.stat().st_mtime_ns for path in moved.rglob("*.raw")]


def test_other_bytes_of_the_same_length_are_other_content(root):
    open_cache(root)
    image = root / "images" / "train" / "1.png"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    with pytest.raises(DataError, match="made from other files"):
        open_cache(root)


def test_other_classes_do_not_read_each_others_cache(root):
    open_cache(root)
    (root / "classes.yaml").write_text("classes: [{name: sky, id: 1}, {name: road, id: 0}, {name: tree, id: 2}]")
    dataset, cached = open_cache(root)
    assert (cached[0].target == dataset[0].target).all() and len(list(root.rglob("*.raw"))) == 2 * len(SIZES)


def test_a_file_that_was_cut_short_is_made_again(root):
    _, cached = open_cache(root)
    with cached.paths[0].open("r+b") as file:
        file.truncate(3000)
    assert (open_cache(root)[1][0].image == cached.whole[0].image).all()


def _open(root, kind):
    open_cache(root, kind, workers=2)


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_may_build_at_once(root, kind):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_open, args=(root, kind)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    files = [path for path in root.rglob("*") if path.suffix == f".{kind}"]
    assert len(files) == len(SIZES) and not [path for path in files if path.name.startswith(".")]
    assert (open_cache(root, kind)[1][0].image == folder.Folder(root, "train")[0].image).all()


def test_a_sample_that_cannot_be_read_leaves_nothing_half_written(root):
    (root / "images" / "train" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"2\.png"):
        open_cache(root)
    shutil.copy(root / "images" / "train" / "1.png", root / "images" / "train" / "2.png")
    shutil.copy(root / "masks" / "train" / "1.png", root / "masks" / "train" / "2.png")
    assert len(open_cache(root)[1]) == len(SIZES)


def test_a_size_that_does_not_fit_on_the_disk_is_told_before(root, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(cache, "SIZE_SAMPLES", 1)
    with pytest.raises(DataError, match=r"GB are free\. Set data\.cache_dir"):
        open_cache(root)


def test_a_data_set_without_files_cannot_be_cached(tmp_path):
    class Samples(Dataset):
        space, names = Made.space, ("one",)

    with pytest.raises(ConfigError, match=r"Samples cannot be cached: it has no files\(i\) and meaning\(\)"):
        cache.cached_dataset(Samples(), "raw", tmp_path, tmp_path)


def test_multilabel_masks_are_cached_layer_by_layer(root):
    for name in ("sky", "road", "tree"):
        shutil.copytree(root / "masks" / "train", root / "masks" / name / "train")
    dataset = folder.Folder(root, "train", task=Task.MULTILABEL)
    cached = cache.cached_dataset(dataset, "strips", root / "cache", root, progress=False)
    assert (cached[3].target == dataset[3].target).all() and cached[3].target.shape == (3, *SIZES[3])
    save(root / "masks" / "road" / "train" / "3.png", np.zeros(SIZES[3], np.uint8))
    with pytest.raises(DataError, match="made from other files"):
        cache.cached_dataset(dataset, "strips", root / "cache", root, progress=False)


def test_the_command_builds_renews_and_deletes(root, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{root: {root}, val_split: train, workers: 1}}")
    assert main(["build", str(config)]) == 2 and "data.cache: is none" in capsys.readouterr().err
    assert main(["build", str(config), "data.cache=raw"]) == 0
    assert f"train: {len(SIZES)} samples in {root}" in capsys.readouterr().out
    (root / ".hrseg_cache" / "mine.txt").write_text("not the cache's")
    assert main(["clear", str(config)]) == 0 and not list(root.rglob("*.raw"))
    assert (root / ".hrseg_cache" / "mine.txt").exists()
    (root / ".hrseg_cache" / "mine.txt").unlink()
    assert main(["clear", str(config)]) == 0 and not (root / ".hrseg_cache").exists()
    assert main(["clear", str(config)]) == 0


def test_a_cache_that_cannot_be_finished_leaves_nothing_where_none_was(root):
    (root / "images" / "train" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png"):
        open_cache(root)
    assert not (root / ".hrseg_cache").exists()
    (root / "images" / "train" / "1.png").unlink()
    (root / "masks" / "train" / "1.png").unlink()
    open_cache(root)
    save(root / "masks" / "train" / "9.png", np.zeros((8, 8), np.uint8))
    (root / "images" / "train" / "9.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"9\.png"):
        open_cache(root)
    assert len([*(root / ".hrseg_cache").rglob("*.raw")]) == len(SIZES) - 1  # what was there stays
