"""tools/export.py: a checkpoint as a file for another runtime, verified there, or as a folder for the hub."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.console import command, fraction, image_size, parser, require_effect, split_settings
from hrseg.errors import ConfigError

if TYPE_CHECKING:
    from hrseg.build.trained_model import TrainedModel

FORMATS = ("onnx", "openvino", "tensorrt", "torch.export", "torchscript", "hub")


OBEYED = ("data", "augment.crop", "eval.definition")


@command
def main(argv: Sequence[str]) -> int:
    """Write a checkpoint in another format and check that the file answers as the model does."""
    args, overrides = parse_words(argv)
    from hrseg import config as settings
    from hrseg.build.trained_model import chosen_threshold, load_trained_model
    from hrseg.data.images import inspect_image

    if args.picture:
        inspect_image(args.picture)  # before minutes are spent
    loaded = load_trained_model(args.checkpoint, trust_code=args.trust_code)
    loaded = dataclasses.replace(loaded, threshold=chosen_threshold([loaded], args.threshold))
    plain = settings.override(loaded.config.to_plain(), overrides)
    loaded = dataclasses.replace(loaded, config=settings.parse(plain, where=str(args.checkpoint)))
    require_effect(overrides, OBEYED, "tools/export.py")
    return _to_hub(args, loaded) if args.format == "hub" else _to_file(args, loaded)


def parse_words(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the changed settings."""
    arguments = parser(
        "Write a checkpoint in another format, and check with that format's own runtime that it is the same model.",
        "examples:\n"
        "  tools/export.py --checkpoint runs/demo/checkpoints/best.pt --format onnx --out demo.onnx\n"
        "  tools/export.py --checkpoint best.pt --format onnx --out labels.onnx --size 512x1024 --argmax\n"
        "  tools/export.py --checkpoint best.pt --format openvino --out best.xml --half\n"
        "  tools/export.py --checkpoint best.pt --format hub --out folder --licence cc-by-4.0 --push OWNER/NAME",
    )
    add = arguments.add_argument
    add("words", nargs="*", metavar="key=value", help="settings, e.g. data.root=/data/cityscapes")
    add("--checkpoint", required=True, metavar="PATH")
    add("--format", required=True, choices=FORMATS, help=", ".join(FORMATS))
    add("--out", type=Path, required=True, metavar="PATH", help="PATH.json describes the file")
    sizes = arguments.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=image_size, metavar="HxW", help="one image of this size only")
    sizes.add_argument("--fixed", action="store_true", help="one image of the training crop's size only")
    sizes.add_argument("--dynamic", action="store_true", help="any number of images of any size (the default)")
    add("--argmax", action="store_true", help="class indices instead of logits")
    add(
        "--threshold",
        type=fraction,
        metavar="X",
        help="binary, multilabel: the probability above which a pixel counts (default: the checkpoint's, else 0.5)",
    )
    add("--normalised", action="store_true", help="the file expects images that are normalised already")
    precision = arguments.add_mutually_exclusive_group()
    precision.add_argument("--half", action="store_const", const="fp16", dest="precision", help="weights in 16 bits")
    precision.add_argument("--bf16", action="store_const", const="bf16", dest="precision")
    precision.add_argument("--int8", action="store_const", const="int8", dest="precision",
                           help="onnx, tensorrt: convolutions in 8 bits, calibrated on training images")  # fmt: skip
    add("--licence", help="hub: the hub's name for the model's licence, e.g. cc-by-4.0")
    add("--picture", type=Path, metavar="PATH", help="hub: an image to show segmented in the card")
    add("--push", metavar="OWNER/NAME", help="hub: upload the folder there (network)")
    add("--trust-code", action="store_true", help="run code outside hrseg that the checkpoint names")
    args = arguments.parse_intermixed_args(argv)
    files, overrides = split_settings(args.words)
    if files:
        raise ConfigError(f"'{files[0]}'", "is one word too many.", "Settings are key=value.")
    return args, overrides


def _to_file(args: argparse.Namespace, loaded: TrainedModel) -> int:
    from hrseg.export.exporting import description_path, export
    from hrseg.weights.source import find_file, sha256

    exported = export(
        loaded,
        args.out,
        args.format,
        size=args.size,
        dynamic=not (args.size or args.fixed),
        argmax=args.argmax,
        normalised=args.normalised,
        precision=args.precision or "fp32",
        checkpoint={"path": str(args.checkpoint), "sha256": sha256(find_file(args.checkpoint)), "step": loaded.step},
    )
    if exported.int8_cost:
        print(exported.int8_cost)
    print(f"{exported.verification} ({exported.images})")
    print(f"written: {exported.path}; {description_path(exported.path).name} describes it")
    if exported.size:
        height, width = exported.size
        print(f"It takes images of {height}x{width} only; resizing others to it costs accuracy.")
    return 0


def _to_hub(args: argparse.Namespace, loaded: TrainedModel) -> int:
    """Write a folder for the hub, with the scores from the checkpoint's run folder."""
    from hrseg.export import hub
    from hrseg.weights.source import find_file

    scores = find_file(args.checkpoint).parent.parent / "metrics.json"
    metrics = json.loads(scores.read_text(encoding="utf-8")) if scores.is_file() else None
    card = {"metrics": metrics, "licence": args.licence, "picture": args.picture}
    print(f"written: {hub.save_pretrained(loaded, args.out, **card)}")
    if args.push:
        print(f"on the hub: {hub.push_to_hub(loaded, args.push, **card)}")
    return 0
