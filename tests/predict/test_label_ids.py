"""tools/predict.py --ids labels: masks in the data set's own values."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hrseg.commands import predict
from hrseg.data.folder import Folder
from hrseg.errors import ConfigError
from hrseg.predict.label_ids import label_ids
from hrseg.predict.predictor import Predictor
from hrseg.task import LabelSpace, SegmentationClass, Task

IDS = (7, 23, 300)


def with_ids(space: LabelSpace, ids) -> LabelSpace:
    return replace(space, classes=tuple(c._replace(id=i) for c, i in zip(space.classes, ids, strict=True)))


def test_masks_hold_the_values_of_the_data_set_and_colours_their_indices(saved, tmp_path, capsys):
    state = torch.load(saved, weights_only=True)
    state |= with_ids(LabelSpace.from_plain(state), IDS).to_plain()
    torch.save(state, tmp_path / "ids.pt")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    words = [str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert predict.main(["--checkpoint", str(tmp_path / "ids.pt"), *words, "--ids", "labels"]) == 0
    labels = Predictor(tmp_path / "ids.pt", "cpu")(image).labels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/ids/a.png")), np.array(IDS)[labels])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/colors/a.png")), labels)
    told = json.loads((tmp_path / "out/classes.json").read_text())
    assert [c["id"] for c in told["classes"]] == [*IDS]
    assert (told["masks"], told["nodata"]) == ("id", 65535)
    assert predict.main(["--checkpoint", str(tmp_path / "ids.pt"), *words]) == 0  # other values: written again
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/ids/a.png")), labels)
    older = [*words[:2], str(tmp_path / "older"), *words[3:]]
    assert predict.main(["--checkpoint", str(saved), *older, "--ids", "labels"]) == 2
    assert "does not say which values" in capsys.readouterr().err
    assert not (tmp_path / "older").exists()


def test_a_value_without_data_is_never_that_of_a_class():
    space = LabelSpace((SegmentationClass("ok", (0, 0, 0)), SegmentationClass("defect", (9, 9, 9))), Task.BINARY)
    table, nodata = label_ids(with_ids(space, (0, 255)))
    assert nodata == 254 and table[[0, 1, 255]].tolist() == [0, 255, 254] and table.dtype == np.uint8
    for wrong in ((-1, 1), (0, 65536)):
        with pytest.raises(ConfigError, match="no PNG holds"):
            label_ids(with_ids(space, wrong))


def test_a_folder_tells_the_first_value_of_each_class(shapes, tmp_path):
    (tmp_path / "classes.yaml").write_text(
        "- {name: ground, id: [7, 0]}\n- {name: box, id: 1}\n- {name: disc, id: 2}\n"
    )
    space = Folder(shapes, "train", classes=tmp_path / "classes.yaml").space
    assert [c.id for c in space.classes] == [7, 1, 2]
    assert LabelSpace.from_plain(space.to_plain()) == space
