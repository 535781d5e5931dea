"""Images without labels: labelled where the answer is sure, learned exactly, the same again after a stop."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from hrseg import config as settings
from hrseg.data.unlabelled import Views
from hrseg.task import LabelSpace, SegmentationClass, Task
from hrseg.tracking import read_log
from hrseg.train import loop as training
from hrseg.train.unlabelled import MIX_AREA, PseudoLabels, rectangles
from tests.shapes import save_checkpoint
from tests.train.test_loop import same_weights, train, weights_of, without_times

THREE = tuple(SegmentationClass(name, (0, 0, i)) for i, name in enumerate("abc"))


def space(task: Task = Task.MULTICLASS, classes=THREE) -> LabelSpace:
    return LabelSpace(classes, task)


def views(count=2, size=(4, 6), padding=None) -> Views:
    generator = torch.Generator().manual_seed(0)
    weak, strong = torch.randint(0, 256, (2, count, 3, *size), generator=generator, dtype=torch.uint8)
    return Views(weak, strong, torch.zeros(count, *size, dtype=torch.bool) if padding is None else padding)


def test_only_sure_pixels_within_the_image_are_learned_and_all_count_in_the_mean():
    logits = torch.zeros(2, 3, 4, 6)
    logits[:, 1, 0] = 9.0  # sure of class 1 in the first row
    padding = torch.zeros(2, 4, 6, dtype=torch.bool)
    padding[:, :, 5] = True
    labelling = PseudoLabels(lambda image: logits, space(), 0.95, 1.0)
    labels = labelling.label(views(padding=padding), np.random.default_rng(7))
    assert (labels.target[:, 0, :5] == 1).all() and (labels.target[:, 1:] == 255).all()
    assert (labels.target[:, :, 5] == 255).all() and labels.pixels.tolist() == [20, 20]
    assert labelling.sure_share(labels) == 5 / 20
    answer = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = -answer.log_softmax(1)[:, 1, 0, :5].sum() / 40
    torch.testing.assert_close(labelling.loss(answer, labels), expected)


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTILABEL])
def test_labels_that_may_overlap_are_sure_one_by_one(task):
    outputs = 1 if task is Task.BINARY else 3
    logits = torch.zeros(2, outputs, 4, 6)
    logits[:, 0, 0], logits[:, 0, 1] = 9.0, -9.0
    labelling = PseudoLabels(lambda image: logits, space(task, THREE[: outputs + (outputs == 1)]), 0.95, 1.0)
    labels = labelling.label(views(), np.random.default_rng(7))
    assert labels.target[0, 0].unique(dim=1).flatten().tolist() == [1, 0, 255, 255]
    assert labelling.sure_share(labels) == pytest.approx(0.5 / outputs)
    answer = torch.randn(2, outputs, 4, 6, generator=torch.Generator().manual_seed(1))
    ones, noes = answer[:, 0, 0], answer[:, 0, 1]
    expected = -(ones.sigmoid().log().sum() + (1 - noes.sigmoid()).log().sum()) / 48
    torch.testing.assert_close(labelling.loss(answer, labels), expected)


def test_a_rectangle_takes_image_label_and_padding_of_another_image():
    seed = next(s for s in range(50) if rectangles(2, (8, 8), np.random.default_rng(s))[0] is not None)
    box = rectangles(2, (8, 8), np.random.default_rng(seed))[0]
    logits = torch.zeros(2, 3, 8, 8)
    logits[0, 0], logits[1, 2] = 9.0, 9.0
    padding = torch.zeros(2, 8, 8, dtype=torch.bool)
    padding[1, 0] = True
    given = views(2, (8, 8), padding)
    labels = PseudoLabels(lambda image: logits, space(), 0.95, 1.0).label(given, np.random.default_rng(seed))
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[box[0] : box[2], box[1] : box[3]] = True
    assert torch.equal(labels.image[0][:, inside], given.strong[1][:, inside])
    assert torch.equal(labels.image[0][:, ~inside], given.strong[0][:, ~inside])
    assert (labels.target[0][inside & ~padding[1]] == 2).all() and (labels.target[0][inside & padding[1]] == 255).all()
    assert (labels.target[0][~inside] == 0).all()
    assert labels.pixels[0] == 64 - (inside & padding[1]).sum()


def test_rectangles_have_the_stated_area_and_lie_in_the_image():
    boxes = [box for box in rectangles(400, (50, 70), np.random.default_rng(0)) if box is not None]
    assert 150 < len(boxes) < 250
    for top, left, bottom, right in boxes:
        assert 0 <= top < bottom <= 50 and 0 <= left < right <= 70
        assert MIX_AREA[0] * 0.8 < (bottom - top) * (right - left) / 3500 < MIX_AREA[1] * 1.2


@pytest.fixture
def words(shapes, tmp_path):
    """Two of the six training images with labels, the others without."""
    (tmp_path / "labelled.txt").write_text("00\n03\n")
    return (
        "train.iterations=4", "train.val_every=2", "train.batch_size=2", "train.ema=0.5", "unlabelled.threshold=0.35",
        f"data.labelled={tmp_path / 'labelled.txt'}", "unlabelled.batch_size=4",
    )  # fmt: skip


def test_a_run_learns_from_images_without_labels_and_goes_on_exactly(config_file, words, tmp_path, capsys):
    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    assert train(config_file, whole, *words) == 0
    assert "2 training" in capsys.readouterr().out
    records = [r for r in read_log(whole / "log.jsonl") if r["kind"] == "train"]
    assert any(r["sure_share"] > 0 and r["loss_unlabelled"] > 0 for r in records)

    def stop_after_three(*args, **kwargs):
        result = training.training_step(*args, **kwargs)
        stop_after_three.calls += 1
        if stop_after_three.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    stop_after_three.calls = 0
    training.train(settings.load(config_file, [f"run.dir={folder}", *words]), folder, step=stop_after_three)
    assert weights_of(folder)["step"] == 3
    assert train(config_file, folder, *words, "data.workers=1", resume="auto") == 0
    assert same_weights(weights_of(whole), weights_of(folder))
    logs = [without_times(read_log(path / "log.jsonl")) for path in (whole, folder)]
    assert logs[0] == logs[1]


def test_a_teacher_labels_them_instead(config_file, words, tmp_path):
    teacher = save_checkpoint(tmp_path / "teacher.pt")
    plain = [word for word in words if not word.startswith("train.ema")] + ["train.batch_size=4", "train.accumulate=2"]
    assert train(config_file, tmp_path / "run", *plain, f"distill.teacher={teacher}") == 0
    record = read_log(tmp_path / "run" / "log.jsonl")[0]
    assert record["sure_share"] > 0 and record["loss_distill"] > 0


def test_a_folder_of_images_is_read_and_one_of_another_kind_is_refused(config_file, tmp_path, capsys):
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(root / "sub" / "a.png")
    Image.fromarray(picture[..., 0]).save(root / "grey.png")
    common = ("train.iterations=2", "train.ema=0.5", f"unlabelled.root={root}", "unlabelled.batch_size=2")
    assert train(config_file, tmp_path / "run", *common) == 0
    tifffile.imwrite(
        root / "five.tif", np.dstack([picture, picture[..., :2]]), photometric="minisblack", planarconfig="contig"
    )
    assert train(config_file, tmp_path / "other", *common) == 2
    error = capsys.readouterr().err
    assert "unlabelled.root" in error and "5 channels" in error and "takes 3" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("unlabelled.root=nowhere", "train.ema=0.5"), "holds no images"),
        (("unlabelled.threshold=0.9", "train.ema=null"), "Set train.ema"),
        (("unlabelled.threshold=0.9", "train.ema=0.5"), "every image of train has a mask"),
        (("unlabelled.batch_size=3", "unlabelled.root=.", "train.ema=0.5", "train.accumulate=2"), "unlabelled.batch"),
        (("data.labelled=missing.txt",), "missing.txt"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(config_file, tmp_path, capsys, change, message):
    assert train(config_file, tmp_path / "run", *change) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_list_with_an_unknown_name_is_refused_with_it(config_file, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("00\n99\n")
    assert train(config_file, tmp_path / "run", f"data.labelled={tmp_path / 'list.txt'}") == 2
    assert "lists 99" in capsys.readouterr().err
