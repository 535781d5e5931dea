"""tools/predict.py --sure: training data of what the model is sure of."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from hrseg.commands import predict
from hrseg.data.folder import Folder
from hrseg.predict.predictor import Predictor
from tests.shapes import save_checkpoint


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_a_folder_to_train_on_ignores_what_the_model_is_not_sure_of(task, tmp_path, capsys):
    names = ("ground", "box", "disc") if task == "multiclass" else ("ground", "box")
    net = save_checkpoint(tmp_path / "net.pt", names=names, task=task)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    (tmp_path / "in/sub").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "in/sub/a.png")
    seen = Predictor(net, "cpu")(image)
    own = seen.probabilities.max(0) if task == "multiclass" else np.abs(seen.probabilities[0] - 0.5) + 0.5
    threshold = float(np.quantile(own, 0.3))
    out = tmp_path / "out"
    words = ["--checkpoint", str(net), str(tmp_path / "in"), "--out", str(out), "--device", "cpu"]
    for _ in range(2):  # the second finds everything there
        assert predict.main([*words, "--sure", str(threshold)]) == 0
        data = Folder(out, "all", task=task)
        assert list(data.names) == ["sub/a"] and data.space.names == names
        sample = data[0]
        assert np.array_equal(sample.image, image)
        assert (sample.target == np.where(own >= threshold, seen.labels, 255)).mean() > 0.999
        record = json.loads((out / "sure.json").read_text())
        assert record["threshold"] == threshold and 0.69 < record["kept"] < 0.71
        assert record["checkpoints"][0]["sha256"] == hashlib.sha256(net.read_bytes()).hexdigest()
        assert record["images"]["sub/a"]["from"] == "sub/a.png"
    (out / "classes.yaml").write_text("- mine\n")
    assert predict.main([*words, "--sure", "0.9"]) == 2
    assert "does not say that hrseg made it" in capsys.readouterr().err
