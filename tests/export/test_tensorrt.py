"""An engine of TensorRT: refused where it cannot be built, verified where it can."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest
import torch

from hrseg.commands import export as export_command

HERE = importlib.util.find_spec("tensorrt") is not None and torch.cuda.is_available()


@pytest.mark.parametrize(
    ("module", "said"), [(None, "hrseg[tensorrt]"), (types.ModuleType("tensorrt"), "--format onnx")]
)
def test_without_tensorrt_or_a_gpu_it_is_refused_in_one_line(saved, tmp_path, capsys, monkeypatch, module, said):
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["--checkpoint", str(saved), "--format", "tensorrt", "--out", str(tmp_path / "net.engine")]
    assert export_command.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="no TensorRT, or no GPU")
@pytest.mark.parametrize("words", [[], ["--half"], ["--dynamic"], ["--argmax"]], ids=str)
def test_an_engine_answers_as_its_model(saved, tmp_path, words):
    path = tmp_path / "net.engine"
    found = export_command.main(
        ["--checkpoint", str(saved), "--format", "tensorrt", "--out", str(path), "--size", "64x96", *words]
    )
    assert found == 0 and path.exists()
