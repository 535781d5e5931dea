"""Class indices and an overlay of every picture in a folder: segment.py FOLDER WEIGHTS VARIANT OUT"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from network import CLASSES, Textbook
from PIL import Image

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def main(folder: str, weights: str, variant: str, out: str) -> None:
    model = Textbook(variant).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    palette = np.random.default_rng(0).integers(0, 256, (CLASSES, 3), dtype=np.uint8)
    for kind in ("ids", "overlay"):
        (Path(out) / kind).mkdir(parents=True)
    for path in sorted(Path(folder).glob("*.png")):
        picture = Image.open(path).convert("RGB")
        normalised = ((np.asarray(picture) / 255 - MEAN) / STD).astype(np.float32)
        with torch.inference_mode():
            logits = model(torch.from_numpy(normalised).permute(2, 0, 1)[None])
        ids = logits.argmax(1)[0].numpy().astype(np.uint8)
        Image.fromarray(ids).save(Path(out) / "ids" / path.name)
        overlay = Image.blend(picture, Image.fromarray(palette[ids]), 0.55)
        overlay.save(Path(out) / "overlay" / path.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
