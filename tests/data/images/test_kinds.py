"""Channels of a data set's images, whichever file comes first, and transparency."""

import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrseg.data.images import common_kind
from hrseg.data.images.kinds import HEADS_READ, with_channels
from hrseg.errors import DataError

rng = np.random.default_rng(0)
COLORS = rng.integers(0, 256, (6, 8, 3), np.uint8)
GREY = COLORS[..., 0]
OPAQUE = np.dstack([COLORS, np.full((6, 8), 255, np.uint8)])
HOLES = np.dstack([COLORS, rng.choice([0, 255], (6, 8)).astype(np.uint8)])
FOUR_BANDS = np.dstack([COLORS, GREY])
KINDS = {"grey": GREY, "rgb": COLORS, "grey as rgb": np.dstack([GREY] * 3), "opaque": OPAQUE, "holes": HOLES}
KINDS |= {"grey with alpha": np.dstack([GREY, np.full_like(GREY, 255)]), "four as png": FOUR_BANDS}


def save(folder, names):
    paths = [folder / f"{number}.png" for number in range(len(names))]
    for path, name in zip(paths, names, strict=True):
        Image.fromarray(KINDS[name]).save(path)
    return paths


CASES = [
    (["grey", "rgb", "rgb"], 3, False),
    (["grey", "grey", "rgb"], 3, False),  # a single colour would be lost in one channel
    (["grey", "grey", "grey as rgb"], 1, False),
    (["opaque", "rgb", "rgb"], 3, False),
    (["opaque", "opaque", "rgb"], 3, False),
    (["holes", "rgb", "grey"], 3, False),
    (["opaque", "opaque", "holes"], 3, True),
    (["four as png", "four as png", "opaque"], 4, False),  # a fourth band that is called alpha
    (["grey with alpha", "grey", "grey"], 1, False),
    (["grey with alpha", "grey with alpha", "grey with alpha"], 1, True),
]


@pytest.mark.parametrize(
    ("names", "channels", "alpha"), CASES, ids=lambda case: "+".join(case) if type(case) is list else ""
)
def test_the_channels_are_the_same_whichever_image_comes_first(tmp_path, names, channels, alpha):
    for number, order in enumerate(set(itertools.permutations(names))):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert common_kind(save(folder, order)) == (channels, np.uint8, alpha)


def test_broken_files_do_not_decide_unless_all_are_broken(tmp_path):
    paths = save(tmp_path, ["grey", "rgb", "rgb", "rgb"])
    paths[0].write_bytes(b"nothing")
    paths[1].unlink()
    assert common_kind(paths)[:2] == (3, np.uint8)
    for path in paths[2:]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.png: is not an image"):
        common_kind(paths)


def test_few_heads_of_very_many_images_are_read(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("hrseg.data.images.kinds.inspect_image", lambda path, whole: read.append(path) or info)
    info = common_kind.__globals__["ImageInfo"](6, 8, 3, np.dtype(np.uint8))
    assert common_kind(range(200_000)) == (3, np.uint8, False)
    assert len(set(read)) == HEADS_READ and max(read) > 190_000


def test_a_tiff_says_which_band_is_transparency(tmp_path):
    for kind, channels in (({"extrasamples": ["unassalpha"]}, 3), ({"extrasamples": ["unspecified"]}, 4)):
        tifffile.imwrite(tmp_path / "a.tif", HOLES, photometric="rgb", **kind)
        assert common_kind([tmp_path / "a.tif"])[:2] == (channels, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", FOUR_BANDS, photometric="rgb")  # tifffile calls the fourth band alpha
    assert common_kind([tmp_path / "a.tif"])[:2] == (4, np.uint8)


def test_an_image_gets_the_wanted_channels_or_says_what_it_has():
    pixels, opaque = with_channels("a", HOLES, True, 3)
    assert np.array_equal(opaque, HOLES[..., 3] > 0) and not pixels[~opaque].any()
    assert np.array_equal(pixels[opaque], COLORS[opaque])
    assert with_channels("a", HOLES, True, 4)[1] is None
    assert np.array_equal(with_channels("a", np.dstack([GREY] * 3), False, 1)[0][..., 0], GREY)
    for pixels, alpha, wanted, complaint in (
        (COLORS, False, 1, "a: has 3 channels with colours, the model takes 1"),
        (FOUR_BANDS, False, 3, "a: has 4 channels, the model takes 3"),
        (COLORS, False, 4, "a: has 3 channels, the model takes 4"),
        (COLORS[..., :2], False, 3, "a: has 2 channels, the model takes 3"),
    ):
        with pytest.raises(DataError, match=complaint):
            with_channels("a", pixels, alpha, wanted)
