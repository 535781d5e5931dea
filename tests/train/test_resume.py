"""A run that is stopped, however and whenever, goes on as if nothing had happened."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hrseg import distributed
from hrseg.commands import train as train_command
from hrseg.errors import DataError, WeightsError
from hrseg.train import loop as training
from hrseg.train import output
from hrseg.train import resume as resumption
from hrseg.train.run import Run
from hrseg.weights import checkpoint
from tests.conftest import ROOT
from tests.processes import (
    Training,
    assert_same_run,
    checkpoint_of,
    differences,
    last_step,
    tools_train,
    wait_for_step,
)

SEED = int(os.environ.get("HRSEG_KILL_SEED", "0"))  # of the random moments


class Unbroken:
    """Runs that were never stopped, one for each choice of settings and processes."""

    def __init__(self, config, folder):
        self.config, self.folder, self.done = config, folder, {}

    def __call__(self, settings=(), processes=1):
        key = (*settings, processes)
        if key not in self.done:
            folder = self.folder / str(len(self.done))
            run = Training([self.config, *settings, f"run.dir={folder}"], folder.with_suffix(".txt"), processes)
            assert run.wait() == [0] * processes, run.said()
            self.done[key] = folder
        return self.done[key]


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    return Unbroken(tiny, tmp_path_factory.mktemp("unbroken"))


class DieAtReplace:
    """Ends the process by kill -9 at its n-th renaming of a file, before or after it: in the middle of saving."""

    def __init__(self, number, after):
        self.number, self.after = number, after

    def __call__(self):
        replace = Path.replace

        def counted(path, target):
            self.number -= 1
            if self.number == 0 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = replace(path, target)
            if self.number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        Path.replace = counted


def stop_and_go_on(words, folder, processes, stops, rng, longest_s=0.3):
    """Stop a run in each way in turn, at a random moment after its next iteration, and let it end at last.

    stops: numbers of signals, or "saving". Returns how many of them met a running process, and all that was said.
    """
    words = [*words, f"run.dir={folder}", "--resume"]
    met, output = 0, folder.with_suffix(".txt")
    for stop in stops:
        saving = stop == "saving"
        prepare = DieAtReplace(rng.randint(1, 7), rng.random() < 0.5) if saving else None
        run = Training(words, output, processes, prepare)
        if not saving:
            wait_for_step(run, folder, last_step(folder) + 1)
            time.sleep(rng.uniform(0, longest_s))
            met += run.alive
            run.signal(stop)
        codes = run.wait()
        met += saving and -signal.SIGKILL in codes
        # 1: a process that noticed that another was killed.
        assert set(codes) <= ({0, 1, -signal.SIGKILL} if stop in ("saving", signal.SIGKILL) else {0}), run.said()
    run = Training(words, output, processes)
    assert run.wait() == [0] * processes, run.said()
    return met, run.said()


EVERYTHING = ("train.ema=0.9", "train.accumulate=2", "train.precision=bf16")


def test_a_run_stopped_by_any_signal_ends_like_one_that_was_not(tiny, unbroken, tmp_path):
    stops = [signal.SIGKILL, signal.SIGTERM, "saving", signal.SIGINT]
    met, said = stop_and_go_on([tiny, *EVERYTHING], tmp_path / "run", 1, stops, random.Random(SEED))
    assert met >= 3 and re.search(r"Stopped after iteration \d of 8\. Continue with: tools/train\.py .* --resume", said)
    assert_same_run(unbroken(EVERYTHING), tmp_path / "run")


def test_two_processes_with_workers_that_are_stopped_end_like_two_that_are_not(tiny, unbroken, tmp_path):
    stops = [signal.SIGKILL, signal.SIGTERM]
    settings = EVERYTHING[:2]
    met, _ = stop_and_go_on([tiny, *settings, "data.workers=2"], tmp_path / "run", 2, stops, random.Random(SEED))
    assert met == 2
    assert_same_run(unbroken(settings, 2), tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [(), EVERYTHING[:1], EVERYTHING[1:2], EVERYTHING[2:], ("train.precision=fp16",), EVERYTHING],
    ids=["plain", "ema", "accumulate", "bf16", "fp16", "everything"],
)
def test_stops_at_random_moments_change_nothing(tiny, unbroken, tmp_path, settings, processes, workers):
    settings = (*settings, f"train.batch_size={4 if processes == 2 else 6}")
    seed = f"{SEED} {settings} {processes} {workers}"
    print("seed:", seed)
    stops = [signal.SIGKILL, signal.SIGKILL, "saving", signal.SIGTERM, signal.SIGINT]
    rng = random.Random(seed)
    rng.shuffle(stops)
    words = [tiny, *settings, f"data.workers={workers}", "train.checkpoint_every=1"]
    met, _ = stop_and_go_on(words, tmp_path / "run", processes, stops, rng)
    print("stops that met a running process:", met)
    assert met >= 2
    assert_same_run(unbroken((*settings, "train.checkpoint_every=1"), processes), tmp_path / "run")


def test_a_validation_is_abandoned_and_done_again(tiny, unbroken, tmp_path, monkeypatch, capsys):
    evaluate, stops = output.evaluate, iter([True, True, False, True, False])

    def interrupted(*args, on_prediction, **kwargs):
        stopping = next(stops)

        def stop_at(index, prediction):
            if not stopping:
                return on_prediction(index, prediction)
            assert index == 0, "the validation went on"
            os.kill(os.getpid(), signal.SIGTERM)

        return evaluate(*args, on_prediction=stop_at, **kwargs)

    words = [str(tiny), *EVERYTHING, f"run.dir={tmp_path / 'run'}", "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(output, "evaluate", interrupted)
        assert train_command.main(words) == 0
        assert "Stopped after iteration 4 of 8. Continue with: tools/train.py" in capsys.readouterr().out
        assert train_command.main(words) == 0  # the same again, at the same place
        assert "Stopped after iteration 4 of 8" in capsys.readouterr().out
        assert train_command.main(words) == 0  # and in the last one, after which no iteration comes
        assert "Stopped after iteration 8 of 8" in capsys.readouterr().out
        assert train_command.main(words) == 0
    assert_same_run(unbroken(EVERYTHING), tmp_path / "run")


def test_a_stop_before_the_first_iteration_ends_at_once(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Run, "__init__", lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM))
    assert train_command.main([str(tiny), f"run.dir={tmp_path / 'run'}"]) == 0
    assert "Nothing is lost" in capsys.readouterr().out and not (tmp_path / "run").exists()


def state(step):
    return {
        "model": {"weight": torch.full((100,), float(step))},
        "step": step,
        **dict.fromkeys(("config", "classes", "normalisation", "task")),
    }


def test_whenever_saving_is_killed_a_whole_checkpoint_is_there(tmp_path):
    """At every system call of saving, over a run's first three checkpoints."""
    for number in range(1, 100):
        folder = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            calls = iter(range(1, number + 1))

            def die_at_last(event, _arguments, calls=calls):
                if event in ("open", "os.rename", "os.remove", "os.mkdir") and next(calls, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(die_at_last)
            for step in (1, 2, 3):
                checkpoint.save(folder / "last.pt", state(step), keep_previous=True)
                (folder / f"saved_{step}").mkdir()
            os._exit(0)
        _, code = os.waitpid(child, 0)
        saved = max((int(path.name[6:]) for path in folder.glob("saved_*")), default=0)
        found = resumption.latest_checkpoint(folder)
        assert (found.saved["step"] if found else 0) >= saved, number
        if code == 0:
            break
    assert number >= 15  # that many moments were tried, and then it ran through


def test_a_damaged_checkpoint_is_found_out_wherever_it_is_damaged(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1))
    whole, rng = path.read_bytes(), random.Random(SEED)
    print("seed:", SEED)
    seen = 0
    for _ in range(200):
        kind = rng.choice(["cut", "flip", "zeros"])
        damaged = bytearray(whole)
        place = rng.randrange(len(whole))
        if kind == "cut":
            del damaged[place:]
        elif kind == "flip":
            damaged[place] ^= 1 << rng.randrange(8)
        else:
            damaged[place : place + 64] = bytes(len(damaged[place : place + 64]))
        path.write_bytes(damaged)
        try:
            assert differences(checkpoint.load(path), {"format": 1, **state(1)}) == []  # in padding, it does no harm
        except WeightsError as error:
            assert str(path) in str(error)
            seen += 1
    assert seen > 100


@pytest.fixture
def half_way(unbroken, tmp_path):
    """A copy of an unbroken run, with its last checkpoint at the end and the one before at iteration 6."""
    return Path(shutil.copytree(unbroken(EVERYTHING), tmp_path / "run"))


def test_an_older_checkpoint_is_used_and_named_where_the_last_is_damaged(tiny, half_way, unbroken, capsys, caplog):
    last = half_way / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert train_command.main([str(tiny), *EVERYTHING, f"run.dir={half_way}", "--resume"]) == 0
    assert f"{last}: " in caplog.text and "previous.pt, iteration 6" in caplog.text
    assert "continuing after iteration 6 of 8" in capsys.readouterr().out
    assert_same_run(unbroken(EVERYTHING), half_way)


def test_where_all_checkpoints_are_damaged_nothing_is_overwritten(tiny, half_way, capsys):
    for path in (half_way / "checkpoints").iterdir():
        path.write_bytes(b"PK")
    log = (half_way / "log.jsonl").read_bytes()
    assert train_command.main([str(tiny), *EVERYTHING, f"run.dir={half_way}", "--resume"]) == 2
    assert "No older checkpoint is sound" in capsys.readouterr().err
    assert (half_way / "log.jsonl").read_bytes() == log


def test_a_full_disk_is_told_and_leaves_the_older_checkpoint(tiny, tmp_path, unbroken, capsys):
    words = [str(tiny), *EVERYTHING, f"run.dir={tmp_path / 'run'}", "--resume"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up_after_first(run, *args, **kwargs):
        if run.state.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # files of more than 1 MiB cannot be written
        return iterate(run, *args, **kwargs)

    iterate = training.iterate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "iterate", fill_up_after_first)
        try:
            assert train_command.main(words) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err.partition("error: ")[2]
    assert "best.pt: cannot be written: File too large" in error and "then continue with --resume" in error
    assert not list((tmp_path / "run").rglob("*.tmp*"))
    assert checkpoint_of(tmp_path / "run")["step"] == 3
    assert train_command.main(words) == 0
    assert_same_run(unbroken(EVERYTHING), tmp_path / "run")


def test_a_full_disk_is_told_by_the_log_too(tiny, tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        assert train_command.main([str(tiny), f"run.dir={tmp_path / 'run'}"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written: File too large" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", Path("/proc/run")):
        assert train_command.main([str(tiny), f"run.dir={folder}"]) == 2
        error = capsys.readouterr().err
        assert f"error: {folder}: cannot be written" in error and "Traceback" not in error


def test_a_resumed_run_says_which_settings_changed(tiny, half_way, capsys):
    words = ["optim.lr=0.001", "augment.crop=[32, 32]", "train.iterations=9", "loss.0.min_kept=0.3"]
    assert train_command.main([str(tiny), *EVERYTHING, *words, f"run.dir={half_way}", "--resume"]) == 0
    said = capsys.readouterr().out
    lines = ["augment.crop: [32, 64] -> [32, 32]", "loss.0.min_kept: 0.2 -> 0.3", "optim.lr: 0.003 -> 0.001",
             "train.iterations: 8 -> 9"]  # fmt: skip
    assert "settings that are not as they were:\n  " + "\n  ".join(lines) + "\n12 training" in said


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.encoder=hrnetv2_w18_small_v2", "model.encoder: hrnetv2_w18_small_v1 -> hrnetv2_w18_small_v2"),
        ("model.arch=ocrnet", "model.arch: hrnetv2 -> ocrnet"),
        ("model.align_corners=true", "model.align_corners: None -> True"),
        ("data.task=multilabel", "data.task: multiclass -> multilabel"),
        ("data.dataset=camvid", "data.dataset: folder -> camvid"),
        ("data.val_split=train", "data.val_split: val -> train"),
        ("data.classes=[{name: ground}, {name: disc}]", "data.classes"),
        ("data.mean=[0.1, 0.2, 0.3]", "data.mean: None -> [0.1, 0.2, 0.3]"),
    ],
)
def test_a_run_does_not_go_on_with_another_meaning(tiny, half_way, capsys, word, message):
    before = {path: path.read_bytes() for path in half_way.rglob("*") if path.is_file()}
    assert train_command.main([str(tiny), *EVERYTHING, word, f"run.dir={half_way}", "--resume"]) == 2
    error = capsys.readouterr().err
    assert message in error and "model.weights=PATH" in error
    assert before == {path: path.read_bytes() for path in half_way.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "classes.yaml").write_text("[ground, crate]"), "gone: box; new: crate"),
        (
            lambda root: [next((root / part / "train").iterdir()).unlink() for part in ("images", "masks")],
            "12 and 3 then, 11 and 3 now",
        ),
    ],
)
def test_a_run_does_not_go_on_with_other_classes_or_fewer_images(tiny, half_way, tmp_path, capsys, change, message):
    root = Path(shutil.copytree(tiny.parent, tmp_path / "moved"))
    words = [str(tiny), *EVERYTHING, f"data.root={root}", f"run.dir={half_way}", "--resume"]
    assert train_command.main(words) == 0  # a moved data set is the same one
    assert f"data.root: {tiny.parent} -> {root}" in capsys.readouterr().out
    change(root)
    assert train_command.main(words) == 2
    assert message in capsys.readouterr().err


def test_another_runs_checkpoint_does_not_go_on_in_a_folder_that_holds_a_run(tiny, half_way, tmp_path, capsys):
    other = Path(shutil.copytree(half_way, tmp_path / "other")) / "checkpoints" / "last.pt"
    words = [str(tiny), *EVERYTHING, f"run.dir={half_way}", "--resume", str(other)]
    assert train_command.main(words) == 2
    assert f"already contains a run, and {other} is not part of it" in capsys.readouterr().err


def test_a_run_that_went_back_to_an_older_checkpoint_goes_on_from_there(tiny, half_way, monkeypatch):
    """Also if it is killed before its next checkpoint: the newer one, of the future it left, is not taken."""
    monkeypatch.setattr(training, "iterate", lambda *args: pytest.fail("killed"))
    words = [str(tiny), *EVERYTHING, f"run.dir={half_way}", "--resume"]
    with pytest.raises(pytest.fail.Exception):
        train_command.main([*words, str(half_way / "checkpoints" / "previous.pt")])
    assert checkpoint_of(half_way)["step"] == 6 and last_step(half_way) == 6


class Fails:
    """In one process at one iteration: raises an error or kills the process; only once if a marker is given."""

    def __init__(self, rank, step, error=None, marker=None):
        self.rank, self.step, self.error, self.marker = rank, step, error, marker

    def __call__(self):
        iterate = training.iterate

        def failing(run, *args):
            if (distributed.rank(), run.state.step) == (self.rank, self.step) and not (
                self.marker and self.marker.exists()
            ):
                if self.marker:
                    self.marker.touch()
                if self.error:
                    raise self.error
                os.kill(os.getpid(), signal.SIGKILL)
            return iterate(run, *args)

        training.iterate = failing


def elastic(processes, restarts, *arguments):
    """What torchrun --standalone does, around a function."""
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        max_restarts=restarts,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        monitor_interval=0.1,
        start_method="forkserver",
    )
    return elastic_launch(launch, tools_train)(*arguments)


def test_a_process_that_dies_ends_the_run_with_its_reason(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    start, output = time.monotonic(), tmp_path / "said.txt"
    words = [str(tiny), "train.batch_size=6", f"run.dir={tmp_path / 'run'}"]
    fails = Fails(2, 4, DataError("bad.png", "is broken.", "Mend it."))
    with pytest.raises(ChildFailedError) as caught:
        elastic(3, 0, words, {}, str(output), fails)
    rank, failure = caught.value.get_first_failure()
    assert (rank, failure.exitcode) == (2, 2)
    said = output.read_text()
    assert "error: process 2: bad.png: is broken. Mend it." in said and "Traceback" not in said
    assert time.monotonic() - start < distributed.PATIENCE.total_seconds() / 3


def test_a_restarted_run_goes_on_by_itself(tiny, unbroken, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    output, settings = tmp_path / "said.txt", EVERYTHING[:2]
    words = [str(tiny), *settings, f"run.dir={tmp_path / 'run'}"]
    elastic(2, 1, words, {}, str(output), Fails(1, 5, marker=tmp_path / "died"))
    assert (tmp_path / "died").exists() and "continuing after iteration 3 of 8" in output.read_text()
    assert_same_run(unbroken(settings, 2), tmp_path / "run")


@pytest.mark.long
def test_torchrun_restarts_a_run_whose_process_was_killed(tiny, unbroken, tmp_path):
    """And where none are left, a kill ends it with the reason."""
    settings, folder = EVERYTHING[:2], tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    words = ["tools/train.py", str(tiny), *settings, "train.checkpoint_every=1", f"run.dir={folder}"]
    output = (tmp_path / "said.txt").open("w")
    run = subprocess.Popen([*command, *words], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    for step in (2, 4):
        while last_step(folder) < step and run.poll() is None:
            time.sleep(0.01)
        victim = subprocess.check_output(["pgrep", "--parent", str(run.pid), "--newest"], text=True)
        os.kill(int(victim), signal.SIGKILL)
    assert run.wait(timeout=300) == 1
    said = (tmp_path / "said.txt").read_text()
    assert "continuing after iteration" in said and re.search(r"Signal 9 \(SIGKILL\)", said)

    done = subprocess.run([*command, *words, "--resume"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same_run(unbroken((*settings, "train.checkpoint_every=1"), 2), folder)
