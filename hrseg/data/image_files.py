"""Images and masks from files: every bit of them, or an error that says why not."""

from __future__ import annotations

import io
import logging
import math
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from hrseg.errors import DataError

# Extras, which give the same pixels as Pillow
try:
    import kornia_rs.io as kornia  # PNG in half of Pillow's time, JPEG in two thirds; one thread at a time
except ImportError:
    kornia = None  # type: ignore[assignment]
try:
    from imagecodecs import png_decode  # PNG in two thirds of it, in as many threads as wish
except ImportError:
    png_decode = None  # type: ignore[assignment]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MASK_ENDINGS = (".png", ".tif", ".tiff")  # JPEG changes values, and a mask's values are its meaning
OTHER_ENDINGS = (".bmp", ".gif", ".webp", ".jp2", ".ppm", ".heic")  # pictures that are not read

MOST_TAGS, MOST_PAGES = 1000, 10_000  # of a TIFF; what has more than one page is refused in other words

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it has to say of broken files is said by the DataError

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_HEAD = 26  # bytes at a file's start in which a PNG tells what its values are
_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6  # colour types of a PNG
_Depth = tuple[int, int]  # bits a channel, colour type
_ORIENTATION = 274  # the EXIF and TIFF tag
_TRANSPOSED = (5, 6, 7, 8)  # its values for pictures whose rows are stored as columns
_ONE_PAGE = (
    "A file is one image: save a page of its own for each, or several channels in one page, as "
    "tifffile.imwrite(path, array, photometric='minisblack', planarconfig='contig') does for [H, W, C]."
)


class ImageInfo(NamedTuple):
    """What an image will be when it is read."""

    height: int
    width: int
    channels: int
    dtype: np.dtype


def read_image(path: str | Path) -> np.ndarray:
    """An image, uint8, uint16 or float32 [H, W, C], from PNG, JPEG or TIFF.

    Grey has one channel, palettes become RGB, a JPEG or TIFF is turned as its orientation tag says (so people saw it
    when they drew the mask). Other number types become float32 where it holds every value exactly.
    Raises DataError with the path and the reason for everything else: a broken file, CMYK, several pages, lost bits.
    """
    path = Path(path)
    start = _start(path)
    with _decoding(path):
        if start.startswith(_TIFF_STARTS):
            array = _read_tiff(path, palette_to_rgb=True)
            if array.dtype == bool:
                array = array.astype(np.uint8) * 255
        else:
            array = _read_pillow_image(path, _png_depth(start))
        return _own(_as_image_type(path, array if array.ndim == 3 else array[:, :, None]))


def read_mask(path: str | Path, *, colors: bool = False) -> np.ndarray:
    """A mask's own values, uint8, uint16 or another integer [H, W], or uint8 [H, W, 3] where it is an RGB picture.

    A palette gives its indices; with colors, palettes and grey values become RGB.
    Raises DataError with the path and the reason, also for JPEG, which changes values, and for transparency.
    """
    path = Path(path)
    start = _start(path)
    with _decoding(path):
        if start.startswith(_TIFF_STARTS):
            array = _read_tiff(path, palette_to_rgb=colors)
        else:
            array = _read_pillow_mask(path, _png_depth(start), colors)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] == 4:
        if (array[:, :, 3] != np.iinfo(array.dtype).max).any():
            raise DataError(path, "is a mask with transparent pixels.", "Save it without an alpha channel.")
        array = array[:, :, :3]
    if array.ndim == 3 and (array.shape[2] != 3 or array.dtype != np.uint8):
        what = f"is a mask with {array.shape[2]} channels of {array.dtype}."
        raise DataError(path, what, "A mask has one channel of ids, or three of 8 bits for a colour.")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(path, f"is a mask of {array.dtype} values.", "Ids are integers: save it as 8 or 16 bit.")
    if colors and array.ndim == 2:
        if array.dtype != np.uint8:
            raise DataError(path, f"holds {array.dtype} values where a colour is expected.")
        array = np.repeat(array[:, :, None], 3, axis=2)
    return _own(array)


def read_palette(path: str | Path) -> np.ndarray | None:
    """uint8 [n, 3]: the colours of a palette PNG, from its header alone; None for any other file."""
    path = Path(path)
    if not _start(path).startswith(_PNG_START):
        return None
    with _decoding(path), Image.open(path, formats=("PNG",)) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    return None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)


def inspect_image(path: str | Path) -> ImageInfo:
    """The size and channels that `read_image` would give, and whether the file is whole, without decoding all of it.

    PNG: the checksum of each part. JPEG: decoded at an eighth of its size. TIFF: all its parts lie within the file.
    Raises DataError as `read_image` does.
    """
    path = Path(path)
    start = _start(path)
    with _decoding(path):
        if start.startswith(_TIFF_STARTS):
            return _inspect_tiff(path)
        depth = _png_depth(start)
        with _open_pillow(path, depth) as image:
            width, height = image.size
            channels = 3 if image.mode == "P" else len(image.getbands())
            dtype = np.dtype(np.uint16 if depth and depth[0] == 16 else np.uint8)
            if image.format == "PNG":
                image.verify()
            else:
                if _orientation(image) in _TRANSPOSED:
                    height, width = width, height
                image.draft("L", (1, 1))
                image.load()
    return ImageInfo(height, width, channels, dtype)


def list_files(
    folder: Path, endings: Sequence[str], *, suffix: str = "", unread: list[str] | None = None
) -> dict[str, str]:
    """Paths below a folder by name: the path from the folder, '/' between folders, without `suffix` and ending; sorted.

    Hidden files and other endings are left out. unread: receives the paths of pictures in other formats. Raises
    DataError where two files have one name (a.png and a.jpg), and as `walk` does.
    """
    found: dict[str, str] = {}
    others = {*OTHER_ENDINGS, *IMAGE_ENDINGS} - {*endings}
    start = len(str(folder)) + 1
    for path in walk(folder):
        ending = ending_of(path)
        if ending not in endings:
            if unread is not None and ending in others:
                unread.append(path)
            continue
        name = path[start : len(path) - len(ending)].replace(os.sep, "/")
        if not name.endswith(suffix):
            continue
        name = name.removesuffix(suffix)
        if name in found:
            raise DataError(path, f"has the same name as {Path(found[name]).name}.", "Keep one of the two.")
        found[name] = path
    return {name: found[name] for name in sorted(found)}


def ending_of(path: str) -> str:
    """The ending of a file's name, in small letters, as `Path.suffix` gives it, many times faster."""
    _, dot, ending = path.rpartition(".")
    return f"{dot}{ending}".lower()


def walk(folder: str | Path) -> Iterator[str]:
    """The paths of all files below a folder but the hidden ones (.DS_Store, the ._* of a Mac's archive), sorted.

    Strings, for there may be very many. Links to folders are followed. Raises DataError for one to a folder above it.
    """
    yield from _walk(os.fspath(folder), frozenset({os.path.realpath(folder)}))


def _walk(folder: str, above: frozenset[str]) -> Iterator[str]:
    """above: the real paths of this folder and of those that it lies in."""
    try:
        with os.scandir(folder) as entries:
            shown = [e for e in entries if not e.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(folder, f"cannot be read: {error.strerror}.") from None
    folders = {e.path for e in shown if _is_folder(e)}
    # Links that lead nowhere are files too, to be complained of; pipes and devices, which may never end, are not.
    files = {e.path for e in shown if e.is_symlink() or e.is_file()} - folders
    yield from sorted(files)
    for path in sorted(folders):
        real = os.path.realpath(path)
        if real in above:
            raise DataError(path, "leads back, by a link, into a folder that it lies in.", "Remove the link.")
        yield from _walk(path, above | {real})


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """What a decoder raises becomes a DataError: decoders fail in many ways, and always because of the file."""
    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Image.UnidentifiedImageError:
        raise DataError(path, "is not an image in PNG, JPEG or TIFF, or its head is broken.") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        way_out = "Install it with: pip install imagecodecs." if "imagecodecs" in str(error) else ""
        raise DataError(path, f"cannot be decoded: {error or type(error).__name__}.", way_out) from error


def _start(path: Path) -> bytes:
    """The first bytes of a file, which tell its format; the ending of its name does not count."""
    with _decoding(path):
        try:
            with path.open("rb", buffering=0) as file:
                start = file.read(_HEAD)
        except FileNotFoundError:
            raise DataError(path, "no such file.") from None
    if not start:
        raise DataError(path, "is empty (0 bytes).")
    return start


def _own(array: np.ndarray) -> np.ndarray:
    """Contiguous and writable, copied if need be: torch warns of arrays that lie in a decoder's memory."""
    return np.require(array, requirements=["C", "W"])


def _too_large(path: Path) -> DataError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    return DataError(path, f"has more than {limit} million pixels.", "Cut it into tiles.")


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] turned and mirrored as the tag says: TIFF 6.0, section 8, Orientation."""
    if orientation in _TRANSPOSED:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _as_image_type(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind not in "iuf":
        raise DataError(path, f"holds {array.dtype} values.", "Images are 8 or 16 bit integers or floats.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, column, channel = np.argwhere(~np.isfinite(array))[0]
        what = f"channel {channel} is {array[row, column, channel]} at row {row}, column {column}."
        raise DataError(path, what, "Write a number in its place.")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if single.dtype != array.dtype and not np.array_equal(single.astype(array.dtype), array):
        raise DataError(path, f"holds {array.dtype} values that float32 would round.", "Save it as float32.")
    return single


# PNG and JPEG, by Pillow


def _open_pillow(path: Path, depth: _Depth | None) -> Image.Image:
    image = Image.open(path, formats=("PNG", "JPEG"))
    # An MPO is a camera's JPEG with previews behind the photograph: the first picture is the one that viewers show.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise DataError(path, f"is an animation of {image.n_frames} pictures.", "Save them one by one.")  # type: ignore[attr-defined]
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16B"):
        raise DataError(path, f"has {image.mode} colours.", "Save it as RGB.")
    if depth == (16, _GREY_ALPHA):
        raise DataError(path, "is 16-bit grey with alpha, of which half the bits would be lost.", "Save it as TIFF.")
    return image


def _png_depth(start: bytes) -> _Depth | None:
    """Bits a channel and colour type of a PNG (RFC 2083, section 11.2.2), which Pillow does not tell; None for JPEG."""
    return (start[24], start[25]) if start.startswith(_PNG_START) and len(start) == _HEAD else None


def _orientation(image: Image.Image) -> int:
    # Only of JPEG: viewers do not agree on a PNG's, and Pillow decodes the picture to find it.
    return 1 if image.format == "PNG" else image.getexif().get(_ORIENTATION, 1)


def _pillow_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    if image.mode.startswith("I"):  # 16-bit grey, which older Pillow widens to 32
        array = array.astype(np.uint16)
    return array


def _decoded(path: Path, image: Image.Image, depth: _Depth | None) -> np.ndarray:
    """The pixels of a PNG or JPEG that was opened, grey, colours or indices as they stand in the file."""
    with suppress(Exception):  # what they refuse is read below, or it is said there what is wrong with it
        if kornia and threading.current_thread() is threading.main_thread():
            return _by_kornia(path, image, depth)
        if png_decode is not None and depth in ((8, _GREY), (16, _GREY), (8, _RGB)):
            array = np.atleast_3d(png_decode(path.read_bytes()))
            return array[:, :, : len(image.getbands())]  # a colour that stands for "transparent" adds one
    if depth in ((16, _RGB), (16, _RGBA)):
        return _read_deep_png(path, image)
    return _pillow_array(image)


def _by_kornia(path: Path, image: Image.Image, depth: _Depth | None) -> np.ndarray:
    """`_decoded`, while the interpreter waits. Raises for palettes, 1 to 4 bits, grey with alpha, and any damage.

    The first three it refuses before the file is read, which Pillow then does.
    """
    if depth is None:
        mode = {"L": "mono", "RGB": "rgb"}[image.mode]
        return kornia.decode_image_jpegturbo(path.read_bytes(), mode)
    decode = {8: kornia.decode_image_png_u8, 16: kornia.decode_image_png_u16}[depth[0]]
    mode = {_GREY: "mono", _RGB: "rgb", _RGBA: "rgba"}[depth[1]]
    return decode(path.read_bytes(), (image.height, image.width), mode)


def _read_pillow_image(path: Path, depth: _Depth | None) -> np.ndarray:
    with _open_pillow(path, depth) as image:
        if image.mode == "P":
            return np.asarray(image.convert("RGB"))
        if image.mode == "1":
            return np.asarray(image.convert("L"))
        return _upright(_decoded(path, image, depth), _orientation(image))


def _read_deep_png(path: Path, image: Image.Image) -> np.ndarray:
    """16-bit RGB and RGBA, by OpenCV: Pillow keeps only the upper 8 bits."""
    import cv2

    image.verify()  # OpenCV gives half a picture for half a file
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise DataError(path, "its 16-bit colours cannot be decoded.")
    return array[:, :, [2, 1, 0, 3][: array.shape[2]]]


def _read_pillow_mask(path: Path, depth: _Depth | None, colors: bool) -> np.ndarray:
    with _open_pillow(path, depth) as image:
        if depth is None:
            raise DataError(path, "is a mask in JPEG, which changes values.", "Save masks as PNG.")
        bits, color_type = depth
        if bits == 16 and color_type != _GREY:
            raise DataError(path, "is a mask of 16-bit colours.", "Ids have one channel, colours 8 bits.")
        if image.mode == "LA":
            image = image.convert("RGBA")
        if colors and image.mode in ("P", "1"):
            image = image.convert("RGB")
        array = _decoded(path, image, depth)
    if color_type == _GREY and bits in (2, 4) and not colors:
        array = array // (255 // (2**bits - 1))  # Pillow stretches 2 and 4 bits to 0..255: ids would change
    return array


# TIFF, by tifffile: Pillow opens 4 x 16 bits as 8-bit RGBA without a word


def _check_directories(path: Path, content: bytes | mmap.mmap) -> None:
    """Refuse a TIFF whose head goes in a circle or promises tags without end; tifffile follows it for minutes.

    Source: TIFF 6.0, section 2, and the BigTIFF proposal.
    """
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    big = content[2:4] in (b"+\0", b"\0+")
    word, counter, entry = (8, 8, 20) if big else (4, 2, 12)  # bytes of an offset, of a count, of a tag

    def number(at: int, width: int) -> int:
        if at + width > len(content):
            raise DataError(path, "is truncated, or its head is broken.")
        return int.from_bytes(content[at : at + width], order)

    offset, pages = number(8 if big else 4, word), 0
    while offset:
        tags, pages = number(offset, counter), pages + 1
        if tags > MOST_TAGS or pages > MOST_PAGES:
            raise DataError(path, "its head promises more tags or pages than a picture has: it is broken.")
        offset = number(offset + counter + tags * entry, word)


def _open_tiff(path: Path, tif: Any) -> tuple[Any, str]:
    """The one series of a TIFF and its axes. Raises DataError where it is not one picture."""
    from tifffile import COMPRESSION, PHOTOMETRIC

    series, page = tif.series[0], tif.pages.first
    axes = series.axes
    if len(tif.series) > 1 or axes not in ("YX", "YXS", "SYX", "CYX", "YXC"):
        raise DataError(path, f"holds {len(tif.pages)} pages, its axes are {axes}.", _ONE_PAGE)
    readable = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)
    jpeg = page.photometric == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG  # decoded to RGB
    if page.photometric not in readable and not jpeg:
        raise DataError(path, f"has {PHOTOMETRIC(page.photometric).name} colours.", "Save it as grey or RGB.")
    height, width = series.shape[axes.index("Y")], series.shape[axes.index("X")]
    if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise _too_large(path)
    return series, axes


def _tiff_orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return 1 if tag is None else int(tag.value)


def _read_tiff(path: Path, palette_to_rgb: bool) -> np.ndarray:
    import tifffile

    content = path.read_bytes()
    _check_directories(path, content)
    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        series, axes = _open_tiff(path, tif)
        _check_segments(path, tif)
        array = series.asarray(maxworkers=1)
        page = tif.pages.first
        if axes in ("SYX", "CYX"):
            array = np.moveaxis(array, 0, 2)
        if palette_to_rgb and page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            palette = np.asarray(page.colormap) >> 8  # [3, n], 8-bit colours held in 16
            array = palette.astype(np.uint8).T[array]
        return _upright(array, _tiff_orientation(page))


def _inspect_tiff(path: Path) -> ImageInfo:
    import tifffile

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _check_directories(path, content)
    with tifffile.TiffFile(path) as tif:
        series, axes = _open_tiff(path, tif)
        _check_segments(path, tif)
        sizes = dict(zip(axes, series.shape, strict=True))
        palette = tif.pages.first.photometric == tifffile.PHOTOMETRIC.PALETTE
        height, width = sizes.pop("Y"), sizes.pop("X")
        if _tiff_orientation(tif.pages.first) in _TRANSPOSED:
            height, width = width, height
        dtype = np.dtype(np.uint8 if palette or series.dtype == bool else series.dtype)
        dtype = dtype if dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
        return ImageInfo(height, width, 3 if palette else next(iter(sizes.values()), 1), dtype)


def _check_segments(path: Path, tif: Any) -> None:
    """tifffile fills what its head does not list, and in some encodings what lies behind its end, with zeros."""
    size = tif.filehandle.size
    for page in tif.series[0].pages:
        if page is None:
            continue
        listed, parts = len(page.dataoffsets), math.prod(page.chunked)
        if listed < parts and not page.is_contiguous:
            raise DataError(path, f"its head lists {listed} of the image's {parts} parts: it is broken.")
        if any(o + n > size for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise DataError(path, "is truncated: parts of the image lie behind its end.")
