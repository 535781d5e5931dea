"""Reading images and masks: every bit, or an error that names the file and the reason."""

from __future__ import annotations

import contextlib
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from hrseg.data.images import inspect_image, list_files, read_image, read_mask, read_palette
from hrseg.data.images import png_and_jpeg as images
from hrseg.data.images.large_images import open_image
from hrseg.errors import DataError

rng = np.random.default_rng(0)


def values(dtype: str, *shape: int) -> np.ndarray:
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write_png(
    path: Path, rows: bytes, height: int, width: int, bits: int, color_type: int, interlaced: bool = False
) -> Path:
    """A PNG of a kind that Pillow does not write; rows without their filter bytes, or, interlaced, with them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    step = len(rows) // height
    raw = rows if interlaced else b"".join(b"\0" + rows[r * step : (r + 1) * step] for r in range(height))
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlaced)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_png_keeps_every_bit(tmp_path, dtype, channels):
    path, image = tmp_path / "a.png", values(dtype, 5, 7, channels)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    cv2.imwrite(str(path), image[:, :, order])
    read = read_image(path)
    assert read.dtype == image.dtype and np.array_equal(read, image)  # Pillow alone halves 16-bit colours
    assert inspect_image(path)[:4] == (5, 7, channels, dtype)


DECODERS = ("kornia_rs", "imagecodecs", "Pillow")


@pytest.fixture
def read_by(monkeypatch):
    """A reader by one decoder: an image's pixels, or the sentence that refuses it."""
    present = {"kornia_rs": images.kornia, "imagecodecs": images.png_decode}
    assert None not in present.values()  # the extra `fast`, which the tests install

    def read(decoder: str, path: Path, reader=read_image) -> np.ndarray | str:
        monkeypatch.setattr(images, "kornia", images.kornia if decoder == "kornia_rs" else None)
        monkeypatch.setattr(images, "png_decode", images.png_decode if decoder == "imagecodecs" else None)
        try:
            return reader(path)
        except DataError as error:
            return str(error)
        finally:
            monkeypatch.undo()

    return read


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint8")])
def test_a_png_reads_alike_by_all_decoders(tmp_path, read_by, decoder, channels, dtype, transparent):
    path, pixels = tmp_path / "a.png", values(dtype, 5, 7, channels)
    color = {"transparency": 9 if channels == 1 else (1, 2, 3)} if transparent else {}
    Image.fromarray(pixels.squeeze()).save(path, **color)
    seen = pixels
    if transparent:
        pixels[1, 2] = color["transparency"]
        Image.fromarray(pixels.squeeze()).save(path, **color)
        seen = np.where((pixels == color["transparency"]).all(2, keepdims=True), 0, pixels)
    assert np.array_equal(read_by(decoder, path), seen)
    assert np.array_equal(read_by(decoder, path, read_mask), pixels.squeeze())


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colours_read_alike_by_all_decoders(tmp_path, read_by, decoder, channels, dtype):
    path, pixels = tmp_path / "a.png", values(dtype, 5, 7, channels)
    cv2.imwrite(str(path), pixels[:, :, [2, 1, 0, 3][:channels]])
    read = read_by(decoder, path)
    assert read.dtype == pixels.dtype and np.array_equal(read, pixels)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("bits", "color_type", "channels"), [(8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (8, 6, 4)])
def test_an_interlaced_png_reads_like_any_other(tmp_path, read_by, decoder, bits, color_type, channels):
    pixels = values(f"uint{bits}", 11, 13, channels)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7
    raw = b""
    for top, left, down, right in passes:
        rows = pixels[top::down, left::right].astype(f">u{bits // 8}")
        raw += b"".join(b"\0" + row.tobytes() for row in rows if row.size)
    path = write_png(tmp_path / "a.png", raw, 11, 13, bits, color_type, interlaced=True)
    assert np.array_equal(read_by(decoder, path), pixels)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_png_with_a_bit_turned_or_cut_anywhere_is_refused_or_read_right(tmp_path, read_by, decoder):
    path, pixels = tmp_path / "a.png", values("uint8", 6, 5, 3)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    turned = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    refused = 0
    for content in [whole[:end] for end in range(len(whole))] + turned:
        path.write_bytes(content)
        answer = read_by(decoder, path)
        refused += isinstance(answer, str)
        assert str(path) in answer if isinstance(answer, str) else np.array_equal(answer, pixels)
    assert refused > len(whole)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_reads_alike_by_all_decoders(tmp_path, read_by, mode, progressive):
    picture = Image.fromarray(cv2.resize(values("uint8", 5, 7, 3), (61, 43), interpolation=cv2.INTER_CUBIC))
    for subsampling in range(3):
        path = tmp_path / f"{subsampling}.jpg"
        picture.convert(mode).save(path, quality=80, subsampling=subsampling, progressive=progressive)
        assert np.array_equal(read_by("kornia_rs", path), read_by("Pillow", path))


def test_a_broken_jpeg_is_read_or_refused_alike_by_all_decoders(tmp_path, read_by):
    path = tmp_path / "a.jpg"
    Image.fromarray(values("uint8", 20, 24, 3)).save(path)
    whole = path.read_bytes()
    turned = [whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    refused = 0
    for content in [whole[:end] for end in range(1, len(whole), 7)] + turned:
        path.write_bytes(content)
        answers = [read_by(decoder, path) for decoder in ("kornia_rs", "Pillow")]
        assert np.array_equal(*answers)
        refused += isinstance(answers[0], str)
    assert refused > len(whole) // 8  # each that was cut short


def test_threads_read_by_the_decoder_that_lets_others_run(tmp_path, monkeypatch):
    class Spy:
        def __getattr__(self, name: str):
            raise AssertionError(f"{name} holds the interpreter")

    Image.fromarray(values("uint8", 5, 7, 3)).save(tmp_path / "a.png")
    by_main = read_image(tmp_path / "a.png")
    monkeypatch.setattr(images, "suppress", lambda _: contextlib.nullcontext())  # what decoders raise is told
    monkeypatch.setattr(images, "kornia", Spy())
    with pytest.raises(DataError, match="holds the interpreter"):
        read_image(tmp_path / "a.png")
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(read_image, tmp_path / "a.png").result(), by_main)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_tiff_keeps_every_bit_and_channel(tmp_path, dtype, channels, planar):
    path, image = tmp_path / "a.tif", values(dtype, 5, 7, channels)
    if channels == 1:
        tifffile.imwrite(path, image[:, :, 0])
    else:
        stored = image if planar == "contig" else image.transpose(2, 0, 1)
        tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar, compression="zlib")
    read = read_image(path)
    assert read.dtype == image.dtype and np.array_equal(read, image)
    assert inspect_image(path)[:4] == (5, 7, channels, dtype)


def test_what_is_read_can_be_written_to(tmp_path):
    # torch warns of memory that it may not write to, and some decoders hand out just that.
    Image.fromarray(values("uint8", 5, 7, 3)).save(tmp_path / "a.png")
    Image.fromarray(values("uint8", 5, 7, 3)).save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", values("uint8", 5, 7, 3), photometric="rgb")
    arrays = [read_image(tmp_path / f"a.{e}") for e in ("png", "jpg", "tif")] + [read_mask(tmp_path / "a.png")]
    assert all(a.flags.writeable and a.flags.c_contiguous for a in arrays)


def test_imagej_channels_are_channels(tmp_path):
    image = values("uint16", 4, 5, 7)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "CYX"})
    assert np.array_equal(read_image(tmp_path / "a.tif"), image.transpose(1, 2, 0))


def test_smaller_copies_behind_a_picture_are_no_pages(tmp_path):
    image = values("uint8", 64, 64, 5)
    for name, subifds in (("subifd.tif", 1), ("pages.tif", 0)):  # as tifffile, and as cloud-optimised GeoTIFF has them
        with tifffile.TiffWriter(tmp_path / name) as tif:
            tif.write(image, photometric="minisblack", planarconfig="contig", tile=(32, 32), subifds=subifds)
            tif.write(image[::2, ::2], photometric="minisblack", planarconfig="contig", tile=(32, 32), subfiletype=1)
        assert np.array_equal(read_image(tmp_path / name), image)


def test_parts_that_a_tiff_does_not_list_are_no_zeros(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values("uint8", 21, 7), compression="zlib", rowsperstrip=7)
    assert read_image(path).shape == (21, 7, 1)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.first.tags["ImageLength"].overwrite(16_777_225)
    for reader in (read_image, read_mask, inspect_image):
        with pytest.raises(DataError, match="its head lists 3 of the image's 2396747 parts"):
            reader(path)


def test_other_numbers_become_float32_only_without_loss(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.array([[-3, 7]], np.int16))
    assert read_image(path).dtype == np.float32 and read_image(path).ravel().tolist() == [-3, 7]
    tifffile.imwrite(path, np.array([[0.1, 7]], np.float64))
    with pytest.raises(DataError, match="float32 would round"):
        read_image(path)
    tifffile.imwrite(path, np.array([[2**24 + 1, 7]], np.uint32))
    with pytest.raises(DataError, match="float32 would round"):
        read_image(path)


def test_one_channel_may_be_an_axis_of_its_own(tmp_path):
    image = values("uint16", 5, 7, 1)
    for number, written in enumerate((image, image.squeeze(), image.squeeze()[None])):
        tifffile.imwrite(tmp_path / f"{number}.tif", written, photometric="minisblack")
        assert np.array_equal(read_image(tmp_path / f"{number}.tif"), image)
        assert inspect_image(tmp_path / f"{number}.tif")[:4] == (5, 7, 1, np.uint16)
        assert np.array_equal(open_image(tmp_path / f"{number}.tif").rows(0, 5), image)


def test_an_infinite_value_is_named_with_its_place(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[1, 2], [np.inf, 4]], np.float32))
    with pytest.raises(DataError, match=r"a\.tif: channel 0 is inf at row 1, column 0"):
        read_image(tmp_path / "a.tif")


def test_a_palette_image_is_rgb_and_a_palette_mask_its_indices(tmp_path):
    path, indices = tmp_path / "a.png", np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(path)
    colors = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
    assert np.array_equal(read_image(path), colors[indices])
    assert inspect_image(path)[:4] == (2, 2, 3, np.uint8)
    assert np.array_equal(read_mask(path), indices)
    assert np.array_equal(read_mask(path, colors=True), colors[indices])
    assert np.array_equal(read_palette(path)[:3], colors)


def test_a_palette_tiff_likewise(tmp_path):
    path, indices = tmp_path / "a.tif", np.array([[0, 1], [2, 1]], np.uint8)
    colors = rng.integers(0, 256, (256, 3), np.uint8)
    tifffile.imwrite(path, indices, photometric="palette", colormap=colors.T.astype(np.uint16) * 257)
    assert np.array_equal(read_image(path), colors[indices])
    assert inspect_image(path)[:4] == (2, 2, 3, np.uint8)
    assert np.array_equal(read_mask(path), indices)


@pytest.mark.parametrize(("bits", "packed"), [(1, b"\x40\x80"), (2, b"\x1b\x80"), (4, b"\x01\x23\xf0\x10")])
def test_a_mask_of_few_bits_keeps_its_ids(tmp_path, bits, packed):
    # Decoders stretch 2 and 4 bits to 0..255: id 3 of 4 bits would arrive as 51.
    path = write_png(tmp_path / "a.png", packed, 2, 3 if bits == 4 else 4, bits, 0)
    expected = {1: [[0, 1, 0, 0], [1, 0, 0, 0]], 2: [[0, 1, 2, 3], [2, 0, 0, 0]], 4: [[0, 1, 2], [15, 0, 1]]}[bits]
    assert read_mask(path).tolist() == expected


def test_a_16_bit_mask_keeps_its_ids(tmp_path):
    mask = values("uint16", 5, 7)
    cv2.imwrite(str(tmp_path / "a.png"), mask)
    tifffile.imwrite(tmp_path / "a.tif", mask)
    for path in (tmp_path / "a.png", tmp_path / "a.tif"):
        assert read_mask(path).dtype == np.uint16 and np.array_equal(read_mask(path), mask)


def test_an_rgb_mask_may_have_an_opaque_alpha_channel_only(tmp_path):
    mask = values("uint8", 5, 7, 4)
    mask[..., 3] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), mask[..., :3])
    mask[2, 3, 3] = 254
    Image.fromarray(mask).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="transparent"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_tag_says(tmp_path, orientation):
    stored = np.kron(np.array([[0, 80, 160], [255, 200, 120]], np.uint8), np.ones((16, 16), np.uint8))
    # What the tag says about row 0 and column 0 of the stored pixels (TIFF 6.0): where they are seen.
    seen = {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored.T, 2),
        8: np.rot90(stored),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100)
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(274, "H", 1, orientation, True)])
    assert np.abs(read_image(tmp_path / "a.jpg")[..., 0].astype(int) - seen).max() <= 2  # JPEG rounds
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 0], seen)
    for path in (tmp_path / "a.jpg", tmp_path / "a.tif"):
        assert inspect_image(path)[:3] == (*seen.shape, 1)


def truncated(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be read as an image, and a part of the reason."""
    noise = values("uint8", 64, 64, 3)
    files = {}
    for ending, share in (("png", 0.5), ("jpg", 0.7), ("tif", 0.5), ("zlib.tif", 0.9)):
        path = folder / f"half.{ending}"
        if ending == "zlib.tif":
            tifffile.imwrite(path, noise, photometric="rgb", compression="zlib", rowsperstrip=8)
        else:
            Image.fromarray(noise).save(path)
        files[f"half {ending}"] = (truncated(path, share), "")
    cv2.imwrite(str(folder / "deep.png"), values("uint16", 64, 64, 3))
    files["half 16-bit png"] = (truncated(folder / "deep.png", 0.5), "")
    (folder / "empty.png").touch()
    files["empty"] = (folder / "empty.png", "0 bytes")
    (folder / "text.png").write_text("not an image")
    files["text"] = (folder / "text.png", "not an image in PNG, JPEG, TIFF or BMP")
    files["absent"] = (folder / "absent.png", "no such file")
    (folder / "folder.png").mkdir()
    files["folder"] = (folder / "folder.png", "directory")
    (folder / "start.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    files["only the first bytes"] = (folder / "start.png", "")
    Image.fromarray(noise).convert("CMYK").save(folder / "cmyk.jpg")
    files["cmyk"] = (folder / "cmyk.jpg", "CMYK colours")
    Image.fromarray(noise).convert("CMYK").save(folder / "cmyk.tif")
    files["cmyk tiff"] = (folder / "cmyk.tif", "SEPARATED colours")
    frames = [Image.fromarray(noise), Image.fromarray(noise[::-1])]
    frames[0].save(folder / "animated.png", save_all=True, append_images=frames[1:])
    files["animation"] = (folder / "animated.png", "animation of 2 pictures")
    tifffile.imwrite(folder / "pages.tif", values("uint8", 5, 64, 64), photometric="minisblack")
    files["pages"] = (folder / "pages.tif", "5 pages")
    with tifffile.TiffWriter(folder / "series.tif") as tif:
        tif.write(noise, photometric="rgb")
        tif.write(noise[:32], photometric="rgb")
    files["pages of two sizes"] = (folder / "series.tif", "2 pages")
    tifffile.imwrite(folder / "white.tif", noise[..., 0], photometric="miniswhite")
    files["white is zero"] = (folder / "white.tif", "MINISWHITE")
    Image.fromarray(noise).save(folder / "a.ppm")
    files["ppm"] = ((folder / "a.ppm").rename(folder / "ppm.png"), "not an image in PNG, JPEG, TIFF or BMP")
    files["16-bit grey with alpha"] = (write_png(folder / "ga.png", bytes(16), 2, 2, 16, 4), "16-bit grey with alpha")
    return files


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path):
    for case, (path, reason) in broken_files(tmp_path).items():
        with pytest.raises(DataError) as caught:
            read_image(path)
        assert str(path) in str(caught.value) and reason in str(caught.value), case


def test_the_check_of_an_image_finds_what_reading_would_find(tmp_path):
    for case, (path, _) in broken_files(tmp_path).items():
        with pytest.raises(DataError):
            inspect_image(path)
            pytest.fail(case)


def test_an_image_far_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.fromarray(values("uint8", 50, 50)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", values("uint8", 50, 50))
    for path in (tmp_path / "a.png", tmp_path / "a.tif"):
        with pytest.raises(DataError, match="million pixels"):
            read_image(path)


def test_a_jpeg_mask_and_float_ids_are_refused(tmp_path):
    Image.fromarray(values("uint8", 8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="JPEG, whose compression changes label values"):
        read_mask(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", values("float32", 8, 8))
    with pytest.raises(DataError, match="float32 values"):
        read_mask(tmp_path / "a.tif")


def test_names_keep_folders_and_dots_and_leave_hidden_files_out(tmp_path):
    for name in ("b/x.1.png", "a.tif", ".hidden.png", "._a.tif", "notes.txt", "b/.cache/y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(list_files(tmp_path, (".png", ".tif"))) == ["a", "b/x.1"]


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="same name"):
        list_files(tmp_path, (".png", ".jpg"))
