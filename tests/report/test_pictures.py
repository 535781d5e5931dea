"""Pictures for people: nothing is drawn where nothing is, and one colour means one thing."""

from __future__ import annotations

import numpy as np
import pytest

from hrseg.report import pictures
from hrseg.task import LabelSpace, SegmentationClass, Task


def space(*classes: tuple[str, tuple[int, int, int]], task: Task = Task.MULTICLASS) -> LabelSpace:
    return LabelSpace(tuple(SegmentationClass(*c) for c in classes), task)


BLACK = space(("nothing", (0, 0, 0)), ("scratch", (200, 0, 0)), ("dent", (0, 200, 0)))
NAMED = space(("__background__", (10, 90, 40)), ("scratch", (200, 0, 0)), ("dent", (0, 200, 0)))
BINARY = space(("ok", (0, 200, 0)), ("defect", (200, 0, 0)), task=Task.BINARY)
STREET = space(("road", (128, 64, 128)), ("car", (0, 0, 142)), ("void", (0, 0, 0)))
IMAGE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
LABELS = np.array([[0, 0, 1, 1, 255, 0]] * 4, np.uint8)


@pytest.mark.parametrize("own", [BLACK, NAMED, BINARY], ids=["black", "named", "binary"])
def test_the_photo_is_untouched_where_there_is_nothing(own):
    drawn = pictures.overlay(IMAGE, LABELS, own)
    assert np.array_equal(drawn[LABELS == 0], IMAGE[LABELS == 0])
    assert not np.array_equal(drawn[LABELS == 1], IMAGE[LABELS == 1])
    assert pictures.legend_colors(own, over_image=True)[own.names[0]] is None
    assert pictures.legend_colors(own)[own.names[0]] == own.classes[0].color


def test_class_0_of_a_street_is_drawn_and_labels_leave_the_rest_alone():
    drawn = pictures.overlay(IMAGE, LABELS, STREET)
    assert STREET.background is None and (drawn[LABELS == 0] != IMAGE[LABELS == 0]).any(axis=1).all()
    labels = np.zeros((2, 4, 6), np.uint8)
    labels[0, :2] = 1
    drawn = pictures.overlay(IMAGE, labels, space(("a", (9, 9, 9)), ("b", (0, 99, 0)), task=Task.MULTILABEL))
    assert np.array_equal(drawn[2:], IMAGE[2:]) and not np.array_equal(drawn[:2], IMAGE[:2])


@pytest.mark.parametrize("own", [BLACK, NAMED, STREET], ids=["black", "named", "street"])
def test_no_two_boxes_of_a_legend_are_alike(own):
    colors = list(pictures.legend_colors(own, ignored=True).values())
    assert len(set(colors)) == len(colors) == 4
    assert tuple(pictures.colored(LABELS, own)[0, 4]) == colors[-1]
    assert "(ignored)" not in pictures.legend_colors(own)


def test_a_transparent_box_is_crossed_and_not_black():
    drawn = pictures.legend({"background": None})
    assert (drawn[4:12, 10:20] == 255).all(axis=2).mean() > 0.5
    assert not np.array_equal(drawn, pictures.legend({"background": (255, 255, 255)}))


def test_misses_and_false_alarms_have_a_colour_each():
    target, prediction = np.array([[0, 1, 0, 1, 2, 255]]), np.array([[0, 0, 1, 2, 2, 1]])
    right, missed, false, confused = pictures.RIGHT, pictures.MISSED, pictures.FALSE_ALARM, pictures.CONFUSED
    expected = [right, missed, false, confused, right, pictures.IGNORED]
    assert [tuple(c) for c in pictures.errors(prediction, target, BLACK)[0]] == expected
    drawn = pictures.errors(prediction, target, STREET)[0]
    assert [tuple(c) for c in drawn] == [right, confused, confused, confused, right, pictures.IGNORED]
    void = np.array([[255]])  # a prediction that is no class finds nothing
    assert tuple(pictures.errors(void, np.array([[1]]), BLACK)[0, 0]) == missed


def test_a_label_missed_and_one_added_are_told_apart():
    own = space(("a", (9, 9, 9)), ("b", (0, 99, 0)), task=Task.MULTILABEL)
    target, prediction = np.array([[[1, 0, 1, 1]], [[0, 0, 0, 255]]]), np.array([[[0, 0, 0, 1]], [[0, 1, 1, 1]]])
    expected = [pictures.MISSED, pictures.FALSE_ALARM, pictures.CONFUSED, pictures.RIGHT]
    assert [tuple(c) for c in pictures.errors(prediction, target, own)[0]] == expected
    assert {pictures.MISSED, pictures.FALSE_ALARM, pictures.CONFUSED} < set(pictures.error_colors(own).values())
