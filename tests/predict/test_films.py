"""Films play where people look at them, as long as their source and with its sound."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from hrseg.errors import HrsegError
from hrseg.predict import films
from hrseg.predict.input_files import find_inputs
from hrseg.predict.outputs import Outputs
from hrseg.predict.predictor import Predictor
from hrseg.predict.tally import Tally
from hrseg.predict.videos import predict_video

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'hrseg[video]'")
RATE = Fraction(30000, 1001)


def source(path, codec="libx264", sound="aac", frames=12, size=(32, 64)):
    """A film that grows brighter, with a tone of 440 Hz, or none."""
    with av.open(str(path), "w") as file:
        seen = file.add_stream(codec, rate=RATE)
        seen.height, seen.width, seen.pix_fmt = *size, "yuv420p"
        heard = file.add_stream(sound, rate=48000) if sound else None
        for number in range(frames):
            picture = np.full((*size, 3), 20 * number, np.uint8)
            file.mux(seen.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(seen.encode(None))
        if heard:
            tone = 8000 * np.sin(np.arange(int(48000 * frames / RATE)) * 2 * np.pi * 440 / 48000)
            piece = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 48000, 0, Fraction(1, 48000)
            file.mux(heard.encode(piece))
            file.mux(heard.encode(None))
    return path


@pytest.fixture(scope="module")
def predictor(saved):
    return Predictor(saved, "cpu")


def predicted(predictor, path, out):
    """The film that tools/predict.py leaves of another, and what it says about it."""
    (one,) = find_inputs([str(path)], [], out)
    tally = Tally(np.zeros(len(predictor.space.classes), np.int64))
    predict_video(predictor, one, Outputs(out, "these weights"), 4, tally, quiet=True)
    about = json.loads((out / "overlay" / f"{path.stem}.json").read_text())["film"]
    assert f"film written as {about}" in tally.notes
    (film,) = (path for path in (out / "overlay").iterdir() if path.suffix != ".json")
    return film, about


@pytest.mark.parametrize(
    ("name", "codec", "sound", "heard"),
    [
        ("a.mp4", "libx264", "aac", "aac"),
        ("b.webm", "libvpx-vp9", "libopus", "aac"),
        ("c.avi", "mpeg4", "pcm_s16le", "aac"),
        ("d.mkv", "libx264", "libmp3lame", "mp3"),
    ],
)
def test_a_film_is_h264_and_keeps_length_and_sound(predictor, tmp_path, name, codec, sound, heard):
    path = source(tmp_path / name, codec, sound)
    film, about = predicted(predictor, path, tmp_path / "out")
    assert film.suffix == ".mp4" and about == "H.264 in MP4, with its sound"
    with av.open(str(film)) as given:
        video, audio = given.streams.video[0], given.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.codec.canonical_name) == ("h264", heard)
        times = [float(frame.pts * video.time_base) for frame in given.decode(video)]
    assert np.allclose(times, np.arange(12) / float(RATE), atol=0.002)
    with av.open(str(film)) as given:
        pieces = list(given.decode(audio=0))
    assert sum(piece.samples for piece in pieces) / 48000 == pytest.approx(12 / RATE, abs=0.1)
    levels = [np.abs(piece.to_ndarray().astype(float)).max() for piece in pieces]
    assert max(levels) > (0.1 if pieces[0].format.name.startswith("flt") else 3000)  # the tone, not silence


def test_a_film_without_sound_gets_none_and_an_odd_side_a_pixel_more(tmp_path):
    path = source(tmp_path / "a.mp4", sound=None)
    film = films.open_film(tmp_path / "odd.mp4", path, (31, 63), 25.0)
    film.write(np.full((31, 63, 3), 200, np.uint8), 0.0)
    assert film.close() == "H.264 in MP4, its source has no sound"
    with av.open(str(tmp_path / "odd.mp4")) as given:
        assert not given.streams.audio
        (frame,) = given.decode(video=0)
    assert frame.to_ndarray(format="rgb24").shape == (32, 64, 3)
    assert (frame.to_ndarray(format="rgb24") > 180).all()  # the row and the column that were added too


def test_without_pyav_a_film_is_vp9_in_webm_and_says_so(predictor, tmp_path, monkeypatch):
    path = source(tmp_path / "a.mp4")
    for module in ("hrseg.predict.films", "hrseg.predict.outputs"):
        monkeypatch.setattr(f"{module}.film_ending", lambda: ".webm")
    film, about = predicted(predictor, path, tmp_path / "out")
    assert film.suffix == ".webm" and "VP9 in WebM, without sound" in about and "hrseg[video]" in about
    with av.open(str(film)) as given:
        assert given.streams.video[0].codec_context.name == "vp9"
        assert len(list(given.decode(video=0))) == 12


def test_a_film_that_cannot_be_written_is_told(tmp_path):
    path = source(tmp_path / "a.mp4")
    with pytest.raises(HrsegError, match=r"cannot be written.*another --out"):
        films.open_film(tmp_path / "nowhere" / "b.mp4", path, (32, 64), 25.0).close()


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_film_plays_in_a_browser(chromium, predictor, tmp_path, monkeypatch, ending):
    for module in ("hrseg.predict.films", "hrseg.predict.outputs"):
        monkeypatch.setattr(f"{module}.film_ending", lambda: ending)
    film, _ = predicted(predictor, source(tmp_path / "a.mp4"), tmp_path / "out")
    (tmp_path / "page.html").write_text(f"<video muted src='out/overlay/{film.name}'></video>")
    tab = chromium.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    seen = tab.evaluate(
        "async () => { const film = document.querySelector('video'); await film.play();"
        " return [film.videoWidth, film.videoHeight, film.duration]; }"
    )
    tab.close()
    assert seen[:2] == [64, 32] and seen[2] == pytest.approx(12 / RATE, abs=0.1)
