"""PNG, JPEG and BMP, by Pillow and faster decoders."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.data.images.decoding import (
    HEAD_BYTES,
    ORIENTATION_TAG,
    PNG_START,
    TRANSPOSED,
    DecodedImage,
    ImageInfo,
    decoding_errors,
    file_head,
    upright,
    without_nodata,
)
from hrseg.errors import DataError

# Optional decoders, which give the same pixels as Pillow
try:
    import kornia_rs.io as kornia  # PNG in half of Pillow's time, JPEG in two thirds; one thread at a time
except ImportError:
    kornia = None  # type: ignore[assignment]
try:
    from imagecodecs import png_decode  # PNG in two thirds of it, in any number of threads
except ImportError:
    png_decode = None  # type: ignore[assignment]

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6  # colour types of a PNG
PngDepth = tuple[int, int]  # bits per channel, colour type


def read_png_or_jpeg(path: Path, depth: PngDepth | None) -> DecodedImage:
    """An image, upright. depth: `png_depth` of its head."""
    with open_png_or_jpeg(path, depth) as image:
        if image.mode == "P" and "transparency" in image.info:
            pixels = np.asarray(image.convert("RGBA"))
            opaque = pixels[..., 3] > 0
            return DecodedImage(pixels[..., :3] * opaque[..., None], False, None if opaque.all() else opaque)
        if image.mode == "P":
            return DecodedImage(np.asarray(image.convert("RGB")), False, None)
        if image.mode == "1":
            return DecodedImage(np.asarray(image.convert("L"))[..., None], False, None)
        array = upright(_decoded(path, image, depth), pillow_orientation(image))
        array = array if array.ndim == 3 else array[:, :, None]
        key = image.info.get("transparency")
        pixels, valid = (array, None) if key is None else without_nodata(array, key)
        return DecodedImage(pixels, image.mode in ("LA", "RGBA"), valid)


def read_png_mask(path: Path, depth: PngDepth | None, colors: bool, *, lossy: bool = False) -> np.ndarray:
    """A mask's own values [H, W], or colours [H, W, C].

    colors: palettes and single bits become RGB. lossy: JPEG is taken too.
    """
    with open_png_or_jpeg(path, depth) as image:
        if depth is None and image.format != "BMP" and not lossy:
            raise DataError(path, "is a mask in JPEG, whose compression changes label values.", "Save it as PNG.")
        bits, color_type = depth or (8, None)
        if colors and image.mode in ("P", "1"):
            image = image.convert("RGB")
        array = _decoded(path, image, depth)
        if depth is None:  # of a PNG the tag is not read
            array = upright(array, pillow_orientation(image))
    if color_type == GREY and bits in (2, 4) and not colors:
        array = array // (255 // (2**bits - 1))  # Pillow stretches 2 and 4 bits to 0..255: ids would change
    return array


def read_palette(path: str | Path) -> np.ndarray | None:
    """uint8 [n, 3]: the colours of a palette PNG, from its header alone; None for any other file."""
    path = Path(path)
    if not file_head(path).startswith(PNG_START):
        return None
    with decoding_errors(path), Image.open(path, formats=("PNG",)) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    return None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)


def inspect_png_or_jpeg(path: Path, depth: PngDepth | None, *, whole: bool) -> ImageInfo:
    """As `inspect_image`. PNG: the checksum of each part is compared. JPEG: it is decoded at an eighth of its size."""
    with open_png_or_jpeg(path, depth) as image:
        width, height = image.size
        channels = 3 if image.mode == "P" else len(image.getbands())
        dtype = np.dtype(np.uint16 if depth and depth[0] == 16 else np.uint8)
        alpha = image.mode in ("LA", "RGBA")
        lacks = alpha or "transparency" in image.info
        if pillow_orientation(image) in TRANSPOSED:
            height, width = width, height
        if whole and image.format == "PNG":
            image.verify()
        elif whole:
            image.draft("L", (1, 1))
            image.load()
    return ImageInfo(height, width, channels, dtype, alpha, lacks)


def open_png_or_jpeg(path: Path, depth: PngDepth | None) -> Image.Image:
    """A file opened but not decoded. Raises DataError for animations, CMYK and 16-bit grey with alpha."""
    image = Image.open(path, formats=("PNG", "JPEG", "BMP"))
    # An MPO is a camera's JPEG with previews after the photograph: viewers show the first.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise DataError(path, f"is an animation of {image.n_frames} pictures.", "Save them one by one.")  # type: ignore[attr-defined]
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16B"):
        raise DataError(path, f"has {image.mode} colours.", "Save it as RGB.")
    if depth == (16, GREY_ALPHA):
        raise DataError(path, "is 16-bit grey with alpha, of which half the bits would be lost.", "Save it as TIFF.")
    return image


def png_depth(start: bytes) -> PngDepth | None:
    """Bits per channel and colour type of a PNG (RFC 2083, section 11.2.2), which Pillow hides; None for JPEG."""
    return (start[24], start[25]) if start.startswith(PNG_START) and len(start) == HEAD_BYTES else None


def pillow_orientation(image: Image.Image) -> int:
    """The orientation tag of an image."""
    # Only of JPEG: viewers do not agree on a PNG's, and Pillow decodes the whole image to find it.
    return 1 if image.format == "PNG" else image.getexif().get(ORIENTATION_TAG, 1)


def pillow_array(image: Image.Image) -> np.ndarray:
    """The pixels of a Pillow image; 16-bit grey as uint16."""
    array = np.asarray(image)
    if image.mode.startswith("I"):  # 16-bit grey, which older Pillow widens to 32
        array = array.astype(np.uint16)
    return array


def _decoded(path: Path, image: Image.Image, depth: PngDepth | None) -> np.ndarray:
    """The pixels of a PNG or JPEG that was opened, grey, colours or indices as they stand in the file."""
    with suppress(Exception):  # what they refuse is read below, or the error is raised there
        if kornia and threading.current_thread() is threading.main_thread():
            return _by_kornia(path, image, depth)
        if png_decode is not None and depth in ((8, GREY), (16, GREY), (8, RGB)):
            array = np.atleast_3d(png_decode(path.read_bytes()))
            return array[:, :, : len(image.getbands())]  # a colour that stands for "transparent" adds one
    if depth in ((16, RGB), (16, RGBA)):
        return _read_deep_png(path, image)
    return pillow_array(image)


def _by_kornia(path: Path, image: Image.Image, depth: PngDepth | None) -> np.ndarray:
    """As `_decoded`, but it blocks the interpreter. Raises for palettes, 1 to 4 bits, grey with alpha, and any damage.

    The first three it refuses before the file is read, which Pillow then does.
    """
    if depth is None:
        mode = {"L": "mono", "RGB": "rgb"}[image.mode]
        return kornia.decode_image_jpegturbo(path.read_bytes(), mode)
    decode = {8: kornia.decode_image_png_u8, 16: kornia.decode_image_png_u16}[depth[0]]
    mode = {GREY: "mono", RGB: "rgb", RGBA: "rgba"}[depth[1]]
    return decode(path.read_bytes(), (image.height, image.width), mode)


def _read_deep_png(path: Path, image: Image.Image) -> np.ndarray:
    """16-bit RGB and RGBA, by OpenCV: Pillow keeps only the upper 8 bits."""
    import cv2

    image.verify()  # OpenCV gives half a picture for half a file
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise DataError(path, "its 16-bit colours cannot be decoded.")
    return array[:, :, [2, 1, 0, 3][: array.shape[2]]]
