"""From 16-bit TIFF files with four channels and labels that overlap to an ONNX file.

python docs/examples/multispectral.py FOLDER
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import tifffile

from hrseg import config
from hrseg.build.trained_model import load_trained_model
from hrseg.export import export
from hrseg.train.loop import train

SETTINGS = {
    "model": {"encoder": "hrnetv2_w18_small_v1"},
    "data": {"dataset": "folder", "task": "multilabel", "workers": 0},
    "augment": {"crop": [64, 64]},
    "loss": [{"name": "bce"}],
    "optim": {"name": "adamw", "lr": 0.003},
    "train": {"batch_size": 4},
}


def write_files(root: Path, images: int = 8) -> None:
    """Red, green, blue and infrared of fields and water; a flooded field is both."""
    random = np.random.default_rng(0)
    for number in range(images):
        split = "train" if number < images - 2 else "val"
        field, water = (np.zeros((64, 64), np.uint8) for _ in range(2))
        field[8:40, 8:56] = water[32:60, random.integers(0, 20) : 44] = 255
        spectrum = 9000 * np.ones((64, 64, 4)) + 20000 * (field > 0)[..., None] * [0, 1, 0, 2]
        spectrum = np.where((water > 0)[..., None], spectrum * [0.9, 0.9, 2, 0.4], spectrum)
        image = (spectrum + random.normal(0, 500, spectrum.shape)).clip(0, 65535).astype(np.uint16)
        for folder in ("images", "masks/field", "masks/water"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            root / "images" / split / f"{number}.tif", image, photometric="rgb", extrasamples=["unspecified"]
        )
        cv2.imwrite(str(root / "masks/field" / split / f"{number}.png"), field)
        cv2.imwrite(str(root / "masks/water" / split / f"{number}.png"), water)
    (root / "classes.yaml").write_text("[field, water]")


def run(folder: Path, iterations: int = 40) -> np.ndarray:
    """Write the files, train, export; returns what onnxruntime finds in one validation image, {0, 1} [2, H, W]."""
    write_files(folder / "data")
    settings = config.merge(SETTINGS, {"data": {"root": str(folder / "data")}, "train": {"iterations": iterations}})
    train(config.parse(settings), folder / "run")
    loaded = load_trained_model(folder / "run" / "checkpoints" / "best.pt")
    done = export(loaded, folder / "model.onnx", "onnx", size=(64, 64), argmax=True)
    print(done.verification)
    session = onnxruntime.InferenceSession(done.path)
    image = tifffile.imread(next((folder / "data" / "images" / "val").glob("*.tif")))
    return session.run(None, {"image": image.transpose(2, 0, 1)[None]})[0][0]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, labels in zip(("field", "water"), run(Path(sys.argv[1])), strict=True):
        print(f"{name}: {100 * labels.mean():.1f} % of the image")
