"""Writes the layout of data.dataset=folder: images/, masks/, instances/, classes.yaml, lists of splits, import.json.

Everything goes into a temporary folder beside the target and takes its name at the end: whole or not at all.
"""

from __future__ import annotations

import io
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from hrseg.config.yaml_files import yaml_text
from hrseg.data.images import IMAGE_ENDINGS
from hrseg.errors import HrsegError, first_line
from hrseg.importing.image_index import CONVERTED
from hrseg.importing.records import BrokenError, Category

IGNORED_COLOR = (224, 224, 192)  # that of PASCAL VOC's "void"
MOST_WAITING = 4  # masks in memory that are not written yet


class Layout:
    """The files of one new data set. copy: images are copied, not linked.

    Masks are encoded in threads while others are drawn; `finish` waits for them.
    """

    def __init__(self, folder: Path, *, copy: bool, colors: Sequence[tuple[int, int, int]], first_id: int):
        self.folder, self.copy = folder, copy
        self._palette = np.zeros((256, 3), np.uint8)
        self._palette[255] = IGNORED_COLOR
        if len(colors) + first_id <= 256:
            self._palette[first_id : first_id + len(colors)] = colors
        (folder / "images").mkdir()
        (folder / "masks").mkdir()
        self._pool = ThreadPoolExecutor(2)
        self._writing: deque[Future] = deque()

    def finish(self) -> None:
        """Wait until all masks are written. Raises what writing one of them raised."""
        try:
            while self._writing:
                self._writing.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _later(self, write: Callable[..., None], *words: Any) -> None:
        """Call a function in a thread; a few wait at most, for they hold whole masks."""
        while len(self._writing) >= MOST_WAITING:
            self._writing.popleft().result()
        self._writing.append(self._pool.submit(write, *words))

    def add_image(self, name: str, file: Path | bytes) -> Path:
        """Link, copy or convert an image. Raises BrokenError where it is in no format that hrseg reads."""
        ending = _ending(file)
        target = self._place("images", name, ".png" if ending in CONVERTED else ending)
        if ending in CONVERTED:
            target.write_bytes(_as_png(file))
        elif isinstance(file, bytes):
            target.write_bytes(file)
        elif self.copy or not _linked(file.resolve(), target):
            shutil.copyfile(file, target)
        return target

    def remove(self, name: str) -> None:
        """Take back what was written of an image that turns out to be of no use."""
        for kind in ("images", "masks", "instances"):
            for ending in (*IMAGE_ENDINGS,):
                (self.folder / kind / f"{name}{ending}").unlink(missing_ok=True)

    def add_mask(self, name: str, values: np.ndarray) -> None:
        """uint8 [H, W] as a palette PNG, uint16 as a grey one."""
        self._later(self._write_mask, self._place("masks", name, ".png"), values)

    def add_objects(self, name: str, objects: np.ndarray) -> None:
        """Object numbers [H, W]: a PNG of 16 bits, where they do not fit a TIFF of 32."""
        ending = ".png" if objects.dtype == np.uint16 else ".tif"
        self._later(_write_objects, self._place("instances", name, ending), objects)

    def _write_mask(self, path: Path, values: np.ndarray) -> None:
        if values.dtype == np.uint8:
            picture = Image.fromarray(values)
            picture.putpalette(self._palette.tobytes())
            # Run lengths: a third of the time of the default, and masks get no larger.
            picture.save(path, compress_type=zlib.Z_RLE)
        else:
            _write_16_bits(path, values)

    def write_classes(self, categories: Sequence[Category], colors: Sequence, first_id: int, ignore: int) -> None:
        entries = [
            {"name": category.name, "id": i, "color": list(color)}
            for i, (category, color) in enumerate(zip(categories, colors, strict=True), start=first_id)
        ]
        text = yaml_text({"classes": entries, "ignore": ignore})
        (self.folder / "classes.yaml").write_text(text, encoding="utf-8")

    def write_list(self, split: str, names: Sequence[str]) -> None:
        (self.folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")

    def _place(self, kind: str, name: str, ending: str) -> Path:
        path = self.folder / kind / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _ending(file: Path | bytes) -> str:
    if isinstance(file, Path):
        return file.suffix.lower()
    starts = {
        b"\x89PNG": ".png",
        b"\xff\xd8\xff": ".jpg",
        b"II": ".tif",
        b"MM": ".tif",
        b"BM": ".bmp",
        b"RIFF": ".webp",
    }
    for start, ending in starts.items():
        if file.startswith(start):
            return ending
    raise BrokenError("the image inside the file is in no format that is read.")


def _linked(file: Path, target: Path) -> bool:
    try:
        target.symlink_to(file)
    except (OSError, NotImplementedError):  # file systems and systems without links: it is copied
        return False
    return True


def _as_png(file: Path | bytes) -> bytes:
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=("BMP", "WEBP")) as image:
            image.convert("L" if image.mode in ("1", "L") else "RGB").save(buffer, "PNG")
    except Exception as error:  # Pillow's decoders fail in many ways, always because of the file
        raise BrokenError(f"the image cannot be decoded: {first_line(error)}.") from None
    return buffer.getvalue()


def _write_objects(path: Path, objects: np.ndarray) -> None:
    if path.suffix == ".png":
        _write_16_bits(path, objects)
    else:
        Image.fromarray(objects.astype(np.int32)).save(path)


def _write_16_bits(path: Path, values: np.ndarray) -> None:
    done, content = cv2.imencode(".png", values)
    if not done:
        raise HrsegError(path, "cannot be encoded as PNG.")
    path.write_bytes(content.tobytes())
