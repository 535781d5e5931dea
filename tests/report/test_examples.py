"""What a report keeps of an evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hrseg.report import examples, page
from hrseg.report.examples import PackedIndices, PredictionCollector
from hrseg.task import Normalisation
from tests.report.made import SPACE, run


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
@pytest.mark.parametrize("highest", [254, 300])
def test_packed_labels_come_back_as_they_were(shape, highest):
    labels = np.random.default_rng(0).integers(0, highest, shape)
    assert np.array_equal(PackedIndices.pack(labels).unpack(), labels)


def test_large_labels_are_reduced_to_pixels_of_their_own():
    labels = np.arange(1536 * 2048).reshape(1, 1536, 2048)
    small = examples.reduced_indices(labels)
    assert small.shape == (1, 576, 768) and np.isin(small, labels).all()
    assert np.array_equal(examples.reduced_indices(labels[:, :500, :600]), labels[:, :500, :600])


def test_what_was_kept_large_fits_what_was_kept_small():
    labels = np.random.default_rng(0).integers(0, 9, (1500, 3000))
    large = examples.reduced_indices(labels, examples.FULL_SIDE)
    assert large.shape == (1024, 2048)
    for side in (examples.LONG_SIDE, examples.SMALL_SIDE):
        assert np.array_equal(examples.reduced_indices(large, side), examples.reduced_indices(labels, side))


def test_of_a_large_data_set_some_predictions_are_kept_evenly(monkeypatch):
    monkeypatch.setattr(examples, "KEPT", 4)
    collector = PredictionCollector(10, Normalisation())
    for index in (9, 6, 3, 1, 0):
        collector(index, np.zeros((2, 2), np.uint8))
    assert list(collector.gather()[0]) == [0, 3, 6, 9]


def test_the_worst_cost_most_and_the_typical_are_from_the_middle_of_the_rest():
    ious, costs, nothing = np.linspace(1, 0, 101), np.linspace(0, 0.1, 101), np.zeros(101, int)
    ious[100] = np.nan  # nothing to score
    chosen = examples.choose_examples(costs, ious, nothing, count=3)
    assert [i for i, kinds in chosen.items() if kinds == ("worst",)] == [99, 98, 97]
    typical = [i for i, kinds in chosen.items() if kinds == ("typical",)]
    assert len(typical) == 3 and all(20 < position < 80 for position in typical)
    assert examples.choose_examples(*np.array([[0.1], [0.5]]), np.array([0]), count=3) == {0: ("worst",)}


def test_clean_images_with_false_pixels_are_shown_whatever_they_cost():
    ious, costs, false_pixels = np.full(40, 0.5), np.linspace(0.1, 0, 40), np.zeros(40, int)
    false_pixels[[0, 30, 39]] = 7, 5, 9
    chosen = examples.choose_examples(costs, ious, false_pixels, count=2)
    assert [i for i, kinds in chosen.items() if "clean" in kinds] == [0, 39] and chosen[0] == ("worst", "clean")


def test_examples_come_back_from_their_file(tmp_path):
    folder = run(tmp_path / "run", [f"city/{n}" for n in range(8)], size=(24, 40))
    found = examples.Examples.load(folder / "examples.npz")
    assert found.space == SPACE and list(found.predictions) == list(found.small) == [f"city/{n}" for n in range(8)]
    kinds = [photo.kinds for photo in found.photos.values()]
    assert kinds.count(("worst",)) == 4 and kinds.count(("typical",)) == 2
    photo = found.photos["city/7"]
    assert photo.target.unpack().shape == (24, 40)
    assert np.array_equal(photo.prediction.unpack(), found.predictions["city/7"].unpack())


def test_examples_of_before_are_read(tmp_path):
    folder = run(tmp_path / "run", ["a", "b", "c"])
    with np.load(folder / "examples.npz") as file:
        arrays = {name: file[name] for name in file.files if not name.startswith(("answer", "small"))}
    index = json.loads(arrays["index"].tobytes())
    del index["small"]
    np.savez(folder / "examples.npz", **arrays | {"index": np.frombuffer(json.dumps(index).encode(), np.uint8)})
    found = examples.Examples.load(folder / "examples.npz")
    assert not found.small and all(photo.prediction is None for photo in found.photos.values())
    assert 'id="viewer"' in page.write_report(folder).read_text()
