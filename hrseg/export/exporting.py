"""Written, proven, or nothing left; the command `tools/export.py`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hrseg import config as settings
from hrseg.build.trained_model import Loaded, load_checkpoint
from hrseg.console import command, parser, split_settings
from hrseg.data.image_files import inspect_image
from hrseg.errors import ConfigError, HrsegError
from hrseg.evaluate.evaluation import versions
from hrseg.export import hub, int8
from hrseg.export.deployable import Deployed, input_type
from hrseg.export.formats import FORMATS
from hrseg.export.onnx_file import SMALLEST
from hrseg.export.verification import LEAST_AGREEMENT, Proof, proof_images, proof_sizes, prove
from hrseg.inference import Size
from hrseg.task import Task
from hrseg.weights.source import locate, sha256

USUAL_SIZE = (512, 512)  # where training took no crop


class Exported(NamedTuple):
    """A file, the size that it takes (None: any), the proof, on which images it was made, and for int8 its cost."""

    path: Path
    size: Size | None
    proof: Proof
    images: str
    cost: int8.Cost | None = None


def export(
    loaded: Loaded,
    out: Path,
    format: str,
    *,
    size: Size | None = None,
    dynamic: bool = False,
    argmax: bool = False,
    normalised: bool = False,
    precision: str = "fp32",
    checkpoint: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a model as a file that its format's own runtime runs, and the same in words as JSON beside it.

    The file takes images as they are stored, [N, C, H, W], and gives float32 logits [N, K, H, W] at their size.
    size: (height, width) of the images, by default the training's crop. dynamic: any number of any size from 64 on.
    argmax: labels instead, uint8 [N, H, W]. normalised: images come normalised, float32. precision: fp32, fp16, bf16,
    or int8 (onnx). checkpoint: where the model comes from, for the metadata.
    Raises HrsegError, and leaves no file, where the answers are not the original's: below 99.99 % equal labels, 99.9 %
    in fp16, 99.5 % in bf16; where int8 costs more than 0.5 points of mean IoU.
    """
    kind = FORMATS[format]
    size = size or loaded.config.augment.crop or USUAL_SIZE
    if out.suffix != kind.ending:
        raise ConfigError(f"--out {out}", f"a file of {format} ends in {kind.ending}.")
    if precision not in (*kind.precisions, *(["int8"] if format == "onnx" else [])):
        known = ", ".join(name for name, f in FORMATS.items() if precision in f.precisions) or "onnx"
        raise ConfigError(f"--format {format}", f"its runtime has no {precision} on CPUs.", f"It goes with {known}.")
    if dynamic and min(size) < SMALLEST:
        raise ConfigError(f"--size {size[0]}x{size[1]}", f"sides have at least {SMALLEST} pixels.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out.parent)
    except OSError as error:
        raise HrsegError(
            out.parent, f"cannot be written: {error.strerror}.", "Choose another place by --out."
        ) from error
    # OpenVINO halves the weights when it writes them; the others run a network of that precision.
    inside = precision if precision in ("fp16", "bf16") and format != "openvino" else "fp32"
    module = Deployed(loaded, argmax=argmax, normalised=normalised, precision=inside).eval()
    dtype = input_type(loaded, normalised)
    metadata = describe(loaded, module, dtype, format, precision, None if dynamic else size, checkpoint)
    with folder as unproven:
        path, cost = Path(unproven) / out.name, None
        example = torch.zeros(2 if dynamic else 1, loaded.normalisation.channels, *size).to(dtype)
        try:
            if precision == "int8":
                cost = int8.write(loaded, module, example, path, dynamic, metadata)
            else:
                kind.write(module, example, path, dynamic, metadata)
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()[0]
            raise HrsegError(format, f"cannot express this network: {reason}", "Try another format.") from error
        images, what = proof_images(loaded, input_type(loaded), proof_sizes(size, dynamic))
        proof = prove(loaded, kind.run(path), images, argmax=argmax, normalised=normalised)
        if cost is not None and cost.lost > int8.MOST_COST:
            raise HrsegError(out, f"is not written: {cost}, allowed are {100 * int8.MOST_COST}.", "Take --half.")
        if cost is None and not proof.agreement >= LEAST_AGREEMENT[precision]:
            least = 100 * LEAST_AGREEMENT[precision]
            raise HrsegError(out, f"is not written: {proof} ({what}); {precision} needs {least:g} %.")
        proven = {"images": what, **asdict(proof), "cost": cost and cost._asdict()}
        _beside(path).write_text(json.dumps({**metadata, "proof": proven}, indent=1), encoding="utf-8")
        for written in Path(unproven).iterdir():
            written.replace(out.with_name(written.name))
    return Exported(out, None if dynamic else size, proof, what, cost)


def describe(
    loaded: Loaded,
    module: Deployed,
    dtype: torch.dtype,
    format: str,
    precision: str,
    size: Size | None,
    checkpoint: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What someone needs to know who has nothing but the file."""
    space, channels = loaded.space, loaded.normalisation.channels
    one_a_label = space.task is Task.MULTILABEL
    name, kind = ("labels", module.label_type) if module.argmax else ("logits", torch.float32)
    layout = ("N H W" if not one_a_label else "N L H W") if module.argmax else "N K H W"
    return {
        "format": format,
        "precision": precision,
        "task": space.task.value,
        "classes": list(space.names),
        "palette": [list(c.color) for c in space.classes],
        "ignore_index": space.ignore_index,
        "input": {"name": "image", "type": _name(dtype), "layout": "N C H W", "channels": channels},
        "output": {"name": name, "type": _name(kind), "layout": layout},
        "size": {"fixed": size, "least": None if size else SMALLEST, "padded_inside_to_multiple_of": module.multiple},
        "normalisation": {"inside": not module.normalised, **loaded.normalisation.to_plain()},
        "checkpoint": dict(checkpoint) if checkpoint else None,
        "versions": versions(),
    }


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@command
def main(argv: Sequence[str]) -> int:
    """tools/export.py: write a checkpoint as a file for another runtime, and prove that it answers alike."""
    arguments = parser(
        "Write a checkpoint in another format, and prove with that format's own runtime that it is the same model.",
        "examples:\n"
        "  tools/export.py --checkpoint runs/demo/checkpoints/best.pt --format onnx --out demo.onnx --dynamic\n"
        "  tools/export.py --checkpoint best.pt --format onnx --out labels.onnx --size 512x1024 --argmax\n"
        "  tools/export.py --checkpoint best.pt --format openvino --out best.xml --half\n"
        "  tools/export.py --checkpoint best.pt --format hub --out folder --licence cc-by-4.0 --push OWNER/NAME",
    )
    arguments.add_argument("words", nargs="*", metavar="key=value", help="settings, e.g. data.root=/data/cityscapes")
    arguments.add_argument("--checkpoint", required=True, metavar="PATH")
    arguments.add_argument("--format", required=True, choices=[*FORMATS, "hub"], help=", ".join(FORMATS) + ", hub")
    arguments.add_argument("--out", type=Path, required=True, metavar="PATH", help="PATH.json tells what is in it")
    arguments.add_argument("--size", type=_size, metavar="HxW", help="of the images; default: the training's crop")
    arguments.add_argument("--dynamic", action="store_true", help="any number of images of any size")
    arguments.add_argument("--argmax", action="store_true", help="labels instead of logits")
    arguments.add_argument("--normalised", action="store_true", help="leave the normalisation of images out")
    precision = arguments.add_mutually_exclusive_group()
    precision.add_argument("--half", action="store_const", const="fp16", dest="precision", help="weights in 16 bits")
    precision.add_argument("--bf16", action="store_const", const="bf16", dest="precision")
    precision.add_argument("--int8", action="store_const", const="int8", dest="precision",
                           help="onnx: convolutions in 8 bits, calibrated on training images")  # fmt: skip
    arguments.add_argument("--licence", help="hub: the hub's name of the model's licence, e.g. cc-by-4.0")
    arguments.add_argument("--picture", type=Path, metavar="PATH", help="hub: an image to show segmented in the card")
    arguments.add_argument("--push", metavar="OWNER/NAME", help="hub: put the folder there too (network)")
    arguments.add_argument("--trust-code", action="store_true", help="obey code outside hrseg named in the checkpoint")
    args = arguments.parse_intermixed_args(argv)
    files, overrides = split_settings(args.words)
    if files:
        raise ConfigError(f"'{files[0]}'", "is one word too many.", "Settings are key=value.")
    if args.picture:
        inspect_image(args.picture)  # before minutes are spent
    loaded = load_checkpoint(args.checkpoint, trust_code=args.trust_code)
    plain = settings.override(loaded.config.to_plain(), overrides)
    loaded = dataclasses.replace(loaded, config=settings.parse(plain, where=str(args.checkpoint)))
    if args.format == "hub":
        return _to_hub(args, loaded)
    done = export(
        loaded,
        args.out,
        args.format,
        size=args.size,
        dynamic=args.dynamic,
        argmax=args.argmax,
        normalised=args.normalised,
        precision=args.precision or "fp32",
        checkpoint={"path": str(args.checkpoint), "sha256": sha256(locate(args.checkpoint)), "step": loaded.step},
    )
    if done.cost:
        print(done.cost)
    print(f"{done.proof} ({done.images})")
    print(f"written: {done.path}, {_beside(done.path).name} tells what is in it")
    if done.size:
        height, width = done.size
        print(f"It takes images of {height}x{width} alone: others lose by being brought to it. --dynamic takes any.")
    return 0


def _to_hub(args: argparse.Namespace, loaded: Loaded) -> int:
    """A folder of the hub's form, with the scores that lie in the checkpoint's run folder."""
    scores = locate(args.checkpoint).parent.parent / "metrics.json"
    metrics = json.loads(scores.read_text(encoding="utf-8")) if scores.is_file() else None
    card = {"metrics": metrics, "licence": args.licence, "picture": args.picture}
    print(f"written: {hub.save_pretrained(loaded, args.out, **card)}")
    if args.push:
        print(f"on the hub: {hub.push_to_hub(loaded, args.push, **card)}")
    return 0


def _size(text: str) -> Size:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH, for example 512x1024")
    return int(match[1]), int(match[2])
