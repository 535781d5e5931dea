"""Regions, their kinds and the faults of whole masks, on drawn labels."""

from __future__ import annotations

import numpy as np
import pytest

from hrseg.doctor import collection
from hrseg.doctor.regions import Knowledge, Strengths, regions
from hrseg.doctor.suspects import BORDER, MISSING, NONE, OTHER, SHIFTED, SWAPPED, WRONG, from_runs, runs_of
from hrseg.doctor.views import Habits, View
from hrseg.doctor.whole_images import best_shift, sketch, whole_image_fault

CLASSES = 4
KNOWN = Knowledge(Strengths(), np.full(CLASSES, 128.0))


def scene(objects: int = 1) -> np.ndarray:
    plane = np.zeros((96, 128), np.uint8)
    plane[:40] = 1
    for n in range(objects):
        plane[50:70, 20 + 30 * n : 40 + 30 * n] = 2
    return plane


def seen(truth: np.ndarray, label: np.ndarray) -> View:
    """The view of a model that surely sees the truth."""
    probabilities = np.full((CLASSES, *truth.shape), 0.02, np.float32)
    np.put_along_axis(probabilities, truth[None].astype(np.int64), 0.94, 0)
    return View.of(probabilities, label)


def found(truth: np.ndarray, label: np.ndarray):
    return regions(label, seen(truth, label), KNOWN)


def test_a_right_label_has_no_suspects():
    assert found(scene(), scene()) == []


def test_each_kind_of_fault_is_told():
    truth, missing, wrong, grown = scene(), scene(), scene(), scene()
    missing[missing == 2] = 0
    wrong[wrong == 2] = 3
    grown[46:74, 16:44] = 2
    extra = scene()
    extra[75:90, 80:100] = 2
    swapped = scene(3)
    swapped[swapped == 2] = 3
    kinds = [found(truth, label)[0].kind for label in (missing, wrong, extra, grown)]
    assert kinds == [MISSING, WRONG, NONE, BORDER]
    assert [region.kind for region in found(scene(3), swapped)] == [SWAPPED]


def test_ignored_pixels_are_never_suspects():
    label = scene()
    label[50:70, 20:40] = 255
    assert found(scene(), label) == []


def test_what_models_see_in_many_images_weighs_less():
    label = scene()
    label[label == 2] = 3
    view, strengths = seen(scene(), label), Strengths()
    for _ in range(5):
        strengths.add(label, view, CLASSES)
    often = regions(label, view, Knowledge(strengths, KNOWN.thresholds))
    assert often[0].score < 0.5 * regions(label, view, KNOWN)[0].score


@pytest.mark.parametrize(("down", "right"), [(9, 0), (-5, 7), (0, -12)])
def test_a_shift_is_found_to_the_pixel(down, right):
    truth = scene(3)
    label = np.roll(truth, (down, right), (0, 1))
    assert best_shift(label, truth, CLASSES)[:2] == (down, right)


def test_whole_masks_that_are_moved_or_exchanged_are_told():
    rng = np.random.default_rng(0)
    truths = []
    for _ in range(6):
        plane = np.kron(rng.integers(0, CLASSES, (6, 8)), np.ones((16, 16))).astype(np.uint8)
        truths.append(plane)
    labels = [*truths]
    labels[1] = np.roll(truths[1], 8, 1)
    labels[2] = truths[4]
    views = [seen(t, label) for t, label in zip(truths, labels, strict=True)]
    sketches = [sketch(label, view, CLASSES) for label, view in zip(labels, views, strict=True)]
    names = [f"image {n}" for n in range(6)]
    faults = [whole_image_fault(labels[n], views[n], CLASSES, names, sketches, n) for n in range(6)]
    assert [fault and fault.kind for fault in faults] == [None, SHIFTED, OTHER, None, None, None]
    assert faults[1].detail == "by 8 pixels to the right" and "image 4" in faults[2].detail


def test_runs_give_the_region_back():
    rng = np.random.default_rng(1)
    for share in (0, 0.3, 1):
        inside = rng.random((7, 11)) < share
        assert np.array_equal(from_runs(runs_of(inside), inside.shape), inside)


def test_a_view_survives_its_file(tmp_path):
    view = seen(scene(), scene(2))
    view.save(tmp_path / "view.png")
    assert all(np.array_equal(a, b) for a, b in zip(View.load(tmp_path / "view.png"), view, strict=True))


def test_habits_tell_which_classes_are_confused():
    truth, label = scene(2), scene(2)
    label[50:70, 20:40], label[80:90, :] = 0, 2
    habits = Habits(CLASSES)
    habits.add(label, seen(truth, label))
    pairs = collection.confused_classes(habits, ["ground", "sky", "car", "tree"])
    assert [pair["classes"] for pair in pairs] == [["ground", "car"]]


def test_near_duplicates_with_other_masks_and_unusual_images_are_told():
    rng = np.random.default_rng(2)
    photos = rng.integers(0, 255, (12, 32, 64, 3), dtype=np.uint8)
    photos[5] = photos[3]
    masks = np.zeros((12, 24, 48), np.uint8)
    masks[5, :12] = 1
    prints = np.stack([collection.fingerprint(photo) for photo in photos])
    pairs = collection.near_duplicates(list("abcdefghijkl"), prints, masks, ignored_from=CLASSES)
    assert pairs == [{"images": ["d", "f"], "different": 0.5}]
    looks = rng.normal(0, 1, (40, 5))
    looks[7] += 40
    assert [one["image"] for one in collection.unusual_images([str(n) for n in range(40)], looks)] == ["7"]
