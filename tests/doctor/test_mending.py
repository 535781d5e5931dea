"""From models to decisions to a mended data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hrseg.commands.doctor import main
from hrseg.data.folder import Folder
from hrseg.doctor.suspects import MISSING, read_suspects
from hrseg.errors import DataError
from tests.doctor.made import FAULTY, doctor_folder, folder, truth


@pytest.fixture(params=["P", "L", "RGB"])
def data(request, tmp_path):
    return folder(tmp_path / "data", mode=request.param)


def decisions(out, path, **changed):
    """A file as the page saves it, in which the first suspect is taken."""
    content, suspects = read_suspects(out)
    first = suspects[0]
    entry = {"id": first.id, "image": first.image, "mask_sha256": first.mask_sha256, "decision": "take"}
    plain = {"format": "hrseg decisions 1", "key": content["key"], "folder": str(out), "decisions": [entry | changed]}
    path.write_text(json.dumps(plain))
    return path


def test_the_missing_object_is_the_first_suspect_and_can_be_mended(data, tmp_path, monkeypatch, capsys):
    out, mended = tmp_path / "doctor", tmp_path / "mended"
    doctor_folder(data, out, monkeypatch)
    first = read_suspects(out)[1][0]
    assert (first.kind, first.image, first.said) == (MISSING, f"street_{FAULTY}", "<b>car</b>")
    assert main(["apply", str(decisions(out, tmp_path / "d.json")), "--out", str(mended)]) == 0
    assert "1 mask mended" in capsys.readouterr().out
    now = Folder(mended, "all")
    for i in range(len(now)):
        assert np.array_equal(now.read_target(i), truth(int(now.names[i][-1])))
    mask, other = (mended / "masks" / f"street_{n}.png" for n in (FAULTY, FAULTY + 1))
    assert not mask.is_symlink() and other.is_symlink() and (mended / "images").is_symlink()
    with Image.open(mask) as new, Image.open(data / "masks" / mask.name) as old:
        assert new.mode == old.mode
        assert old.mode != "P" or new.getpalette()[:9] == old.getpalette()[:9]
    record = json.loads((mended / "mended.json").read_text())
    assert record["changes"][0]["from_to"] == [{"from": "ground", "to": "<b>car</b>", "pixels": 256}]


def test_suspects_above_a_score_are_taken_without_decisions(data, tmp_path, monkeypatch):
    doctor_folder(data, tmp_path / "doctor", monkeypatch)
    words = ["apply", str(tmp_path / "doctor" / "suspects.json"), "--take-above", "0.3", "--out"]
    assert main([*words, str(tmp_path / "mended")]) == 0
    assert np.array_equal(Folder(tmp_path / "mended", "all").read_target(FAULTY), truth(FAULTY))


def test_an_ignored_region_is_ignored_in_the_mask(tmp_path, monkeypatch):
    data = folder(tmp_path / "data")
    out = tmp_path / "doctor"
    doctor_folder(data, out, monkeypatch)
    path = decisions(out, tmp_path / "d.json", decision="ignore")
    assert main(["apply", str(path), "--out", str(tmp_path / "mended")]) == 0
    target = Folder(tmp_path / "mended", "all").read_target(FAULTY)
    assert np.array_equal(target == 255, truth(FAULTY) == 2)


def test_a_mask_that_was_changed_meanwhile_is_refused(data, tmp_path, monkeypatch, capsys):
    out, mended = tmp_path / "doctor", tmp_path / "mended"
    doctor_folder(data, out, monkeypatch)
    path = decisions(out, tmp_path / "d.json")
    mask = data / "masks" / f"street_{FAULTY}.png"
    mask.write_bytes((data / "masks" / "street_0.png").read_bytes())
    assert main(["apply", str(path), "--out", str(mended)]) == 2
    assert "another checksum" in capsys.readouterr().err and not mended.exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"decision": "guess"}, "no decision"), ({"mask_sha256": "0"}, "of no suspect"), ({"id": 99}, "of no suspect")],
)
def test_decisions_that_do_not_fit_are_refused(tmp_path, monkeypatch, capsys, changed, told):
    out = tmp_path / "doctor"
    doctor_folder(folder(tmp_path / "data"), out, monkeypatch)
    path = decisions(out, tmp_path / "d.json", **changed)
    assert main(["apply", str(path), "--out", str(tmp_path / "mended")]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "mended").exists()


def test_decisions_about_other_suspects_and_paths_outside_are_refused(tmp_path, monkeypatch):
    out = tmp_path / "doctor"
    doctor_folder(folder(tmp_path / "data"), out, monkeypatch)
    path = decisions(out, tmp_path / "d.json")
    content = json.loads((out / "suspects.json").read_text())
    content["suspects"][0]["mask"] = "../secret.png"
    (out / "suspects.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="checksum differs"):
        read_suspects(out)
    assert main(["apply", str(path), "--out", str(tmp_path / "mended")]) == 2


def test_what_is_no_file_of_decisions_is_refused(tmp_path, capsys):
    (tmp_path / "d.json").write_text("[1, 2]")
    assert main(["apply", str(tmp_path / "d.json"), "--out", str(tmp_path / "mended")]) == 2
    assert "holds no decisions" in capsys.readouterr().err
