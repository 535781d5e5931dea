"""Class indices of a picture that is too large for one pass: segment_large.py PICTURE WEIGHTS VARIANT OUT.tif

Windows are read with a margin, which gives the network context, and only their inner part is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
import torch
from network import Textbook
from rasterio.windows import Window

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
INNER, MARGIN = 1024, 64


def main(picture: str, weights: str, variant: str, out: str) -> None:
    model = Textbook(variant).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(picture) as source:
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": source.width, "height": source.height,
                   "tiled": True, "compress": "deflate"}  # fmt: skip
        with rasterio.open(out, "w", **profile) as target:
            for top in range(0, source.height, INNER):
                for left in range(0, source.width, INNER):
                    height, width = min(INNER, source.height - top), min(INNER, source.width - left)
                    side = INNER + 2 * MARGIN
                    window = Window(left - MARGIN, top - MARGIN, side, side)
                    image = source.read(window=window, boundless=True).transpose(1, 2, 0)
                    normalised = ((image / 255 - MEAN) / STD).astype(np.float32)
                    with torch.inference_mode():
                        logits = model(torch.from_numpy(normalised).permute(2, 0, 1)[None])
                    ids = logits.argmax(1)[0].numpy().astype(np.uint8)
                    inner = ids[MARGIN : MARGIN + height, MARGIN : MARGIN + width]
                    target.write(inner, 1, window=Window(left, top, width, height))


if __name__ == "__main__":
    main(*sys.argv[1:])
