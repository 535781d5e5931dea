"""tools/predict.py: images, folders and videos to segmentations."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hrseg.commands import predict
from hrseg.errors import DataError, HrsegError
from hrseg.predict.input_files import find_inputs
from hrseg.predict.predictor import Predictor
from hrseg.report.png import PngWriter
from tests.conftest import ROOT
from tests.shapes import COLORS, save_checkpoint

SIZE = (64, 96)


def drawn(seed):
    return np.asarray(
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(SIZE[::-1])
    )


def place(folder, *names):
    """Pictures of these names, each another one."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(number)).save(folder / name)
    return folder


def video(path, frames=5, size=(96, 64), rate=10):
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    for number in range(frames):
        writer.write(np.roll(drawn(3), 4 * number, axis=1)[:, :, ::-1].copy())
    writer.release()
    return path


@pytest.fixture
def run(saved, tmp_path):
    """The command with the tiny network on the CPU, its results in tmp_path/out."""
    return lambda *words: predict.main(["--checkpoint", str(saved), "--out", str(tmp_path / "out"), *map(str, words)])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_keeps_its_names_and_sub_folders(run, saved, tmp_path):
    folder = place(tmp_path / "in", "a.png", "sub/deep/b.png", ".hidden.png")
    (folder / "notes.txt").write_text("no picture")
    assert run(folder) == 0
    expected = {f"{kind}/{name}.png" for kind in ("ids", "colors", "overlay") for name in ("a", "sub/deep/b")}
    assert files(tmp_path / "out") == expected | {"classes.json", "legend.png"}
    labels = Predictor(saved, "cpu")(folder / "sub/deep/b.png").labels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/ids/sub/deep/b.png")), labels)
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())["classes"]
    assert [c["name"] for c in classes] == ["ground", "box", "disc"]


def test_pictures_of_one_size_go_together_and_others_between_them_change_nothing(run, tmp_path):
    folder = place(tmp_path / "in", "a.png", "b.png", "d.png")
    Image.fromarray(drawn(7)[:50]).save(folder / "c.png")
    assert run(folder, "--batch", "2") == 0
    alone = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out" / "ids").iterdir()}
    assert run(folder, "--out", tmp_path / "one") == 0
    for name, labels in alone.items():
        assert (np.asarray(Image.open(tmp_path / "one" / "ids" / name)) == labels).mean() > 0.999


def test_one_stem_with_two_endings_gives_two_results_also_one_by_one(run, tmp_path):
    folder = place(tmp_path / "in", "a.png", "a.jpg")
    assert run(folder) == 0
    assert files(tmp_path / "out" / "ids") == {"a.png.png", "a.jpg.png"}
    assert run(folder / "a.png", "--out", tmp_path / "single") == 0
    assert run(folder / "a.jpg", "--out", tmp_path / "single") == 0
    assert files(tmp_path / "single" / "ids") == {"a.png", "a.jpg.png"}


def test_names_never_leave_the_folder_and_never_meet(tmp_path, monkeypatch):
    place(tmp_path, "x/a.png", "y/a.png", "work/b.png", "y/a.jpg")
    monkeypatch.chdir(tmp_path / "work")
    out = tmp_path / "out"
    names = lambda *words: [i.name for i in find_inputs(words, [], out)]  # noqa: E731
    assert names("../x/a.png", "b.png") == ["x/a", "work/b"]
    assert names(str(tmp_path / "x" / "a.png")) == ["a"]
    assert names("../x", "../y") == ["x/a.png", "a.jpg", "y/a.png"]
    assert names("../*/*.png") == ["work/b", "x/a", "y/a"]
    assert names("../x", "../x/a.png") == ["a"]
    listed = find_inputs(["-"], ["../x/a.png\n", "\n", "../work\n"], out)
    assert [i.name for i in listed] == ["a", "b"]


def test_what_an_earlier_run_left_is_no_input(run, tmp_path):
    place(tmp_path / "in", "a.png")
    assert run(tmp_path / "in", "--out", tmp_path / "in" / "out") == 0
    assert run(tmp_path / "in", "--out", tmp_path / "in" / "out") == 0
    assert files(tmp_path / "in" / "out" / "ids") == {"a.png"}


def test_a_broken_file_among_good_ones_is_told_at_the_end_and_the_others_are_done(run, tmp_path, capsys):
    folder = place(tmp_path / "in", "a.png", "b.png", "c.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-300])
    (folder / "d.jpg").write_bytes(b"no picture at all, but long enough")
    assert run(folder, folder / "gone.png") == 2
    assert files(tmp_path / "out" / "overlay") == {"a.png", "c.png"}
    told = capsys.readouterr().err
    assert all(f"{name}: " in told for name in ("b.png", "d.jpg", "gone.png")) and "3 of 5 were left out" in told


def test_a_broken_off_folder_goes_on_where_it_was(run, tmp_path, capsys, monkeypatch):
    folder = place(tmp_path / "in", "a.png", "b.png", "c.png")
    assert run(folder) == 0
    out = tmp_path / "out"
    (out / "ids" / "b.png").unlink()  # as if broken off: the indices are written last
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert run(folder) == 0
    assert "1 image predicted, 2 were there already" in capsys.readouterr().out
    changed = {name for name in files(out) if before.get(name) != (out / name).stat().st_mtime_ns}
    assert changed == {"ids/b.png", "colors/b.png", "overlay/b.png", "classes.json", "legend.png"}


@pytest.mark.parametrize("change", ["file", "weights", "views"])
def test_what_was_made_of_something_else_is_made_anew(change, run, saved, tmp_path, capsys):
    folder = place(tmp_path / "in", "a.png")
    words = ["--out", str(tmp_path / "out"), str(folder)]
    assert predict.main(["--checkpoint", str(saved), *words]) == 0
    other = saved
    if change == "file":
        Image.fromarray(drawn(9)).save(folder / "a.png")
    elif change == "weights":
        other = save_checkpoint(tmp_path / "other.pt", seed=5)
    capsys.readouterr()
    assert predict.main(["--checkpoint", str(other), *(["--flip"] if change == "views" else []), *words]) == 0
    assert "1 image predicted: " in capsys.readouterr().out
    labels = Predictor(other, "cpu", flip=change == "views")(folder / "a.png").labels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "ids" / "a.png")), labels)


def test_a_picture_that_is_not_ours_is_not_written_over(run, tmp_path, capsys):
    folder = place(tmp_path / "in", "a.png")
    place(tmp_path / "out" / "ids", "a.png", "a.png.png")
    assert run(folder) == 2
    assert "is the result of something else" in capsys.readouterr().err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "ids" / "a.png")), drawn(0))


def test_a_legend_says_what_the_colours_mean_and_replaces_no_picture_of_that_name(run, tmp_path, capsys):
    folder = place(tmp_path / "in", "a.png")
    assert run(folder) == run(folder) == 0
    legend = np.asarray(Image.open(tmp_path / "out" / "legend.png"))
    assert set(COLORS.values()) <= set(map(tuple, legend.reshape(-1, 3).tolist()))
    Image.fromarray(drawn(1)).save(tmp_path / "out" / "legend.png")
    assert run(folder) == 2
    assert "is not a legend of hrseg" in capsys.readouterr().err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "legend.png")), drawn(1))


def test_pictures_and_videos_are_counted_by_their_own_names(run, tmp_path, capsys):
    folder = place(tmp_path / "in", "a.png", "b.png")
    video(folder / "street.mp4")
    assert run(folder) == 0
    assert f"2 images and 1 video predicted: {tmp_path / 'out'}" in capsys.readouterr().out


def test_a_full_disk_ends_the_run_with_a_message_and_half_a_file_nowhere(run, tmp_path, capsys, monkeypatch):
    folder = place(tmp_path / "in", "a.png")

    write = PngWriter.write

    def full(self, rows):
        if self.path.name == "legend.png":
            return write(self, rows)
        raise HrsegError(self.path, "cannot be written: No space left on device.")

    monkeypatch.setattr("hrseg.report.png.PngWriter.write", full)
    assert run(folder) == 2
    assert "No space left" in capsys.readouterr().err
    assert not files(tmp_path / "out")


def test_a_large_picture_goes_through_tiles_into_the_same_files(run, saved, tmp_path):
    image = np.asarray(Image.fromarray(drawn(0)).resize((300, 290)))
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "large.png")
    assert run(tmp_path / "in", "--tile", "128", "--probabilities") == 0
    expected = Predictor(saved, "cpu", tile=128)(image, probabilities=True)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/ids/large.png")), expected.labels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/overlay/large.png")), np.asarray(expected.overlay()))
    kept = np.load(tmp_path / "out/probabilities/large.npz")["probabilities"]
    assert np.allclose(kept.transpose(2, 0, 1), expected.probabilities, atol=1e-3)


def test_a_video_gives_a_video_of_as_many_frames_and_indices_of_each(run, tmp_path, capsys):
    path = video(tmp_path / "street.mp4")
    assert run(path, "--frames", "--batch", "2") == 0
    given = cv2.VideoCapture(str(tmp_path / "out" / "overlay" / "street.mp4"))
    assert given.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and given.get(cv2.CAP_PROP_FPS) == 10
    assert given.read()[1].shape == (64, 96, 3)
    assert files(tmp_path / "out" / "ids") == {f"street/{number:06}.png" for number in range(5)}
    about = json.loads((tmp_path / "out" / "overlay" / "street.json").read_text())
    assert about["frames"] == 5 and sum(about["shares"].values()) == pytest.approx(1)
    assert run(path, "--frames") == 0
    assert "nothing predicted, 1 was there already" in capsys.readouterr().out


def test_a_video_that_cannot_be_read_is_a_problem_among_others(run, tmp_path, capsys):
    folder = place(tmp_path / "in", "a.png")
    (folder / "b.mp4").write_bytes(b"no film" * 100)
    assert run(folder) == 2
    assert "b.mp4: cannot be read as a video" in capsys.readouterr().err
    assert files(tmp_path / "out") == {"ids/a.png", "colors/a.png", "overlay/a.png", "classes.json", "legend.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nothing/*.png"], "matches no file"), (["."], "holds no image"), (["-"], "names no image")],
)
def test_inputs_that_are_nothing_are_told_at_once(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        find_inputs(words, [], tmp_path / "out")


def test_a_list_comes_by_standard_input(run, tmp_path, monkeypatch):
    folder = place(tmp_path / "in", "a.png", "b c.png")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder / 'b c.png'}\n"))
    assert run("-") == 0
    assert files(tmp_path / "out" / "ids") == {"b c.png"}


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are Unicode there")
def test_names_that_are_long_or_no_unicode_are_kept(run, tmp_path, capsys):
    folder = place(tmp_path / "in", "a" * 250 + ".png", "b.png")
    os.rename(os.fsencode(folder / "b.png"), os.fsencode(folder) + b"/b\xff <b>.png")  # noqa: PTH104
    assert run(folder) == 0
    assert run(folder) == 0
    assert "2 were there already" in capsys.readouterr().out
    assert {os.fsencode(n) for n in files(tmp_path / "out" / "ids")} == {b"a" * 250 + b".png", b"b\xff <b>.png"}


def test_two_processes_share_the_work(saved, tmp_path):
    folder = place(tmp_path / "in", *(f"{number}.png" for number in range(5)))
    (folder / "broken.png").write_bytes(b"broken")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "tools/predict.py",
               "--checkpoint", str(saved), "--device", "cpu", "--out", str(tmp_path / "out"), str(folder)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0 and "broken.png: " in done.stderr
    assert "5 images predicted: " in done.stdout
    assert files(tmp_path / "out" / "ids") == {f"{number}.png" for number in range(5)}


MEASURE = """
import resource, sys
import torch
from pathlib import Path
from hrseg.commands import predict
from hrseg.predict import predictor

class Cheap(torch.nn.Module):  # the memory around a network, not that of one
    def forward(self, x):
        return torch.cat([x[:, :1] * k for k in range(19)], 1)

class Shown(predictor.Predictor):
    def __init__(self, *words, **named):
        super().__init__(*words, **named)
        self.network = Cheap()
        self.logits(torch.zeros(1, 3, 1024, 1024))
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        type(self).last = self

predictor.Predictor = Shown
code = predict.main(sys.argv[1:])
print(code, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - Shown.last.before) / 2**20)
"""


@pytest.mark.long
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_400_million_pixels_need_less_than_4_gib_above_the_model(ending, saved, tmp_path, monkeypatch):
    import tifffile

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # of Pillow, which is asked here for the size of the answer

    side = int(os.environ.get("HRSEG_LARGE_SIDE", "20000"))
    path = tmp_path / f"large.{ending}"
    row = np.linspace(0, 255, side * 3).astype(np.uint8).reshape(1, side, 3)
    if ending == "tif":
        tiles = (np.broadcast_to(row[:, :256], (256, 256, 3)) for _ in range((-(-side // 256)) ** 2))
        tifffile.imwrite(path, tiles, shape=(side, side, 3), dtype=np.uint8, tile=(256, 256), compression="zlib",
                         photometric="rgb")  # fmt: skip
    else:
        Image.fromarray(np.broadcast_to(row, (side, side, 3))).save(path)
    names = tmp_path / "names.pt"
    save_checkpoint(names, names=tuple(f"class {k}" for k in range(19)))
    words = ["--checkpoint", str(names), "--device", "cpu", "--out", str(tmp_path / "out"), str(path)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    code, gib = done.stdout.split()[-2:]
    print(f"{ending}: {float(gib):.2f} GiB above the model")
    assert code == "0" and float(gib) < 4
    with Image.open(tmp_path / "out" / "ids" / "large.png") as ids:
        assert ids.size == (side, side)


def test_the_limits_in_the_help_are_those_of_the_code():
    from hrseg.commands import predict as command
    from hrseg.data.images import large_images

    assert (command.MAX_PIXELS, command.TILE) == (large_images.MAX_PIXELS, large_images.TILE)
