"""The evidence: every score can be recomputed from the file, and intervals follow from it."""

from __future__ import annotations

import numpy as np
import pytest

from hrseg.errors import DataError
from hrseg.metrics import PerImage, miou, miou_interval, multilabel_confusion


def matrices(images: int = 40, classes: int = 5, seed: int = 0) -> np.ndarray:
    """Confusion matrices [N, K, K], most of their cells empty as in single images."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 10**5, (images, classes, classes)) * (rng.random((images, classes, classes)) < 0.3)
    return counts + np.eye(classes, dtype=np.int64) * rng.integers(0, 10**6, (images, 1, 1))


def evidence(counts: np.ndarray, order=None) -> PerImage:
    per_image = PerImage(counts.shape[1:])
    for index in range(len(counts)) if order is None else order:
        per_image.add(index, f"stadt_{index % 4}/bild {index} ä", counts[index], f"stadt_{index % 4}")
    return per_image


def test_what_is_read_is_what_was_written(tmp_path):
    counts = matrices()
    evidence(counts, reversed(range(len(counts)))).save(tmp_path / "per_image.npz")
    read = PerImage.load(tmp_path / "per_image.npz")
    assert np.array_equal([read[i] for i in range(len(read))], counts)
    assert np.array_equal(read.total(), counts.sum(axis=0))
    assert read.names[3] == "stadt_3/bild 3 ä" and read.clusters[3] == "stadt_3" and len(read) == len(counts)
    assert [path.name for path in tmp_path.iterdir()] == ["per_image.npz"]


def test_no_image_at_all_is_a_file_too(tmp_path):
    PerImage((3, 3)).save(tmp_path / "per_image.npz")
    read = PerImage.load(tmp_path / "per_image.npz")
    assert len(read) == 0 and read.names == [] and not read.total().any()


def test_a_benchmarks_evidence_is_small(tmp_path):
    evidence(matrices(500, 19)).save(tmp_path / "per_image.npz")
    assert (tmp_path / "per_image.npz").stat().st_size < 5e6


def test_parts_of_several_processes_are_one_in_the_order_of_the_data_set():
    counts = matrices()
    merged = PerImage.merge([evidence(counts, range(1, 40, 2)), evidence(counts, range(0, 40, 2))])
    assert merged.names == evidence(counts).names and np.array_equal(merged.total(), counts.sum(axis=0))
    with pytest.raises(ValueError, match=r"share images \[4\]"):
        PerImage.merge([evidence(counts, range(5)), evidence(counts, range(4, 9))])
    with pytest.raises(ValueError, match="counted before"):
        merged.add(7, "again", counts[7])


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "other", "cells"])
def test_a_file_that_is_none_is_named(tmp_path, damage):
    path = tmp_path / "per_image.npz"
    if damage == "text":
        path.write_text("not an archive")
    if damage == "cut":
        evidence(matrices()).save(path)
        path.write_bytes(path.read_bytes()[:500])
    if damage == "other":
        np.savez(path, shape=np.array([2, 2]))
    if damage == "cells":
        one = {"indices": [0], "names": ["a"], "clusters": [""], "starts": [0, 1], "cells": [9], "pixels": [1]}
        np.savez(path, shape=np.array([2, 2]), **one)
    with pytest.raises(DataError, match=r"per_image\.npz"):
        PerImage.load(path)


def test_the_interval_is_the_same_from_a_file_and_from_matrices():
    counts = matrices()
    per_image = evidence(counts)
    interval = miou_interval(per_image, per_image.clusters, "cityscapes")
    assert interval == miou_interval(counts, per_image.clusters, "cityscapes")
    assert interval[0] < miou(counts.sum(axis=0), "cityscapes") < interval[1]
    assert miou_interval(counts, None, "cityscapes") != miou_interval(counts, None, "cityscapes", seed=1)


def test_the_interval_is_that_of_drawing_clusters_one_by_one():
    counts, clusters = matrices(12), np.arange(12) // 3
    rng = np.random.default_rng(1)
    drawn = [miou(sum(counts[clusters == c].sum(axis=0) for c in rng.integers(0, 4, 4)), "ade20k") for _ in range(4000)]
    interval = miou_interval(counts, clusters, "ade20k", samples=4000)
    assert interval == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.02)


def test_images_that_resemble_each_other_make_no_narrower_interval():
    cities = matrices(10)
    counts, clusters = np.repeat(cities, 20, axis=0), np.repeat(np.arange(10), 20)  # each city's images are alike
    low, high = miou_interval(counts, clusters, "cityscapes")
    alone = miou_interval(counts, None, "cityscapes")
    assert (low, high) == pytest.approx(miou_interval(cities, None, "cityscapes"))
    assert alone[1] - alone[0] < 0.5 * (high - low)


def test_one_cluster_has_no_interval():
    counts = matrices(3)
    assert miou_interval(counts, ["a", "a", "a"], "cityscapes") is None
    with pytest.raises(ValueError, match="2 clusters for 3 images"):
        miou_interval(counts, ["a", "b"], "cityscapes")


def test_a_multilabel_interval_is_about_the_yes():
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 2, (2, 30, 3, 8, 8))
    counts = np.stack([multilabel_confusion(p, t, 3) for p, t in zip(*planes, strict=True)])
    low, high = miou_interval(evidence(counts), None, "cityscapes")
    yes = counts.sum(axis=0)
    point = np.mean(yes[:, 1, 1] / (yes.sum(axis=(1, 2)) - yes[:, 0, 0]))
    assert low < point < high < 0.5  # with the "no" counted too, or the right answers as a score, it would be higher
