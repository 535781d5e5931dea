"""hrseg.Predictor: from a picture to its segmentation."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image

import hrseg
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.inference import FEW_IMAGES
from hrseg.predict.bands import Band
from hrseg.predict.predictor import Predictor, enlarged_rows
from hrseg.predict.writer import PredictionWriter
from hrseg.report.pictures import ignored_color
from hrseg.task import LabelSpace, SegmentationClass, Task
from tests.shapes import COLORS, save_checkpoint

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def predictor(saved):
    return hrseg.Predictor(saved, "cpu")


@pytest.fixture(scope="module")
def photo():
    return np.asarray(Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((107, 75)))


@pytest.fixture(scope="module")
def prediction(predictor, photo):
    return predictor(photo)


def test_labels_are_the_most_probable_classes_at_the_size_of_the_picture(prediction, photo):
    assert prediction.probabilities.shape == (3, 75, 107)
    assert np.allclose(prediction.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(prediction.labels, prediction.probabilities.argmax(0))
    assert len(np.unique(prediction.labels)) > 1 and np.array_equal(prediction.image, photo)
    assert sum(prediction.shares.values()) == pytest.approx(1)


def test_a_path_an_array_and_a_pillow_image_are_the_same_picture(predictor, prediction, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for same in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(photo)):
        assert np.array_equal(predictor(same).labels, prediction.labels)


def test_a_large_picture_in_tiles_is_nearly_that_of_the_whole(saved):
    """Random weights look far; still most pixels agree, and each is answered once."""
    image = np.asarray(Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((560, 480)))
    tiled = Predictor(saved, "cpu", tile=256)(image, probabilities=True)
    whole = Predictor(saved, "cpu", tile=0)(image)
    assert (tiled.labels == whole.labels).mean() > 0.9
    assert np.abs(tiled.probabilities.sum(0) - 1).max() < 1e-5
    with pytest.raises(HrsegError, match="probabilities=True"):
        _ = Predictor(saved, "cpu", tile=256)(image).probabilities


def test_after_some_pictures_the_fast_form_gives_the_same(saved, photo, prediction):
    predictor = hrseg.Predictor(saved, "cpu")
    plain = predictor.network
    for _ in range(FEW_IMAGES):
        last = predictor(photo)
    assert predictor.network is not plain
    np.testing.assert_allclose(last.probabilities, prediction.probabilities, atol=1e-5)


def test_several_checkpoints_are_averaged(saved, photo, prediction, tmp_path):
    other = save_checkpoint(tmp_path / "other.pt", seed=1)
    mean = (Predictor(other, "cpu")(photo).probabilities + prediction.probabilities) / 2
    assert np.allclose(Predictor([saved, other], "cpu")(photo).probabilities, mean, atol=1e-5)


def test_flips_and_turns_make_the_answer_independent_of_how_the_picture_lies(saved, photo):
    predictor = Predictor(saved, "cpu", flip=True, turns=True)
    lying = predictor(np.ascontiguousarray(np.rot90(photo)[:, ::-1])).probabilities
    assert np.allclose(np.rot90(lying[:, :, ::-1], -1, (1, 2)), predictor(photo).probabilities, atol=1e-4)


def test_it_shows_itself_in_a_notebook_and_names_are_text(saved, photo, tmp_path):
    hostile = save_checkpoint(tmp_path / "net.pt", names=("<script>alert(1)</script>", "box", "disc"))
    shown = Predictor(hostile, "cpu")(photo)
    page = shown._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])))
    assert picture.size == (107, 75) and np.array_equal(np.asarray(picture), np.asarray(shown.overlay()))


def test_a_legend_below_the_overlay_holds_the_classes_that_occur(prediction):
    plain, legend = np.asarray(prediction.overlay()), np.asarray(prediction.overlay(legend=True))
    assert np.array_equal(legend[:75, :107], plain)
    below = set(map(tuple, legend[75:].reshape(-1, 3).tolist()))
    assert {COLORS[name] in below for name in prediction.shares} == {True} and len(prediction.shares) > 1


def test_saving_writes_indices_palette_overlay_and_probabilities(prediction, tmp_path):
    prediction.save(tmp_path, "street/one", probabilities=True)
    with Image.open(tmp_path / "ids" / "street" / "one.png") as ids:
        assert ids.mode == "L" and np.array_equal(np.asarray(ids), prediction.labels)
    with Image.open(tmp_path / "colors" / "street" / "one.png") as colors:
        assert colors.mode == "P" and np.array_equal(np.asarray(colors), prediction.labels)
        assert np.array_equal(np.asarray(colors.convert("RGB")), np.asarray(prediction.colors()))
    with Image.open(tmp_path / "overlay" / "street" / "one.png") as overlay:
        assert np.array_equal(np.asarray(overlay), np.asarray(prediction.overlay()))
    kept = np.load(tmp_path / "probabilities" / "street" / "one.npz")["probabilities"]
    assert kept.dtype == np.float16 and np.allclose(kept.transpose(2, 0, 1), prediction.probabilities, atol=1e-3)


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", ""])
def test_nothing_is_written_outside_the_folder(prediction, tmp_path, name):
    with pytest.raises(HrsegError, match="name"):
        prediction.save(tmp_path / "in", name)
    assert not list(tmp_path.rglob("*.png"))


def test_labels_that_overlap_have_a_file_each_and_their_names_are_no_paths(photo, tmp_path):
    net = save_checkpoint(tmp_path / "net.pt", names=("../tree", "roof"), task="multilabel")
    shown = Predictor(net, "cpu")(photo)
    shown.save(tmp_path / "out", "one")
    assert shown.labels.shape == (2, 75, 107)
    for label, folder in zip(shown.labels, ("___tree", "roof"), strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "ids" / folder / "one.png")), label)


def test_more_than_256_classes_have_16_bits(tmp_path):
    space = LabelSpace(tuple(SegmentationClass(f"c{i}", (i % 256, i // 256, 0)) for i in range(300)))
    labels = RNG.integers(0, 300, (5, 7))
    with PredictionWriter(tmp_path, "one", space, (5, 7)) as writer:
        writer.write(Band(0, np.zeros((5, 7, 3), np.uint8), labels, None, 0.0))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "ids" / "one.png")), labels)


def test_an_error_in_the_middle_leaves_no_file(prediction, tmp_path):
    with pytest.raises(RuntimeError), PredictionWriter(tmp_path, "one", prediction.space, (75, 107)) as writer:
        writer.write(Band(0, prediction.image, prediction.labels, None, 0.0))
        raise RuntimeError
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_numbers_up_to_one_are_scaled_for_a_model_of_255_and_others_refused(predictor, photo):
    scaled = predictor(photo / 255)
    assert np.mean(scaled.labels == predictor(photo).labels) > 0.99
    assert scaled.notes == ("values from 0 to 1 were scaled to the 0 to 255 of the model",)
    with pytest.raises(DataError, match=r"float, from \d+ to \d+; the model takes 8-bit values of 0 to 255"):
        predictor(photo * 10.0)


def test_pixels_without_data_are_no_class_and_count_in_no_share(predictor, photo, tmp_path):
    lacking = np.zeros((75, 107), bool)
    lacking[20:70, 30:90] = True
    clear = np.dstack([photo, np.where(lacking, 0, 255).astype(np.uint8)])
    Image.fromarray(clear).save(tmp_path / "a.png")
    tiff = np.where(lacking[..., None], 0, np.maximum(photo, 1))
    tifffile.imwrite(tmp_path / "a.tif", tiff, photometric="rgb", extratags=[(42113, "s", 0, "0", True)])
    for source in (clear, tmp_path / "a.png", tmp_path / "a.tif"):
        found = predictor(source)
        assert np.array_equal(found.labels == 255, lacking)
        assert sum(found.shares.values()) == pytest.approx(1)
        assert np.array_equal(np.isnan(found.probabilities[0]), lacking)
        found.save(tmp_path / "out", "one", probabilities=True)
        ids = np.asarray(Image.open(tmp_path / "out" / "ids" / "one.png"))
        colors = Image.open(tmp_path / "out" / "colors" / "one.png")
        assert np.array_equal(ids, found.labels) and np.array_equal(np.asarray(colors), found.labels)
        assert (np.asarray(colors.convert("RGB"))[lacking] == ignored_color(found.space)).all()
    nothing = predictor(np.zeros((20, 30, 4), np.uint8))
    assert (nothing.labels == 255).all() and nothing.shares == {} and nothing.overlay(legend=True).size[0] == 30


def test_values_far_outside_of_the_models_range_are_told(tmp_path, caplog):
    kinds = {"image_type": "uint16", "input_range": ((0.0, 4095.0),) * 3}
    twelve_bits = Predictor(save_checkpoint(tmp_path / "net.pt", **kinds), "cpu")
    image = RNG.integers(0, 4096, (24, 32, 3), dtype=np.uint16)
    assert twelve_bits(image).notes == () and not caplog.text
    (note,) = twelve_bits(image * 16).notes
    assert "far outside of the 0 to 4095 of the model" in note and note in caplog.text
    with pytest.raises(DataError, match=r"8-bit; the model takes 16-bit values of 0 to 4095"):
        twelve_bits((image // 16).astype(np.uint8))


def test_large_images_without_data_are_equal_in_tiles(saved, photo):
    image = np.tile(photo, (5, 4, 1))[:320, :400].astype(np.float32)
    image[100:220, 90:300] = np.nan
    tiled = Predictor(saved, "cpu", tile=128)(image)
    assert np.array_equal(tiled.labels == 255, np.isnan(image[..., 0]))


def test_256_classes_and_no_data_need_16_bits(tmp_path):
    space = LabelSpace(tuple(SegmentationClass(f"c{i}", (i, 1, 0)) for i in range(256)))
    labels = np.arange(256).reshape(16, 16)
    labels[3, 4] = space.nodata_index
    with PredictionWriter(tmp_path, "one", space, (16, 16), nodata=True) as writer:
        writer.write(Band(0, np.zeros((16, 16, 3), np.uint8), labels, None, 0.0))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "ids" / "one.png")), labels) and labels[3, 4] == 65535
    colors = np.asarray(Image.open(tmp_path / "colors" / "one.png"))
    assert tuple(colors[3, 4]) == ignored_color(space) and tuple(colors[0, 9]) == (9, 1, 0)


def test_the_picture_of_a_narrow_range_shows_something(predictor, photo):
    dark = (photo.astype(np.float64) / 255 * 60).astype(np.uint8) // 4  # 0 to 15
    narrow = predictor(dark).image
    assert np.ptp(narrow) > 200 and np.array_equal(predictor(photo).image, photo)
    deep = predictor((photo.astype(np.uint16) + 1) * 40 + 9000).image  # 9040 to 19240 of 65535
    assert np.ptp(deep) > 240


def test_a_wrong_tile_or_precision_is_told(saved):
    for wrong in ({"tile": 100}, {"precision": "half"}, {"device": "gpu"}):
        with pytest.raises(ConfigError):
            Predictor(saved, **{"device": "cpu"} | wrong)


def test_bands_of_an_enlarged_answer_are_those_of_the_whole():
    small = torch.randn(1, 3, 13, 17)
    whole = F.interpolate(small, (100, 90), mode="bilinear", align_corners=False)
    bands = [enlarged_rows(small, (100, 90), top, min(top + 33, 100)) for top in range(0, 100, 33)]
    assert torch.allclose(torch.cat(bands, 2), whole, atol=1e-5)


def test_importing_hrseg_does_not_bring_the_predictor():
    code = "import sys, hrseg; assert 'hrseg.predict.predictor' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_colors_are_those_of_the_classes(prediction):
    assert set(map(tuple, np.asarray(prediction.colors()).reshape(-1, 3))) <= set(COLORS.values())
    assert prediction.space.task is Task.MULTICLASS
