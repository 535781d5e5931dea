"""The page on which people decide about suspects: one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from hrseg.doctor.suspects import KINDS, Region, Suspect
from hrseg.files import whole_file
from hrseg.report.pictures import ignored_color
from hrseg.task import LabelSpace

LONGEST = 300  # pixels of the longer side of a cut-out
LEAST = 64  # pixels of the image that a cut-out shows at least
DECISIONS = "hrseg decisions 1"


class Cutter:
    """Cuts the pictures of suspects out of one image. photo: uint8 RGB [H, W, 3]; target, predicted: indices [H, W]."""

    def __init__(self, photo: np.ndarray, target: np.ndarray, predicted: np.ndarray, space: LabelSpace):
        self.photo, self.target, self.predicted = photo, target, predicted
        palette = [*(c.color for c in space.classes), ignored_color(space)]
        self.palette = np.array(palette, np.uint8)

    def cut(self, region: Region) -> dict[str, str]:
        """Pictures as data addresses: the photo, the label, the model's view, and the outline of the region."""
        height, width = self.target.shape
        top, left, bottom, right = region.box
        side = max(LEAST, int(1.8 * max(bottom - top, right - left)))
        y0, y1 = _around(top, bottom, side, height)
        x0, x1 = _around(left, right, side, width)
        scale = min(1.0, LONGEST / max(y1 - y0, x1 - x0))
        size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        window = np.s_[y0:y1, x0:x1]
        photo = cv2.resize(self.photo[window], size, interpolation=cv2.INTER_AREA)
        inside = np.zeros((height, width), np.uint8)
        inside[top:bottom, left:right] = region.inside
        shape = cv2.resize(inside[window], (2 * size[0], 2 * size[1]), interpolation=cv2.INTER_NEAREST)
        edge = cv2.dilate(shape, np.ones((5, 5), np.uint8)) - shape
        return {
            "photo": _address(Image.fromarray(photo), "webp", quality=80),
            "label_picture": self._colors(self.target[window], size),
            "said_picture": self._colors(self.predicted[window], size),
            "outline": _address(_transparent(edge), "png", transparency=0),
        }

    def _colors(self, plane: np.ndarray, size: tuple[int, int]) -> str:
        small = cv2.resize(np.minimum(plane, len(self.palette) - 1), size, interpolation=cv2.INTER_NEAREST)
        if len(self.palette) > 256:
            return _address(Image.fromarray(self.palette[small]), "png")
        picture = Image.fromarray(small.astype(np.uint8))
        picture.putpalette(self.palette.tobytes())
        return _address(picture, "png")


def _around(low: int, high: int, side: int, end: int) -> tuple[int, int]:
    start = max(0, min((low + high - side) // 2, end - side))
    return start, min(end, start + side)


def _transparent(edge: np.ndarray) -> Image.Image:
    picture = Image.fromarray((edge > 0).astype(np.uint8))
    picture.putpalette(bytes([0, 0, 0, 255, 255, 255]))
    return picture


def _address(picture: Image.Image, kind: str, **words: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), **words)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_page(
    path: Path, content: Mapping[str, Any], suspects: Sequence[Suspect], cuts: Sequence[dict[str, str]],
    space: LabelSpace,
) -> None:  # fmt: skip
    """Write the page. content: of suspects.json. Everything from files is escaped; no script but its own may run."""
    script, style = (resources.files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrseg.doctor", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    shown = ("id", "image", "mask_sha256", "box", "area", "label", "said", "sure", "score", "kind", "detail")
    data = {
        "format": DECISIONS,
        "key": content["key"],
        "folder": content["folder"],
        "kinds": [kind for kind in KINDS if any(s.kind == kind for s in suspects)],
        "colors": {c.name: f"rgb({c.color[0]} {c.color[1]} {c.color[2]})" for c in space.classes},
        "suspects": [{key: getattr(s, key) for key in shown} | cut for s, cut in zip(suspects, cuts, strict=True)],
    }
    text = environment.get_template("page.html").render(
        content=content,
        data=data,
        images=len(content["images"]),
        script=Markup(script),
        style=Markup(style),
        # The hash is of the element's content, newlines at its ends included.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    with whole_file(path, way_out="Choose another place with --out.") as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
