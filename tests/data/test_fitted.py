"""One rule for the channels and values of images: between splits, and between a checkpoint and its data."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrseg import build
from hrseg.config import parse
from hrseg.data.dataset import as_dataset
from hrseg.data.fitted import FittedDataset, fitted
from hrseg.data.images.large_images import open_image
from hrseg.errors import DataError
from hrseg.task import LabelSpace, Normalisation, Sample, SegmentationClass

SPACE = LabelSpace((SegmentationClass("a", (0, 0, 0)), SegmentationClass("b", (9, 9, 9))))
EIGHT = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
EIGHT[0, 0], EIGHT[0, 1] = 0, 255
SIXTEEN = EIGHT.astype(np.uint16) * 257
UNIT = (EIGHT / 255).astype(np.float32)
IMAGES = {
    "8 bits": EIGHT,
    "16 bits": SIXTEEN,
    "12 in 16 bits": EIGHT.astype(np.uint16) * 16,
    "8 in 16 bits": EIGHT.astype(np.uint16),
    "0 to 1": UNIT,
    "8 bits as floats": EIGHT.astype(np.float32),
    "reflectance": UNIT * 10000,
    "centred": UNIT * 4 - 2,
}
MODELS = {
    "8 bits": ("uint8", (0, 255)),
    "16 bits": ("uint16", (0, 65535)),
    "12 in 16 bits": ("uint16", (0, 4095)),
    "0 to 1": ("float32", (0, 1)),
    "reflectance": ("float32", (0, 10000)),
}
# What a model gets of each, in its own values; None: refused.
WANTED = {
    "8 bits": {"8 bits": EIGHT, "16 bits": EIGHT, "0 to 1": EIGHT, "8 bits as floats": EIGHT},
    "16 bits": {"8 bits": SIXTEEN, "16 bits": SIXTEEN, "0 to 1": SIXTEEN}
    | {name: IMAGES[name] for name in ("12 in 16 bits", "8 in 16 bits", "reflectance")},  # of its own type, or range
    "12 in 16 bits": {name: IMAGES[name] for name in ("16 bits", "12 in 16 bits", "8 in 16 bits")},
    "0 to 1": {"8 bits": UNIT, "16 bits": UNIT}
    | {name: IMAGES[name] for name in ("0 to 1", "8 bits as floats", "reflectance", "centred")},
    "reflectance": {name: IMAGES[name] for name in ("0 to 1", "8 bits as floats", "reflectance", "centred")},
}


def ranges_of(model, channels=3):
    image_type, ranges = MODELS[model]
    return Normalisation((0.5,) * channels, (0.2,) * channels, (tuple(map(float, ranges)),) * channels, image_type)


class Own:
    """A user's own data set of one kind of image."""

    def __init__(self, image, count=3):
        self.space, self.names, self.image = SPACE, [f"n{i}" for i in range(count)], image

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return Sample(self.image, np.zeros(self.image.shape[:2], np.uint8), self.names[i])


def taken(call):
    try:
        return call()
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("model", MODELS)
def test_every_command_takes_or_refuses_the_same_images(tmp_path, model, kind):
    image, ranges, wanted = IMAGES[kind], ranges_of(model), WANTED[model].get(kind)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    by_test = taken(lambda: fitted(as_dataset(Own(image)), ranges, "images of split 'val'")[0].image)
    by_predict = taken(lambda: open_image(tmp_path / "a.tif").for_model(ranges).rows(0, 12).image)
    by_array = taken(lambda: open_image(image).for_model(ranges).rows(0, 12).image)
    for answer in (by_test, by_predict, by_array):
        if wanted is None:
            assert isinstance(answer, str) and "not certain" in answer
            assert {np.uint8: "8-bit", np.uint16: "16-bit", np.float32: "float"}[image.dtype.type] in answer
            assert f"{MODELS[model][1][1]:g}" in answer
        else:
            top = float(MODELS[model][1][1])
            assert np.abs(answer.astype(np.float64) - wanted).max() <= 1e-6 * top


def test_what_an_old_checkpoint_does_not_say_follows_from_its_range():
    for model in ("8 bits", "16 bits", "0 to 1"):
        old = ranges_of(model)
        old = Normalisation(old.mean, old.std, old.input_range)
        assert np.array_equal(
            open_image(EIGHT).for_model(old).rows(0, 12).image,
            open_image(EIGHT).for_model(ranges_of(model)).rows(0, 12).image,
        )
    old = Normalisation((0.5,) * 3, (0.2,) * 3, ((0.0, 4095.0),) * 3)
    with pytest.raises(DataError, match="8-bit; the model takes values of 0 to 4095"):
        open_image(EIGHT).for_model(old)
    assert Normalisation.from_plain(old.to_plain()) == old
    assert Normalisation.from_plain(ranges_of("8 bits").to_plain()) == ranges_of("8 bits")


def test_a_dark_and_a_black_image_of_16_bits():
    black = np.zeros((4, 5, 3), np.uint16)
    assert not open_image(black).for_model(ranges_of("8 bits")).rows(0, 4).image.any()
    with pytest.raises(DataError, match="16-bit, from 100 to 100; the model takes 8-bit values of 0 to 255"):
        open_image(black + np.uint16(100)).for_model(ranges_of("8 bits"))


def test_channels_are_fitted_in_a_users_own_data_set_too():
    grey = EIGHT[..., :1]
    assert fitted(as_dataset(Own(EIGHT)), ranges_of("8 bits"), "x").built.image is EIGHT  # nothing to do
    repeated = fitted(as_dataset(Own(grey)), ranges_of("8 bits"), "x")
    assert np.array_equal(repeated[1].image, np.repeat(grey, 3, 2))
    single = fitted(as_dataset(Own(np.repeat(grey, 3, 2))), ranges_of("8 bits", 1), "x")
    assert np.array_equal(single[1].image, grey) and np.array_equal(single.read_valid_image(1)[0], grey)
    with pytest.raises(DataError, match=r"images of split 'val': have 3 channels with colours; the model takes 1"):
        fitted(as_dataset(Own(EIGHT)), ranges_of("8 bits", 1), "images of split 'val'")
    with pytest.raises(DataError, match="x: are 8-bit images of 3 channels; the model takes 4"):
        fitted(as_dataset(Own(EIGHT)), ranges_of("8 bits", 4), "x")


def folders(root, train, val):
    """A data set of one kind of image in each split."""
    for split, images in (("train", train), ("val", val)):
        for number, image in enumerate(images):
            path = root / "images" / split / f"{split}{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, image, photometric="rgb" if image.shape[2] > 2 else "minisblack")
            mask = root / "masks" / split / f"{split}{number}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((np.arange(192).reshape(12, 16) % 2).astype(np.uint8)).save(mask)
    (root / "classes.yaml").write_text("[a, b]")
    return parse({"data": {"root": str(root), "workers": 0}})


@pytest.mark.parametrize(("train", "val"), [("8 bits", "16 bits"), ("16 bits", "8 bits"), ("0 to 1", "8 bits")])
def test_validation_images_get_the_scale_of_the_training_images(tmp_path, caplog, train, val):
    config = folders(tmp_path, [IMAGES[train]] * 2, [IMAGES[val]] * 2)
    with caplog.at_level("INFO"):
        sets = build.data_sets(config)
    assert np.allclose(sets["val"][0].image, sets["train"][0].image, rtol=1e-6)
    assert caplog.text.count("were scaled to the") == 1 and "images of split 'val'" in caplog.text
    cached = parse({**config.to_plain(), "data": {**config.to_plain()["data"], "cache": "raw"}})
    again = build.cached(cached, sets["val"], progress=False)
    assert isinstance(again, FittedDataset) and np.array_equal(again[0].image, sets["val"][0].image)


@pytest.mark.parametrize(
    ("train", "val"), [("8 bits", "12 in 16 bits"), ("8 bits", "reflectance"), ("reflectance", "8 bits")]
)
def test_splits_whose_scales_do_not_follow_from_each_other_are_refused(tmp_path, train, val):
    config = folders(tmp_path, [IMAGES[train]] * 2, [IMAGES[val]] * 2)
    if train == "reflectance":
        config = parse({"data": {"root": str(tmp_path), "input_range": [0, 10000]}})
    with pytest.raises(DataError, match=r"images of split 'val': values are .*; split 'train' takes .* not certain"):
        build.data_sets(config)


def test_channels_of_the_validation_images_are_those_of_the_training_images(tmp_path):
    grey, as_rgb = EIGHT[..., :1], np.repeat(EIGHT[..., :1], 3, 2)
    for number, (train, val) in enumerate([(EIGHT, grey), (grey, as_rgb), (as_rgb, grey)]):
        sets = build.data_sets(folders(tmp_path / str(number), [train] * 2, [val] * 2))
        assert sets["val"].in_channels == train.shape[2] and sets["val"][0].image.shape == train.shape
    with pytest.raises(DataError, match=r"split 'val': have 3 channels with colours; split 'train' takes 1"):
        build.data_sets(folders(tmp_path / "colours", [grey], [EIGHT]))
    with pytest.raises(DataError, match=r"split 'val': are 8-bit images of 5 channels; split 'train' takes 3"):
        build.data_sets(folders(tmp_path / "bands", [EIGHT], [np.dstack([EIGHT, EIGHT[..., :2]])]))


def test_opaque_images_are_read_with_four_channels_for_an_older_model_that_has_four(tmp_path):
    opaque = np.dstack([EIGHT, np.full((12, 16), 255, np.uint8)])
    config = folders(tmp_path, [opaque], [opaque])
    assert build.dataset(config, "val").in_channels == 3
    four = build.dataset_for_model(config, "val", ranges_of("8 bits", 4))
    assert np.array_equal(four[0].image, opaque)
