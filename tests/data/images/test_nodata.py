"""Pixels without data: ignored in training and scoring, and no class in a prediction."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrseg.data.folder import Folder
from hrseg.data.images import decode_image, inspect_image
from hrseg.data.images.large_images import open_image
from hrseg.task import Normalisation

rng = np.random.default_rng(0)
LACKING = np.zeros((8, 10), bool)
LACKING[2:5, 3:7] = True
COLORS = rng.integers(1, 256, (8, 10, 3), np.uint8)
FLOATS = rng.random((8, 10, 3), np.float32)


def tiff(path, image, nodata=None, **kind):
    tags = [] if nodata is None else [(42113, "s", 0, nodata, True)]
    tifffile.imwrite(path, image, photometric="rgb" if image.shape[2] == 3 else "minisblack", extratags=tags, **kind)


def filled(image, value, channels=slice(None)):
    image = image.copy()
    for channel in range(image.shape[2])[channels]:
        image[..., channel][LACKING] = value
    return image


MADE = {
    "nodata of 8 bits": lambda path: tiff(path, filled(COLORS, 0), "0"),
    "nodata of 16 bits": lambda path: tiff(path, filled(COLORS.astype(np.uint16), 65535), "65535"),
    "nodata of floats": lambda path: tiff(path, filled(FLOATS, -9999), "-9999"),
    "lowest float64": lambda path: tiff(path, filled(FLOATS.astype(np.float64), -1.7e308), "-1.7e+308"),
    "nodata of one float channel": lambda path: tiff(path, filled(FLOATS, -9999, slice(1, 2)), "-9999"),
    "int16": lambda path: tiff(path, filled(COLORS.astype(np.int16), -32768), "-32768"),
    "tiled and compressed": lambda path: tiff(path, filled(COLORS, 0), "0", tile=(16, 16), compression="zlib"),
    "NaN": lambda path: tiff(path, filled(FLOATS, np.nan)),
    "NaN in one channel": lambda path: tiff(path, filled(FLOATS, np.nan, slice(2, 3))),
    "NaN and its tag": lambda path: tiff(path, filled(FLOATS, np.nan), "nan"),
    "alpha of TIFF": lambda path: tifffile.imwrite(
        path, np.dstack([COLORS, np.where(LACKING, 0, 255).astype(np.uint8)]), photometric="rgb"
    ),
    "alpha of PNG": lambda path: Image.fromarray(np.dstack([COLORS, np.where(LACKING, 0, 9).astype(np.uint8)])).save(
        path, "PNG"
    ),
    "grey with alpha": lambda path: Image.fromarray(
        np.dstack([COLORS[..., 0], np.where(LACKING, 0, 255).astype(np.uint8)])
    ).save(path, "PNG"),
    "a transparent colour": lambda path: Image.fromarray(filled(COLORS, 0)).save(path, "PNG", transparency=(0, 0, 0)),
    "a transparent grey": lambda path: Image.fromarray(filled(COLORS, 0)[..., 0]).save(path, "PNG", transparency=0),
    "a palette": lambda path: Image.fromarray(filled(COLORS, 0)).quantize(64).save(path, "PNG", transparency=0),
}


def lacking_in(path, name):
    """Where a file has no data, by the alpha that a palette has."""
    if name != "a palette":
        return LACKING
    return np.asarray(Image.open(path).convert("RGBA"))[..., 3] == 0


@pytest.mark.parametrize("name", MADE)
def test_pixels_without_data_are_ignored_in_a_sample_and_by_prediction(tmp_path, name):
    for folder in ("images/train", "masks/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "classes.yaml").write_text("[road, sky]")
    for number in range(3):  # the others are plain RGB, or of the same kind
        path = tmp_path / f"images/train/{number}.png"
        Image.fromarray(COLORS).save(path)
        if number == 1 or "alpha of" not in name:
            MADE[name](path)
        Image.fromarray(np.ones((8, 10), np.uint8)).save(tmp_path / f"masks/train/{number}.png")
    path = tmp_path / "images/train/1.png"
    lacking = lacking_in(path, name)
    assert lacking.any() and not lacking.all()
    dataset = Folder(tmp_path, "train")
    image, target, _ = dataset[1]
    assert np.isfinite(image).all() and not image[lacking].any()
    assert name == "a palette" or image[~lacking].any(axis=1).all()  # where black is a colour too
    assert np.array_equal(target == 255, lacking) and (target[~lacking] == 1).all()
    assert np.array_equal(dataset.sample_target(1), target) and inspect_image(path).may_lack_data

    full = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(image.dtype, 1.0)
    ranges = Normalisation.none(image.shape[2])
    ranges = Normalisation(ranges.mean, ranges.std, ((0.0, full),) * image.shape[2], image.dtype.name)
    seen = open_image(path).for_model(ranges)
    whole = seen.rows(0, 8)
    assert seen.may_lack_data and np.array_equal(whole.valid, ~lacking) and np.array_equal(whole.image, image)
    bands = [seen.rows(top, top + 4) for top in (0, 4)]
    assert np.array_equal(np.concatenate([band.image for band in bands]), image)


PLAIN = {
    "no tag": lambda path: tiff(path, filled(COLORS, 0)),
    "a value that only one channel has": lambda path: tiff(path, filled(COLORS, 0, slice(1)), "0"),
    "zero in one float channel": lambda path: tiff(path, filled(FLOATS, 0, slice(1)), "0"),
    "a value that 8 bits do not have": lambda path: tiff(path, COLORS, "-9999"),
    "a fraction": lambda path: tiff(path, filled(COLORS, 3), "3.5"),
    "no number": lambda path: tiff(path, filled(COLORS, 0), "none"),
    "half transparent": lambda path: Image.fromarray(np.dstack([COLORS, COLORS[..., 0]])).save(path, "PNG"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_pixels_that_have_data_are_kept(tmp_path, name):
    PLAIN[name](tmp_path / "a")
    pixels, _, valid = decode_image(tmp_path / "a")
    assert valid is None and pixels[..., :3].any(axis=2).mean() > 0.8
    seen = open_image(tmp_path / "a")
    assert seen.valid_rows(0, 8).valid is None and np.array_equal(seen.rows(0, 8), pixels)


def test_all_labels_of_a_multilabel_target_are_ignored_without_data(tmp_path):
    for folder in ("images/train", "masks/cell/train", "masks/border/train"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.ones((8, 10), np.uint8)).save(tmp_path / folder / "a.png")
    (tmp_path / "classes.yaml").write_text("[cell, border]")
    (tmp_path / "images/train/a.png").unlink()
    tiff(tmp_path / "images/train/a.tif", filled(FLOATS, np.nan))
    target = Folder(tmp_path, "train", task="multilabel")[0].target
    assert (target[:, LACKING] == 255).all() and (target[:, ~LACKING] == 1).all()
