"""Segment a picture with an exported model: onnxruntime, numpy and Pillow, nothing else.

python docs/examples/onnx_alone.py demo.onnx photo.jpg labels.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def segment(model: str, picture: str, out: str) -> dict[str, float]:
    """Write the labels in the classes' colours; returns the share of pixels of each class that is there.

    A model of overlapping labels writes one black and white picture per label, OUT with the label's number before its
    ending.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["hrseg"])
    values = read_values(picture, about)
    (answer,) = session.run(None, {"image": values.transpose(2, 0, 1)[None]})
    labels = to_labels(answer[0], about)
    if about["task"] == "multilabel":
        path = Path(out)
        for k, plane in enumerate(labels):
            Image.fromarray(255 * plane).save(path.with_name(f"{path.stem}_{k}{path.suffix}"))
        return {name: float(plane.mean()) for name, plane in zip(about["classes"], labels, strict=True)}
    colored = Image.fromarray(labels).convert("P")
    colored.putpalette(np.array(about["palette"], np.uint8).tobytes())
    colored.save(out)
    found, pixels = np.unique(labels, return_counts=True)
    return {about["classes"][k]: float(n / labels.size) for k, n in zip(found, pixels, strict=True)}


def read_values(picture: str, about: dict) -> np.ndarray:
    """The picture as [H, W, C] in the type that the file takes; never scaled: its values are what was trained on."""
    channels, type_name = about["input"]["channels"], about["input"]["type"]
    image = Image.open(picture)
    sixteen_bits = image.mode.startswith("I;16") or image.mode in ("I", "F")
    if type_name == "uint8" and sixteen_bits:
        sys.exit(f"{picture} does not have 8 bits, the values that the model was trained on.")
    if type_name == "uint16" and not sixteen_bits:
        sys.exit(f"{picture} has 8 bits; the model was trained on 16.")
    if channels not in (1, 3):
        sys.exit(f"The model takes {channels} channels; Pillow reads 1 or 3: read the file with tifffile.")
    if not about["normalisation"]["inside"]:
        sys.exit("The model takes normalised images; export it without --normalised.")
    if sixteen_bits and channels == 3:
        sys.exit(f"{picture} is grey, the model takes RGB.")
    if not sixteen_bits:
        image = image.convert("L" if channels == 1 else "RGB")
    if fixed := about["size"]["fixed"]:
        image = image.resize(fixed[::-1])
    values = np.asarray(image).astype(type_name)
    return values[:, :, None] if values.ndim == 2 else values


def to_labels(answer: np.ndarray, about: dict) -> np.ndarray:
    """Class indices [H, W]; of a model of overlapping labels 0 and 1, [L, H, W]. answer: the output for one image."""
    if about["output"]["name"] == "labels":
        return answer
    if about["task"] == "multiclass":
        return answer.argmax(0).astype(np.uint8)
    threshold = np.float32(about.get("threshold") or 0.5)  # of a probability
    labels = (answer > np.log(threshold / (1 - threshold))).astype(np.uint8)
    return labels[0] if about["task"] == "binary" else labels


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    for name, share in segment(*sys.argv[1:4]).items():
        print(f"{name:20} {100 * share:5.1f} %")
