"""Pictures read band by band."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrseg.data.images.large_images import open_image
from hrseg.errors import DataError
from hrseg.task import Normalisation

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (37, 53, 3), dtype=np.uint16)


def save(kind, path):
    if kind == "png":
        Image.fromarray(COLORS).save(path / "a.png")
    elif kind == "tiled":
        tifffile.imwrite(path / "a.tif", COLORS, tile=(16, 16), compression="zlib", photometric="rgb")
    elif kind == "planar":
        tifffile.imwrite(path / "a.tif", COLORS.transpose(2, 0, 1), planarconfig="separate", photometric="rgb")
    elif kind == "webp":
        Image.fromarray(COLORS).save(path / "a.webp", lossless=True)
    elif kind == "bmp":
        Image.fromarray(COLORS).save(path / "a.bmp")
    return next(path.iterdir())


@pytest.mark.parametrize("kind", ["png", "tiled", "planar", "webp", "bmp"])
def test_bands_are_the_rows_of_the_picture(kind, tmp_path):
    picture = open_image(save(kind, tmp_path))
    assert picture.size == (37, 53) and picture.channels == 3
    assert np.array_equal(np.concatenate([picture.rows(0, 10), picture.rows(10, 11), picture.rows(11, 37)]), COLORS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_every_orientation_is_shown_as_viewers_show_it(orientation, ending, tmp_path):
    """Grey steps in rows and columns that survive JPEG; the expected picture is Pillow's own turning."""
    stored = np.add.outer(np.arange(6) * 36, np.arange(3) * 10).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    path = tmp_path / f"a.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, stored, extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(path, exif=exif, quality=100)
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)  # Pillow's Transpose for each tag
    expected = stored if turn is None else np.asarray(Image.fromarray(stored).transpose(turn))
    picture = open_image(path)
    bands = np.concatenate([picture.rows(top, top + 8) for top in range(0, picture.size[0], 8)])
    assert bands.shape[:2] == expected.shape
    assert np.abs(bands[:, :, 0].astype(int) - expected).max() <= 2


def test_16_bits_reach_a_model_of_8_without_losing_bits_and_it_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "deep.tif", DEEP, photometric="rgb")
    seen = open_image(tmp_path / "deep.tif").for_model(Normalisation())
    assert np.allclose(seen.rows(0, 37).image * 257, DEEP, rtol=1e-6)
    assert any("16 bits" in note for note in seen.notes)


def test_8_bits_reach_a_model_of_16():
    ranges = Normalisation(input_range=((0.0, 65535.0),) * 3)
    assert np.array_equal(open_image(COLORS).for_model(ranges).rows(0, 37).image, COLORS.astype(np.uint16) * 257)


def test_grey_and_transparent_pictures_reach_a_model_of_colours_and_it_is_said(tmp_path):
    Image.fromarray(COLORS).convert("LA").save(tmp_path / "grey.png")
    seen = open_image(tmp_path / "grey.png").for_model(Normalisation())
    grey = np.asarray(Image.fromarray(COLORS).convert("L"))
    assert np.array_equal(seen.rows(0, 37).image, np.dstack([grey] * 3))
    assert [note.split()[0] for note in seen.notes] == ["transparency", "grey"]


def test_four_bands_that_are_no_transparency_are_not_cut_to_three(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.dstack([COLORS, COLORS[..., :1]]), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(DataError, match="4 channels, the model takes 3"):
        open_image(tmp_path / "a.tif").for_model(Normalisation())


def test_a_file_that_claims_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = save("png", tmp_path)
    with pytest.raises(DataError, match="max_pixels"):
        open_image(path, max_pixels=37 * 53 - 1)
    assert open_image(path, max_pixels=37 * 53).size == (37, 53)


def test_half_a_file_is_an_error_of_its_path(tmp_path):
    path = save("png", tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"a\.png"):
        open_image(path).rows(0, 37)
