"""What is scored on Cityscapes is what its judge answers, however the predictions come and however many processes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from PIL import Image
from torch import nn

from hrseg.build.evaluation import EvaluationPlan
from hrseg.commands import test as test_command
from hrseg.commands import train as train_command
from hrseg.data.cityscapes import Cityscapes
from hrseg.data.cityscapes_labels import id_to_train_id
from hrseg.data.dataset import Dataset
from hrseg.data.folder import Folder
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.evaluate.evaluation import evaluate
from hrseg.evaluate.evaluator import Evaluator, cluster_of
from hrseg.evaluate.prediction_files import Predictions, Submission, find
from hrseg.inference import Inference
from hrseg.metrics import PerImage, scores_of_images
from hrseg.task import LabelSpace, Normalisation, SegmentationClass, Task
from hrseg.toycity.city_files import write_city
from tests.evaluate import official_judge
from tests.evaluate.official_judge import judged

HERE = Path(__file__).parent.parent
IDS = (0, 4, 7, 8, 10, 11, 17, 21, 23, 24, 25, 26, 27, 29, 30, 33)  # no train among them


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def hostile_city(root: Path, seed: int, images: int = 4, size=(20, 30)) -> tuple[Cityscapes, Path]:
    """A Cityscapes of noise with predictions of noise: absent classes, objects of every label, groups, predictions of
    void, of caravans and trailers; the second image is ignored everywhere.
    """
    rng = np.random.default_rng(seed)
    for i in range(images):
        city = f"stadt{i % 3}"
        ids = rng.choice(IDS[: rng.integers(3, 17)] if i != 1 else (0, 10), size).astype(np.uint8)
        objects = ids.astype(np.int64) * 1000 + rng.integers(0, 3, size)
        instances = np.where((ids >= 24) & (rng.random(size) < 0.8), objects, ids).astype(np.uint16)
        prediction = np.where(rng.random(size) < 0.6, ids, rng.integers(0, 34, size)).astype(np.uint8)
        stem = f"{city}/{city}_{i:06}_000019"
        save(root / f"leftImg8bit/val/{stem}_leftImg8bit.png", np.zeros((*size, 3), np.uint8))
        save(root / f"gtFine/val/{stem}_gtFine_labelIds.png", ids)
        save(root / f"gtFine/val/{stem}_gtFine_instanceIds.png", instances)
        save(root / f"predictions/{stem}_mine.png", prediction)
    return Cityscapes(root, "val"), root / "predictions"


class NoBar:
    def update(self) -> None: ...


def scored(dataset, folder: Path, **kwargs) -> PerImage:
    judge = Evaluator(dataset, void_predictions=True)
    Predictions(dataset, folder, **kwargs).evaluate(judge, lambda *_: None, NoBar())
    return judge.evaluation().per_image


def official(dataset, folder: Path) -> dict:
    truths = [str(path) for path in dataset.targets]
    return judged([str(path) for path in find(folder, dataset)], truths)


def assert_equals_the_judge(plain: dict, official: dict) -> None:
    """All scores of a metrics.json and their means, to 1e-9."""
    ours = {
        "classScores": {row["name"]: row["iou"] for row in plain["classes"]},
        "categoryScores": plain["category"],
        "classInstScores": plain["iiou"],
        "categoryInstScores": plain["category_iiou"],
    }
    means = {
        "averageScoreClasses": "miou",
        "averageScoreCategories": "category_miou",
        "averageScoreInstClasses": "mean_iiou",
        "averageScoreInstCategories": "mean_category_iiou",
    }
    pairs = [(values.get(name), official[kind][name]) for kind, values in ours.items() for name in official[kind]]
    pairs += [(plain[name], official[mean]) for mean, name in means.items()]
    assert len(pairs) >= 88
    for found, expected in pairs:
        assert (np.nan if found is None else found) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_hostile_predictions_are_scored_as_the_official_judge_scores_them(tmp_path, seed):
    dataset, folder = hostile_city(tmp_path, seed)
    assert_equals_the_judge(scores_of_images(scored(dataset, folder)).to_plain(), official(dataset, folder))


def test_files_read_by_several_threads_are_counted_each_with_its_own_image(tmp_path):
    dataset, folder = hostile_city(tmp_path, 3, images=9)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(scored(dataset, folder))
    finally:
        torch.set_num_threads(threads)
    assert [one.names for one in found] == [list(dataset.names)] * 2
    assert np.array_equal(*(np.stack([one[i] for i in range(9)]) for one in found))
    assert scores_of_images(found[0]).iiou == pytest.approx(scores_of_images(found[1]).iiou, abs=0, nan_ok=True)


def test_the_84_golden_scores_come_out_of_the_command(tmp_path):
    judge = HERE / "data/golden/cityscapes_judge"
    root = shutil.copytree(judge / "cityscapes", tmp_path / "city")
    for path in (root / "gtFine").rglob("*_labelIds.png"):  # the images are never looked at, but counted
        image = root / "leftImg8bit/val" / path.parent.name / path.name.replace("gtFine_labelIds", "leftImg8bit")
        save(image, np.zeros((*np.asarray(Image.open(path)).shape, 3), np.uint8))
    config = tmp_path / "city.yaml"
    config.write_text(yaml.safe_dump({"data": {"dataset": "cityscapes", "root": str(root)}, "eval": {"pictures": 1}}))
    words = [str(config), "--predictions", str(judge / "pred_A"), "--out", str(tmp_path / "out")]
    assert test_command.main(words) == 0
    plain = json.loads((tmp_path / "out/metrics.json").read_text())
    assert_equals_the_judge(plain, json.loads((judge / "result_A.json").read_text()))
    assert plain["checkpoint"] is None and plain["ece"] is None and plain["boundary_miou"] > 0
    assert scores_of_images(PerImage.load(tmp_path / "out/per_image.npz")).miou == plain["miou"]


def as_train_ids(folder: Path, to: Path, *, ignored: int = 255) -> Path:
    """The same predictions as trainIds."""
    table = id_to_train_id()
    for path in folder.rglob("*.png"):
        indices = table[np.asarray(Image.open(path))]
        save(to / path.relative_to(folder), np.where(indices == 255, ignored, indices).astype(np.uint8))
    return to


def test_trainids_given_as_labelids_are_refused_with_a_sentence(tmp_path):
    dataset, folder = hostile_city(tmp_path, 0)
    mistaken = as_train_ids(folder, tmp_path / "train_ids")
    with pytest.raises(DataError, match=r"value 255.*--ids classes"):
        scored(dataset, mistaken)
    with pytest.raises(DataError, match=r"no file has an id above 18.*trainIds.*--ids classes"):
        scored(dataset, as_train_ids(folder, tmp_path / "no_255", ignored=0))
    right, same = scores_of_images(scored(dataset, folder)), scores_of_images(scored(dataset, mistaken, ids="classes"))
    assert [c.iou for c in same.classes] == pytest.approx([c.iou for c in right.classes], nan_ok=True)


def test_labels_that_hold_trainids_are_refused_with_a_sentence(tmp_path, capsys):
    _, folder = hostile_city(tmp_path, 0, images=2)
    for path in (tmp_path / "gtFine").rglob("*_instanceIds.png"):
        path.unlink()
    as_train_ids(tmp_path / "gtFine", tmp_path / "gtFine", ignored=18)
    config = tmp_path / "city.yaml"
    config.write_text(yaml.safe_dump({"data": {"dataset": "cityscapes", "root": str(tmp_path)}}))
    out = tmp_path / "out"
    assert test_command.main([str(config), "--predictions", str(folder), "--out", str(out)]) == 2
    assert "trainIds" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "none for 1 of 4 images: stadt1/stadt1_000001_000019"),
        ("two", "has 2 files for the image stadt1"),
        ("size", "is 10x30 (height x width), the labels of the image are 20x30"),
        ("rgb", "is an RGB picture"),
        ("id", "value 77 (row 3, column 4) is not a class"),
        ("text", "not an image"),
        ("folder", "no such folder"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, damage, message):
    dataset, folder = hostile_city(tmp_path, 0)
    path = next(folder.rglob("stadt1_*.png"))
    array = np.array(Image.open(path))
    if damage == "missing":
        path.unlink()
    elif damage == "two":
        save(path.with_name(path.name.replace("mine", "color")), array)
    elif damage == "size":
        save(path, array[:10])
    elif damage == "rgb":
        save(path, array[..., None] + np.arange(3, dtype=np.uint8))
    elif damage == "id":
        array[3, 4] = 77
        save(path, array)
    elif damage == "text":
        path.write_text("nothing")
    elif damage == "folder":
        folder = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        scored(dataset, folder)
    assert message in str(caught.value)


def test_a_definition_that_is_none_is_told_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'cityscapes'"):
        Evaluator(hostile_city(tmp_path, 0)[0], definition="cityscape")


def test_one_asks_for_a_model_or_for_files(tmp_path, capsys):
    for words in ([], ["--checkpoint", "a.pt", "--predictions", "b"], ["--checkpoint", "a.pt", "--ids", "labels"],
                  ["--predictions", "b"]):  # fmt: skip
        assert test_command.main(words) == 2
        assert "Give" in capsys.readouterr().err


# Models


class Colors(nn.Module):
    """Answers by an image's own colour, surer at the left; no weights to learn."""

    def __init__(self, classes: int):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mix", torch.randn(classes, 3, generator=generator))

    def forward(self, image):
        sure = torch.linspace(3, 1, image.shape[-1])
        return torch.einsum("kc,nchw->nkhw", self.mix, image) * sure


@pytest.fixture(scope="module")
def toycity(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "toycity"
    write_city(root, train=2, val=7, size=(128, 160), workers=1)
    return root


def evaluated(root: Path, **kwargs):
    plan = EvaluationPlan(Inference(Task.MULTICLASS), **kwargs)
    return evaluate(Colors(19), Cityscapes(root, "val"), plan, Normalisation(), device=torch.device("cpu"))


def _in_one_process(rank: int, world_size: int, root: Path, file: Path, queue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world_size)
    queue.put(evaluated(root).scores.to_plain())
    dist.destroy_process_group()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked")
@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_processes_gives_the_numbers_of_one(toycity, tmp_path, world_size):
    """Seven images: every measure, to the last bit, in each process."""
    context = multiprocessing.get_context("fork")  # a fresh process would take seconds to import torch
    queue = context.Queue()
    args = (world_size, toycity, tmp_path / "store", queue)
    processes = [context.Process(target=_in_one_process, args=(rank, *args)) for rank in range(world_size)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    alone = evaluated(toycity).scores.to_plain()
    assert all(alone[key] is not None for key in ("boundary_miou", "mean_iiou", "ece", "worst_decile_miou"))
    assert found == [alone] * world_size


def test_training_testing_files_and_the_official_judge_agree(toycity, tmp_path):
    """One model four times: as validated in training, as tested, from the files it wrote, and by the judge."""
    config = tmp_path / "toy.yaml"
    settings = {
        "model": {"encoder": "hrnetv2_w18_small_v1"},
        "data": {"dataset": "cityscapes", "root": str(toycity), "workers": 0, "check": False},
        "augment": {"crop": [64, 64]},
        "train": {"iterations": 1, "batch_size": 2},
        "eval": {"pictures": 1},
        "run": {"dir": str(tmp_path / "run"), "threads": 1},
    }
    config.write_text(yaml.safe_dump(settings))
    assert train_command.main([str(config)]) == 0
    words = ["--checkpoint", str(tmp_path / "run/checkpoints/best.pt"), "--submit", str(tmp_path / "files")]
    assert test_command.main([*words, "--out", str(tmp_path / "tested")]) == 0
    words = [str(config), "--predictions", str(tmp_path / "files"), "--out", str(tmp_path / "scored")]
    assert test_command.main(words) == 0
    during, tested, from_files = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "tested", "scored")
    )
    made_by = {"command", "checkpoint", "time_s"}
    assert {k: v for k, v in during.items() if k not in made_by} == {
        k: v for k, v in tested.items() if k not in made_by
    }
    assert tested["ece"] is not None and tested["mean_iiou"] is not None
    of_the_model = {"ece", "intervals", "config", *made_by}
    assert {k: v for k, v in tested.items() if k not in of_the_model} == {
        k: v for k, v in from_files.items() if k not in of_the_model
    }
    dataset = Cityscapes(toycity, "val")
    assert_equals_the_judge(tested, official(dataset, tmp_path / "files"))
    with zipfile.ZipFile(tmp_path / "files.zip") as archive:
        assert len(archive.namelist()) == 7 and archive.testzip() is None
    per_image = PerImage.load(tmp_path / "tested/per_image.npz")
    for definition in ("ade20k", "smp"):
        assert test_command.main([*words, "--definition", definition]) == 0
        again = json.loads((tmp_path / "scored/metrics.json").read_text())
        assert again["miou"] == scores_of_images(per_image, definition).miou and again["definition"] == definition


def test_a_submission_is_whole_or_absent(tmp_path):
    dataset, _ = hostile_city(tmp_path, 0)
    submission = Submission(dataset, tmp_path / "mine")
    for index in range(3):
        submission(index, np.full((20, 30), 18))
    with pytest.raises(DataError, match="missing"):
        submission.finish()
    assert not (tmp_path / "mine").exists() and not (tmp_path / "mine.zip").exists()
    submission(3, np.full((20, 30), 255))  # void is unlabeled
    assert submission.finish() == tmp_path / "mine.zip"
    assert sorted({int(v) for p in (tmp_path / "mine").glob("*.png") for v in np.unique(Image.open(p))}) == [0, 33]
    with pytest.raises(HrsegError, match="already"):
        Submission(dataset, tmp_path / "mine")
    before = set(tmp_path.iterdir())
    with pytest.raises(DataError, match="20x29, the image 20x30"), Submission(dataset, tmp_path / "other") as other:
        other(0, np.zeros((20, 29), int))
    assert set(tmp_path.iterdir()) == before


def test_what_belongs_together_is_a_setting(tmp_path):
    dataset, _ = hostile_city(tmp_path, 0)
    assert cluster_of(dataset, 0, None) == "stadt0"
    assert cluster_of(dataset, 0, "image") == "stadt0/stadt0_000000_000019"
    assert cluster_of(dataset, 0, r"_(\d+)_") == "000000" and cluster_of(dataset, 0, r"stadt\d") == "stadt0"
    with pytest.raises(ConfigError, match="finds nothing in the name"):
        cluster_of(dataset, 0, "patient")


@pytest.mark.parametrize("ids", [None, "classes", "labels"])
def test_a_folder_of_ones_own_is_scored_from_files_too(shapes, tmp_path, ids):
    """Its masks are the best predictions; the ignore index in one is a miss, if the truth counts there."""
    dataset = Folder(shapes, "val")
    for name, path in zip(dataset.names, dataset.targets, strict=True):
        mask = np.array(Image.open(path))
        mask[1] = 255
        save(tmp_path / "files" / f"{name}.png", mask)
    found = scores_of_images(scored(dataset, tmp_path / "files", ids=ids))
    assert found.pixel_accuracy == pytest.approx(46 / 47)  # the first of 48 rows does not count
    assert [c.iou for c in found.classes[1:]] == [1, 1]


def test_overlapping_labels_are_judged_one_by_one():
    rng = np.random.default_rng(0)
    target, prediction = (rng.integers(0, 2, (3, 30, 40)).astype(np.uint8) for _ in range(2))
    target[:, :3] = 255
    classes = tuple(SegmentationClass(name, (0, 0, 0)) for name in "abc")

    class One(Dataset):
        names = ("one",)

    def judge(space):
        dataset = One()
        dataset.space = space
        return Evaluator(dataset)

    together = judge(LabelSpace(classes, Task.MULTILABEL))
    together.add(0, together.count(0, prediction, target))
    found = together.evaluation().scores
    for label in range(3):
        alone = judge(LabelSpace(classes[:2], Task.BINARY))
        alone.add(0, alone.count(0, prediction[label], target[label]))
        expected = alone.evaluation().scores.classes[1]
        assert (found.classes[label].iou, found.classes[label].boundary_iou) == (expected.iou, expected.boundary_iou)


def test_counting_in_threads_adds_nothing_and_counts_the_same(tmp_path):
    dataset, _ = hostile_city(tmp_path, 0)
    targets = [dataset.read_target(index) for index in range(len(dataset))]
    predictions = [np.where(np.roll(target, 5, axis=1) == 255, 0, np.roll(target, 5, axis=1)) for target in targets]
    judge = Evaluator(dataset)

    def flat(index: int) -> list[list[float]]:
        counts = judge.count(index, predictions[index], targets[index])
        return [np.ravel(part).tolist() for part in counts if part is not None]

    one_by_one = [flat(index) for index in range(len(dataset))]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(flat, [*range(len(dataset))] * 5)) == one_by_one * 5
    assert sum(one_by_one[0][0]) > 0 and not judge.total.compute().any() and len(judge.evaluation().per_image) == 0


@pytest.mark.long
def test_the_judge_in_an_environment_of_its_own_agrees_on_the_whole_toy_city(tmp_path):
    """With the numpy it was written for; the toy city of the demo, 60 validation images."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    packages = ["cityscapesscripts==2.3.0", "numpy<2", "pillow<11"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    write_city(tmp_path / "toycity", train=1, workers=1)
    dataset = Cityscapes(tmp_path / "toycity", "val")
    submission = Submission(dataset, tmp_path / "files")
    found = evaluated(tmp_path / "toycity", on_prediction=submission).scores.to_plain()
    submission.finish()
    pairs = [[str(path) for path in paths] for paths in (find(tmp_path / "files", dataset), dataset.targets)]
    done = subprocess.run(
        [python, official_judge.__file__], input=json.dumps(pairs), check=True, capture_output=True, text=True
    )
    assert len(pairs[0]) == 60
    assert_equals_the_judge(found, json.loads(done.stdout))
