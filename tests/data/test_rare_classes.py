"""Crops around rare classes: drawn as often as asked, holding the class, and the same again each time."""

from __future__ import annotations

import os

import numpy as np
import pytest

from hrseg.data.folder import Folder
from hrseg.data.loader import TrainSet
from hrseg.data.rare_classes import PLACES, ClassPlaces, RareClasses, find_class_places
from hrseg.data.transforms import Augmentation, train_transform
from tests.train.test_loop import same_weights, train, weights_of

EPOCHS = 60


@pytest.fixture
def dataset(shapes):
    return Folder(shapes, "train")


def known(*pixels: tuple[int, ...]) -> ClassPlaces:
    shape = (len(pixels), len(pixels[0]), PLACES, 2)
    return ClassPlaces(np.array(pixels), np.full(shape, 0.5, np.float32))


def test_places_are_pixels_of_their_class(dataset, tmp_path):
    found = find_class_places(dataset, tmp_path, progress=False)
    for i in range(len(dataset)):
        target = dataset.read_target(i)
        assert found.pixels[i].tolist() == [int((target == k).sum()) for k in range(3)]
        rows, columns = (found.places[i] * target.shape).astype(int).transpose(2, 0, 1)
        assert (target[rows, columns] == np.arange(3)[:, None]).all()


def test_the_answer_is_kept_until_a_mask_changes(shapes, tmp_path, monkeypatch):
    dataset = Folder(shapes, "train")
    first = find_class_places(dataset, tmp_path, progress=False, workers=2)
    monkeypatch.setattr(dataset, "read_target", lambda i: pytest.fail("read again"))
    again = find_class_places(dataset, tmp_path, progress=False)
    assert np.array_equal(first.places, again.places, equal_nan=True)
    about = dataset.all_masks()[0].stat()
    os.utime(dataset.all_masks()[0], ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        find_class_places(dataset, tmp_path, progress=False)


def test_classes_are_drawn_by_inverse_frequency_from_images_that_hold_them():
    rare = RareClasses(known((900, 100, 0), (900, 0, 0), (1000, 0, 100)), 1.0)
    rng = np.random.default_rng(0)
    images = np.array([rare.draw(1, rng)[0] for _ in range(3000)])
    frequency = np.array([2800, 100, 100]) / 3000
    first = (1 / frequency)[1] / (1 / frequency).sum()
    common = (1 / frequency)[0] / (1 / frequency).sum()
    counts = np.bincount(images, minlength=3) / 3000
    expected = [first + common / 3, common / 3, first + common / 3]
    assert np.abs(counts - expected).max() < 0.03


def test_the_asked_share_of_samples_is_drawn_and_the_rest_left():
    rare = RareClasses(known((10, 90), (0, 100)), 0.25)
    rng = np.random.default_rng(0)
    drawn = [rare.draw(1, rng) for _ in range(2000)]
    assert abs(np.mean([focus is not None for _, focus in drawn]) - 0.25) < 0.03
    assert {index for index, focus in drawn if focus is None} == {1}


def test_a_data_set_without_any_label_is_left_as_it_is():
    assert RareClasses(known((0, 0)), 1.0).draw(0, np.random.default_rng(0)) == (0, None)


@pytest.mark.parametrize("scale", [None, (0.5, 2.0)])
def test_crops_hold_the_place_they_are_drawn_for(dataset, tmp_path, scale):
    rare = RareClasses(find_class_places(dataset, tmp_path, progress=False), 1.0)
    transform = train_transform(Augmentation(crop=(16, 16), scale=scale, flip=0), dataset.space)
    reader, hits, plain = TrainSet(dataset, transform, 0, rare), 0, 0
    for epoch in range(EPOCHS):
        hits += bool((reader.read((epoch, 0)).target > 0).any())
        plain += bool((TrainSet(dataset, transform).read((epoch, 0)).target > 0).any())
    # The frequent class, ground, is drawn too: about a tenth of the samples; a tiny crop may lose its place in scaling.
    assert hits > 0.8 * EPOCHS and hits > plain


def test_a_sample_is_a_function_of_its_key(dataset, tmp_path):
    transform = train_transform(Augmentation(crop=(16, 16), jitter={"brightness": 0.2}), dataset.space)
    rare = RareClasses(find_class_places(dataset, tmp_path, progress=False), 0.5)
    first, second = (
        [TrainSet(dataset, transform, 3, rare).read((epoch, 1)) for epoch in order] for order in ([0, 1], [1, 0])
    )
    for a, b in zip(first, reversed(second), strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.target, b.target) and a.name == b.name


def test_samples_that_are_not_drawn_are_those_of_plain_sampling(dataset, tmp_path):
    transform = train_transform(Augmentation(crop=(16, 16)), dataset.space)
    rare = RareClasses(find_class_places(dataset, tmp_path, progress=False), 1e-9)
    for key in ((0, 1), (5, 2)):
        with_rare, plain = TrainSet(dataset, transform, 0, rare).read(key), TrainSet(dataset, transform).read(key)
        assert np.array_equal(with_rare.image, plain.image)


def test_training_takes_the_setting_and_any_number_of_workers(config_file, tmp_path):
    words = ("train.iterations=2", "data.sampling.rare=0.5", f"data.cache_dir={tmp_path / 'kept'}")
    for workers in (0, 2):
        assert train(config_file, tmp_path / str(workers), *words, f"data.workers={workers}") == 0
    assert same_weights(weights_of(tmp_path / "0"), weights_of(tmp_path / "2"))
    assert train(config_file, tmp_path / "plain", "train.iterations=2") == 0
    assert not same_weights(weights_of(tmp_path / "0"), weights_of(tmp_path / "plain"))
    assert len(list((tmp_path / "kept").glob("class_places_*.npz"))) == 1
