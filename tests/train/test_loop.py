"""Training end to end on eight small images, and the promises of a run folder."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hrseg import config as settings
from hrseg.build.training import training_plan
from hrseg.commands import test as test_command
from hrseg.commands import train as train_command
from hrseg.data.loader import normalise
from hrseg.evaluate import evaluation, validation_pictures
from hrseg.evaluate.evaluator import Evaluation
from hrseg.fast.narrow_batch_norm import WideBatchNorm2d
from hrseg.inference import forward
from hrseg.losses import CombinedLoss
from hrseg.metrics import ImageCounts, PerImage, miou, scores_of_images
from hrseg.task import Normalisation
from hrseg.tracking import read_log
from hrseg.train import loop as training
from hrseg.train import output
from tests.conftest import ROOT
from tests.report.made import Pictures


def weights_of(folder, name="last.pt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def same_weights(a, b, part="model"):
    return all(torch.equal(a[part][k], b[part][k]) for k in a[part])


def train(config_file, folder, *overrides, resume=None):
    words = [str(config_file), f"run.dir={folder}", *overrides]
    return train_command.main([*words, "--resume", str(resume)] if resume else words)


def without_times(records):
    return [{k: v for k, v in r.items() if k not in ("time_s", "images_per_s", "data_wait")} for r in records]


@pytest.fixture(scope="module")
def finished(shapes, tmp_path_factory):
    """A run of 60 iterations that has learned."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    path = folder.with_name("config.yaml")
    path.write_text(
        f"""
model: {{encoder: hrnetv2_w18_small_v1}}
data: {{dataset: folder, root: '{shapes}', workers: 0}}
augment: {{crop: [32, 48]}}
optim: {{name: adamw, lr: 0.003, warmup: 5}}
train: {{iterations: 60, batch_size: 4, val_every: 30, ema: 0.9}}
run: {{dir: '{folder}'}}
"""
    )
    assert train_command.main([str(path)]) == 0
    return folder


def test_a_network_learns(finished):
    assert json.loads((finished / "metrics.json").read_text())["miou"] > 0.8


def test_a_run_folder_holds_what_it_promises(finished):
    for name in (
        "config.yaml",
        "log.jsonl",
        "metrics.json",
        "per_image.npz",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
    ):
        assert (finished / name).is_file(), name
    assert settings.load(finished / "config.yaml").train.iterations == 60
    assert Image.open(finished / "images" / "batch" / "step_0.png").size[0] > 64
    assert len(list((finished / "images" / "val").glob("*.png"))) == 2
    kinds = [record["kind"] for record in read_log(finished / "log.jsonl")]
    assert kinds.count("val") == 2 and kinds.count("train") == 6


def test_a_checkpoint_holds_plain_types_and_the_whole_config(finished):
    saved = weights_of(finished)
    assert {"format", "model", "ema", "optimizer", "scaler", "step", "epoch", "rng", "best", "config"} <= set(saved)
    assert {"classes", "normalisation", "task"} <= set(saved) and saved["step"] == 60


def test_validation_pictures_stand_above_a_legend(tmp_path):
    dataset = Pictures(["a", "b"])
    drawn = validation_pictures.ValidationPictures(dataset, Normalisation(), 2)
    for index in range(2):
        drawn(index, dataset[index][1])
    evidence = PerImage(dataset.space)
    for index, name in enumerate(dataset.names):
        evidence.add(index, name, ImageCounts(np.eye(3, dtype=int)))
    *_, sheet = validation_pictures.draw(drawn, Evaluation(scores_of_images(evidence), evidence, 1.0), tmp_path)
    below = np.asarray(Image.open(sheet))[2 * (2 * 22 + 24) + 12 :]
    assert {c.color for c in dataset.space.classes} <= set(map(tuple, below.reshape(-1, 3).tolist()))


@pytest.fixture(scope="module")
def each_step(tiny, tmp_path_factory):
    """A run of eight iterations with a record of each."""
    folder = tmp_path_factory.mktemp("each") / "run"
    assert train(tiny, folder) == 0
    return folder


def test_a_record_is_the_mean_since_the_last_one_and_nothing_else_changes(tiny, each_step, tmp_path):
    assert train(tiny, tmp_path / "run", "train.log_every=3") == 0
    assert same_weights(weights_of(tmp_path / "run"), weights_of(each_step))
    single = [r for r in read_log(each_step / "log.jsonl") if r["kind"] == "train"]
    means = [r for r in read_log(tmp_path / "run" / "log.jsonl") if r["kind"] == "train"]
    assert [r["step"] for r in means] == [3, 6, 8]
    for record, since in zip(means, (single[:3], single[3:6], single[6:]), strict=True):
        for key in ("loss", "grad_norm", "kept_share"):
            assert record[key] == pytest.approx(np.mean([r[key] for r in since]), rel=1e-6), key
        assert record["loss"] != since[-1]["loss"]


def test_a_mean_goes_on_where_a_checkpoint_interrupts_it(tiny, tmp_path, monkeypatch):
    assert train(tiny, tmp_path / "whole", "train.log_every=8") == 0
    iterate = training.iterate

    def killed(run, batch, step):
        if run.state.step == 3:
            raise KeyboardInterrupt
        return iterate(run, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(training, "iterate", killed)
        assert train(tiny, tmp_path / "parts", "train.log_every=8", "train.checkpoint_every=2") != 0
    assert train(tiny, tmp_path / "parts", "train.log_every=8", "train.checkpoint_every=2", resume="auto") == 0
    whole, parts = (without_times(read_log(tmp_path / name / "log.jsonl")) for name in ("whole", "parts"))
    assert parts == whole


def test_a_validation_tells_its_loss_and_the_iou_of_each_class(each_step):
    log = read_log(each_step / "log.jsonl")
    found = [r for r in log if r["kind"] == "val"]
    assert len(found) == 2 and all(r["loss"] > 0 and set(r["class_iou"]) == {"ground", "box"} for r in found)
    rows = list(csv.DictReader((each_step / "results.csv").open()))
    assert [int(row["step"]) for row in rows] == [4, 8]
    assert (
        float(rows[-1]["val_loss"]) == found[-1]["loss"]
        and float(rows[-1]["iou_box"] or 0) == found[-1]["class_iou"]["box"]
    )
    assert float(rows[0]["train_loss"]) == next(r["loss"] for r in log if r["kind"] == "train" and r["step"] == 4)


def test_the_loss_of_a_validation_is_that_of_the_terms_on_the_main_output(tiny):
    plan = training_plan(settings.load(tiny), torch.device("cpu"), None)
    module = torch.nn.CrossEntropyLoss(ignore_index=255)
    terms = [("cross_entropy", module, 2.0, "main"), ("cross_entropy", module, 0.4, "aux")]
    criterion = evaluation.loss_of_main_output(CombinedLoss(terms))
    found = evaluation.evaluate(
        plan.model, plan.val_set, plan.validation, plan.normalisation, device=plan.device, criterion=criterion
    )
    expected = []
    plan.model.eval()
    with torch.no_grad():
        for image, target, _ in plan.val_set:
            x = normalise(torch.from_numpy(image).permute(2, 0, 1)[None], plan.normalisation)
            logits = forward(plan.model, x)[..., ::3, ::3]
            expected.append(
                2 * torch.nn.functional.cross_entropy(logits, torch.from_numpy(target)[None, ::3, ::3].long())
            )
    assert found.loss == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    assert evaluation.loss_of_main_output(CombinedLoss(terms[1:])) is None


def test_the_page_is_written_at_each_validation_and_at_last_no_longer_loads_itself(tiny, tmp_path, monkeypatch):
    told = []
    write = output.page.write_report
    monkeypatch.setattr(output.page, "write_report", lambda *a, **k: told.append(k.get("progress")) or write(*a, **k))
    assert train(tiny, tmp_path / "run") == 0
    assert told == [(4, 8), (8, 8), None]
    assert 'id="live"' not in (tmp_path / "run" / "report.html").read_text()


def test_testing_repeats_the_numbers_of_training(finished, tmp_path):
    during = json.loads((finished / "metrics.json").read_text())
    best = finished / "checkpoints" / "best.pt"
    assert test_command.main(["--checkpoint", str(best), "--out", str(tmp_path)]) == 0
    after = json.loads((tmp_path / "metrics.json").read_text())
    for key in ("miou", "pixel_accuracy", "classes", "miou_interval"):
        assert after[key] == during[key], key
    per_image = PerImage.load(tmp_path / "per_image.npz")
    assert miou(per_image.total(), "cityscapes") == pytest.approx(after["miou"], abs=1e-12)
    assert len(list((tmp_path / "images" / "val").glob("*.png"))) == 2


def test_the_way_of_looking_can_be_changed_for_testing(finished, tmp_path):
    best = finished / "checkpoints" / "best.pt"
    words = ["eval.mode=slide", "eval.window=[32, 32]", "eval.scales=[0.75, 1.0]", "eval.flip=true"]
    assert test_command.main([*words, "--checkpoint", str(best), "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] > 0.5


def test_a_folder_with_a_run_is_not_overwritten(finished, capsys):
    assert train_command.main([str(finished / "config.yaml"), f"run.dir={finished}"]) == 2
    assert "already contains a run" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_run(config_file, tmp_path):
    for name in ("a", "b"):
        assert train(config_file, tmp_path / name) == 0
    assert same_weights(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))


def test_the_number_of_workers_changes_nothing(config_file, tmp_path):
    for workers in (0, 2):
        assert train(config_file, tmp_path / str(workers), f"data.workers={workers}", "train.iterations=3") == 0
    assert same_weights(weights_of(tmp_path / "0"), weights_of(tmp_path / "2"))


def test_a_resumed_run_equals_one_that_was_never_stopped(config_file, tmp_path):
    words = ("train.ema=0.9", "train.accumulate=2")
    assert train(config_file, tmp_path / "whole", *words) == 0

    def stop_after_four(*args, **kwargs):
        result = training.training_step(*args, **kwargs)
        stop_after_four.calls += 1
        if stop_after_four.calls == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    stop_after_four.calls = 0
    folder = tmp_path / "stopped"
    training.train(settings.load(config_file, [f"run.dir={folder}", *words]), folder, step=stop_after_four)
    assert weights_of(folder)["step"] == 4
    assert train(config_file, folder, *words, resume="auto") == 0
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(folder)
    assert same_weights(whole, resumed) and same_weights(whole, resumed, "ema")
    logs = [without_times(read_log(path / "log.jsonl")) for path in (tmp_path / "whole", folder)]
    assert logs[0] == logs[1]


def test_accumulating_gives_the_gradient_of_the_whole_batch(config_file, tmp_path):
    """With batch norm in evaluation mode and plain cross entropy over equal counts, parts add up to the whole."""
    loss = "loss=[{name: cross_entropy, average: all}]"
    words = ("train.freeze_bn=true", "augment.crop=[47, 64]", "train.iterations=1", "optim.name=sgd", loss)
    for parts in (1, 4):
        assert train(config_file, tmp_path / str(parts), *words, f"train.accumulate={parts}") == 0
    a, b = (weights_of(tmp_path / str(parts))["model"] for parts in (1, 4))
    assert all(torch.allclose(a[k].double(), b[k].double(), atol=1e-6) for k in a)


def test_half_precision_and_clipping_run(config_file, tmp_path):
    for precision in ("bf16", "fp16"):
        words = (f"train.precision={precision}", "train.clip_norm=1.0", "train.iterations=2")
        assert train(config_file, tmp_path / precision, *words) == 0
        record = read_log(tmp_path / precision / "log.jsonl")[1]
        assert record["loss"] > 0
        assert record["grad_norm"] is not None or precision == "fp16"  # whose first steps overflow


def test_finetuning_starts_from_a_checkpoint_and_replaces_a_head_of_other_classes(
    finished, config_file, tmp_path, caplog
):
    best = finished / "checkpoints" / "best.pt"
    words = (f"model.weights={best}", "train.iterations=1", "train.freeze=[encoder]", "optim.head_lr=10")
    assert train(config_file, tmp_path / "tuned", *words) == 0
    start, tuned = weights_of(finished, "best.pt")["ema"], weights_of(tmp_path / "tuned")["model"]
    assert all(torch.equal(start[k], tuned[k]) for k in start if k.startswith("encoder."))
    assert not torch.equal(start["segmentation_head.conv.weight"], tuned["segmentation_head.conv.weight"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.arch=ocrr"], "no architecture 'ocrr'"),
        (["model.encoder=hrnetv2_w19"], "Did you mean 'hrnetv2_w18'"),
        (["model.encoder_weights=imagnet"], "Did you mean 'imagenet'"),
        (["model.align_corner=true"], "Did you mean 'align_corners'"),
        (["data.dataset=cityscape"], "Did you mean 'cityscapes'"),
        (["data.root=nowhere"], "nowhere"),
        (["loss.0.tresh=0.5"], "Did you mean 'thresh'"),
        (["loss.0.name=ohm"], "no loss 'ohm'"),
        (["optim.name=sdg"], "no optimizer 'sdg'"),
        (["optim.lr=-1"], "optim.lr"),
        (["train.batch_size=3", "train.accumulate=2"], "cannot be split evenly"),
        (["data.mean=[0.5]"], "has 1 entries, but the images have 3 channels"),
        (["train.freeze=[encoder.layer9]"], "no module 'encoder.layer9'"),
        (["run.device=cuda:99"], "cuda"),
        (["model.weights=missing.pt"], "no such file"),
        (["model.encoder=tu-resnett18"], "Did you mean 'resnet18'"),
        (["run.seed=-1"], "run.seed"),
        (["eval.scales=[]"], "eval.scales"),
        (["eval.definition=cityscape"], "eval.definition"),
        (["train.iterations=2022-99-99"], "train.iterations"),
        (["train.iterations=[2"], "not YAML"),
        (["data.input_range=[5, 5]"], "low below high"),
        (["data.dataset=os:path"], "is a module, not a class"),
        (["data.dataset=.os:path"], "not a dotted path"),
        (["run.device=meta"], "is not available"),
    ],
)
def test_wrong_settings_end_with_a_sentence(config_file, capsys, words, message):
    assert train_command.main([str(config_file), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_broken_data_is_told_before_weights_are_fetched(shapes, config_file, tmp_path, capsys, monkeypatch):
    root = shutil.copytree(shapes, tmp_path / "broken")
    (root / "masks" / "train" / "02.png").unlink()
    (root / "images" / "train" / "03.png").write_bytes(b"")
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(root / "masks" / "val" / "06.png")
    monkeypatch.setattr("hrseg.build.model", lambda *_, **__: pytest.fail("fetched first"))
    words = ["model.encoder_weights=imagenet", f"data.root={root}"]
    assert train_command.main([str(config_file), *words]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in ("02.png", "03.png", "06.png"))
    assert not (tmp_path / "run").exists()


def torchrun(processes, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_two_processes_train_together_and_count_each_image_once(config_file, tmp_path, finished):
    done = torchrun(
        2, "tools/train.py", config_file, "train.iterations=2", "train.val_every=2", f"run.dir={tmp_path}/two"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights_of(tmp_path / "two")["step"] == 2
    best = finished / "checkpoints" / "best.pt"
    done = torchrun(2, "tools/test.py", "--checkpoint", best, "--out", tmp_path / "scores")
    assert done.returncode == 0, done.stderr[-2000:]
    one = PerImage.load(finished / "per_image.npz")
    two = PerImage.load(tmp_path / "scores" / "per_image.npz")
    assert one.names == two.names and np.array_equal(one.total(), two.total())


def test_a_run_cannot_go_on_with_another_optimizer(config_file, tmp_path, capsys):
    assert train(config_file, tmp_path / "run", "train.iterations=1") == 0
    for word in ("optim.name=sgd", "optim.head_lr=10"):
        assert train(config_file, tmp_path / "run", "train.iterations=2", word, resume="auto") == 2
        assert "was changed since the checkpoint" in capsys.readouterr().err


def test_the_best_of_another_run_is_not_taken_over(finished, tmp_path):
    """A checkpoint beyond the end of the new run: nothing is left to train, and no best is claimed."""
    config = settings.load(finished / "config.yaml", [f"run.dir={tmp_path / 'new'}"])
    state = training.train(config, tmp_path / "new", resume=str(finished / "checkpoints" / "last.pt"))
    assert state.best["miou"] is None


def test_finetuning_takes_over_the_normalisation(finished, config_file, tmp_path):
    words = ("data.mean=[0.1, 0.2, 0.3]", "train.iterations=1")
    assert train(config_file, tmp_path / "first", *words) == 0
    first = tmp_path / "first" / "checkpoints" / "best.pt"
    assert train(config_file, tmp_path / "second", f"model.weights={first}", "train.iterations=1") == 0
    assert weights_of(tmp_path / "second")["normalisation"]["mean"] == [0.1, 0.2, 0.3]


def test_training_and_validation_images_must_be_of_one_kind(shapes, config_file, tmp_path, capsys):
    root = shutil.copytree(shapes, tmp_path / "mixed")
    for path in (root / "images" / "val").glob("*.png"):
        image = Image.open(path)
        image.putalpha(image.convert("L"))  # a band of its own, not transparency
        image.save(path)
    assert train_command.main([str(config_file), f"data.root={root}"]) == 2
    assert "split 'val': are 8-bit images of 4 channels; split 'train' takes 3" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "wide"), [("channels_last=true", True), ("channels_last=false", False)])
def test_on_the_cpu_batch_norms_over_few_channels_train_in_their_faster_form(config_file, change, wide):
    words = ["model.encoder=hrnetv2_w18_small_v2", f"train.{change}"]
    model = training_plan(settings.load(config_file, words), torch.device("cpu")).model
    assert any(isinstance(module, WideBatchNorm2d) for module in model.modules()) == wide


@pytest.mark.parametrize("arch", ["deeplabv3", "deeplabv3plus", "pan", "upernet"])
@pytest.mark.parametrize("words", [("train.batch_size=1",), ("train.batch_size=4", "train.accumulate=4")], ids=str)
def test_one_image_at_a_time_is_refused_where_a_batch_norm_would_see_one_value(
    config_file, tmp_path, capsys, arch, words
):
    common = (f"model.arch={arch}", "train.iterations=1", "augment.crop=[32, 32]")
    assert train(config_file, tmp_path / "run", *common, *words) == 2
    error = capsys.readouterr().err
    assert "train.batch_size" in error and "one value per channel" in error and "train.freeze_bn=true" in error
    assert not (tmp_path / "run").exists()


def test_one_image_at_a_time_trains_with_frozen_batch_norm_and_where_no_pooling_comes_before_one(config_file, tmp_path):
    common = ("train.iterations=1", "train.batch_size=1", "augment.crop=[64, 64]")
    frozen = ("model.arch=deeplabv3plus", "train.freeze_bn=true")
    assert train(config_file, tmp_path / "frozen", *common, *frozen) == 0
    assert train(config_file, tmp_path / "plain", *common) == 0
