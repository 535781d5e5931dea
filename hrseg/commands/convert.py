"""tools/convert.py: what a checkpoint is, and the same weights for hrseg or another project's code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, parser
from hrseg.errors import ConfigError, WeightsError
from hrseg.weights import reference_configs as recipes
from hrseg.weights.families import ALIASES, FAMILIES
from hrseg.weights.identify import Found, build_model, inspect, settings_of
from hrseg.weights.save import SAVED, save, write_safetensors, write_torch

YAML_ENDINGS = (".yaml", ".yml")


@command
def main(argv: Sequence[str]) -> int:
    """tools/convert.py: name a checkpoint's family, load all of it or refuse, write it for hrseg or another code."""
    arguments = parser(
        "Say what a checkpoint is and convert it: all of it, or not at all. Recipes (YAML) of the reference code too.",
        "examples:\n"
        "  tools/convert.py hrnet_ocr_cs_8162_torch11.pth --inspect\n"
        "  tools/convert.py hrnet_ocr_cs_8162_torch11.pth --out ocr_cityscapes.safetensors\n"
        "  tools/convert.py hf:timm/hrnet_w48.ms_in1k --encoder-only\n"
        "  tools/convert.py encoder_epoch_30.pth decoder_epoch_30.pth --out c1_ade20k.pt\n"
        "  tools/convert.py runs/cityscapes/checkpoints/best.pt --to mmseg --out best_mmseg.pth\n"
        "  tools/convert.py seg_hrnet_w48_train_512x1024.yaml --out configs/mine.yaml",
    )
    arguments.add_argument(
        "source", nargs="+", metavar="SOURCE", help="path, hf:owner/name[@revision], or https://...#sha256=..."
    )
    arguments.add_argument("--inspect", action="store_true", help="say what it is and write nothing")
    arguments.add_argument(
        "--to",
        default="hrseg",
        choices=["hrseg", *SAVED, *ALIASES],
        metavar="FAMILY",
        help="hrseg (default), " + ", ".join(SAVED),
    )
    arguments.add_argument(
        "--out", type=Path, metavar="PATH", help="default: <name>.hrseg.safetensors; .pt: a checkpoint of hrseg"
    )
    arguments.add_argument("--encoder-only", action="store_true", help="leave the head out")
    arguments.add_argument("--align-corners", choices=["true", "false"], help="where the file cannot tell")
    arguments.add_argument(
        "--family", choices=[*FAMILIES, *ALIASES], metavar="FAMILY", help="where the tensors' names mislead"
    )
    args = arguments.parse_args(argv)
    if args.source[0].endswith(YAML_ENDINGS):
        return _recipe(args)
    source = args.source[0] if len(args.source) == 1 else args.source
    aligned = None if args.align_corners is None else args.align_corners == "true"
    found = inspect(source, family=args.family, align_corners=aligned, encoder_only=args.encoder_only)
    print(found)
    if not found.report.fits:
        raise WeightsError(found.source, "has tensors without a partner: nothing is written.", _way_out(args))
    if args.inspect:
        return 0
    out = args.out or Path(_default_name(args.source[0], args.to))
    for path in write(found, out, args.to, encoder_only=args.encoder_only):
        print(f"written        {path}")
    return 0


def _default_name(source: str, family: str) -> str:
    stem = Path(source.partition("#")[0].partition("@")[0]).name.partition(".")[0]
    return f"{stem}.{family}.safetensors" if family == "hrseg" else f"{stem}.{family}.pth"


def _way_out(args: argparse.Namespace) -> str:
    return "" if args.encoder_only else "If the encoder alone is enough, say --encoder-only."


def write(found: Found, out: Path, family: str = "hrseg", *, encoder_only: bool = False) -> list[Path]:
    """Write what was found for a family; returns the files, which appear whole or not at all."""
    if any(Path(source) == out for source in found.source.split(" + ")):
        raise WeightsError(out, "is the source itself.", "Give another --out.")
    if family != "hrseg":
        return save(build_model(found), out, family, encoder_only=encoder_only)
    beside = settings_of(found)
    if out.suffix == ".safetensors":
        return [write_safetensors(out, found.tensors, beside)]
    training = dict.fromkeys(("ema", "optimizer", "scaler", "rng", "best"))
    return [write_torch(out, {"model": found.tensors, **training, "step": 0, "epoch": 0, **beside})]


def _recipe(args: argparse.Namespace) -> int:
    path = Path(args.source[0])
    recipe = recipes.read(path)
    text = recipe.to_yaml(path.name)
    if args.out is None or args.inspect:
        print(text, end="")
        return 0
    if args.out.suffix not in YAML_ENDINGS:
        raise ConfigError(args.out, "is no name for settings.", "End it in .yaml.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(text.partition("\nmodel:")[0])
    print(f"written {args.out}")
    return 0
