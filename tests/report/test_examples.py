"""What a report keeps of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from hrseg.report import examples
from hrseg.report.examples import PackedIndices, PredictionCollector
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


def test_of_a_large_data_set_some_predictions_are_kept_evenly(monkeypatch):
    monkeypatch.setattr(examples, "KEPT", 4)
    collector = PredictionCollector(10)
    for index in (9, 6, 3, 1, 0):
        collector(index, np.zeros((2, 2), np.uint8))
    assert list(collector.gather()) == [0, 3, 6, 9]


def test_the_worst_come_first_and_the_typical_from_the_middle_of_the_rest():
    ious = np.linspace(1, 0, 101)
    ious[100] = np.nan  # nothing to score
    worst, typical = examples.choose_examples(ious, count=3)
    assert worst == [99, 98, 97]
    assert all(20 < position < 80 for position in typical) and len(typical) == 3
    assert examples.choose_examples(np.array([0.5]), count=3) == ([0], [])


def test_examples_come_back_from_their_file(tmp_path):
    folder = run(tmp_path / "run", [f"city/{n}" for n in range(8)], size=(24, 40))
    found = examples.Examples.load(folder / "examples.npz")
    assert found.space == SPACE and list(found.predictions) == [f"city/{n}" for n in range(8)]
    kinds = [photo.kind for photo in found.photos.values()]
    assert kinds.count("worst") == 4 and kinds.count("typical") == 2
    assert found.photos["city/7"].target.unpack().shape == (24, 40)
