"""A folder of small pictures with known faults, and models that know the truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hrseg import config as settings
from hrseg.data.folder import Folder
from hrseg.doctor import examination
from hrseg.doctor.judging import Judge
from hrseg.doctor.views import View
from hrseg.task import Normalisation

SIZE = (64, 96)
FAULTY = 3  # the image in which an object is missing from the mask


def truth(i: int) -> np.ndarray:
    """Ground and sky, and a square that lies elsewhere in each image."""
    target = np.zeros(SIZE, np.uint8)
    target[: 20 + i] = 1
    target[30 + i : 46 + i, 8 * i : 8 * i + 16] = 2
    return target


def folder(root: Path, images: int = 8, *, mode: str = "P", names: str = "street_{}") -> Path:
    """data.dataset=folder with one fault. mode: of the masks, as Pillow names it: P, L or RGB."""
    from PIL import Image

    colors = np.array([[60, 60, 60], [90, 140, 220], [200, 40, 40]], np.uint8)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(images):
        target = truth(i)
        noise = np.random.default_rng(i).integers(0, 40, (*SIZE, 3))
        photo = (colors[target] + noise).clip(0, 255).astype(np.uint8)
        name = names.format(i)
        cv2.imwrite(str(root / "images" / f"{name}.png"), photo[..., ::-1])
        label = np.where(target == 2, 0, target).astype(np.uint8) if i == FAULTY else target
        picture = Image.fromarray(colors[label] if mode == "RGB" else label)
        if mode == "P":
            picture.putpalette(colors.tobytes())
        picture.save(root / "masks" / f"{name}.png")
    (root / "classes.yaml").write_text(
        "- {name: ground, color: [60, 60, 60]}\n- {name: sky, color: [90, 140, 220]}\n"
        "- {name: <b>car</b>, color: [200, 40, 40]}\n"
    )
    return root


def doctor_folder(root: Path, out: Path, monkeypatch, *, most: int = 1000) -> dict:
    """The doctor's folder about it, by a model that always sees the truth."""
    config = settings.parse(
        {"data": {"dataset": "folder", "root": str(root), "val_share": 0.5, "train_split": "all", "val_split": "all"}}
    )
    dataset = Folder(root, "all")
    judge = Judge(str(root / "classes.yaml"), config, Normalisation(), dataset, 1, True, "all images")

    def views(judge, device, *, trust_code=False):
        for i in range(len(dataset)):
            said = truth(int(dataset.names[i].rpartition("_")[2]))
            probabilities = np.full((3, *SIZE), 0.02, np.float32)
            np.put_along_axis(probabilities, said[None].astype(np.int64), 0.96, 0)
            target = dataset.read_target(i)
            yield i, target, View.of(probabilities, target)

    monkeypatch.setattr(examination, "judges", lambda *words, **more: [judge])
    monkeypatch.setattr(examination, "views", views)
    return examination.examine(["made"], [], out, most=most)
