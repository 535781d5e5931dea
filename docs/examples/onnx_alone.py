"""Segment a picture with an exported model: onnxruntime, numpy and Pillow, nothing else.

python docs/examples/onnx_alone.py demo.onnx photo.jpg labels.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def segment(model: str, picture: str, out: str) -> dict[str, float]:
    """Write the labels in the classes' colours; returns the share of each class that is there."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["hrseg"])
    image = Image.open(picture).convert("RGB")
    fixed = about["size"]["fixed"]
    values = np.asarray(image if fixed is None else image.resize(fixed[::-1]))
    (answer,) = session.run(None, {"image": values.transpose(2, 0, 1)[None]})
    labels = answer[0] if about["output"]["name"] == "labels" else answer[0].argmax(0).astype(np.uint8)
    colored = Image.fromarray(labels).convert("P")
    colored.putpalette(np.array(about["palette"], np.uint8).tobytes())
    colored.resize(image.size, Image.Resampling.NEAREST).save(out)
    found, pixels = np.unique(labels, return_counts=True)
    return {about["classes"][k]: float(n / labels.size) for k, n in zip(found, pixels, strict=True)}


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    for name, share in segment(*sys.argv[1:4]).items():
        print(f"{name:20} {100 * share:5.1f} %")
