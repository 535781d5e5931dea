"""tools/convert.py: what a checkpoint is, and the same weights for hrseg or another project's code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, parser
from hrseg.errors import ConfigError, WeightsError
from hrseg.made_files import require_replaceable

YAML_ENDINGS = (".yaml", ".yml")
# As in hrseg.weights.families, which imports torch; a test compares them.
SAVED = ("official", "imagenet", "mmseg", "csail", "pose", "detection", "mmdet", "psa")
READ = (*SAVED, "hrseg", "official_torch04", "paddleseg", "trunk", "smp")
ALIASES = ("timm", "mmsegmentation", "torch04", "nvidia")


@command
def main(argv: Sequence[str]) -> int:
    """Name a checkpoint's family, load all of it or refuse, and write it for hrseg or another project's code."""
    args = parse_words(argv)
    if args.source[0].endswith(YAML_ENDINGS):
        return _convert_settings(args)
    from hrseg.weights.identify import inspect
    from hrseg.weights.save import write_identified

    source = args.source[0] if len(args.source) == 1 else args.source
    aligned = None if args.align_corners is None else args.align_corners == "true"
    identified = inspect(source, family=args.family, align_corners=aligned, encoder_only=args.encoder_only)
    print(identified)
    if not identified.report.fits:
        way_out = "" if args.encoder_only else "If the encoder alone is enough, say --encoder-only."
        raise WeightsError(identified.source, "has tensors without a counterpart: nothing is written.", way_out)
    if args.inspect:
        return 0
    out = args.out or Path(_default_name(args.source[0], args.to))
    require_replaceable(out)
    for path in write_identified(identified, out, args.to, encoder_only=args.encoder_only):
        print(f"written        {path}")
    return 0


def parse_words(argv: Sequence[str]) -> argparse.Namespace:
    arguments = parser(
        "Say what a checkpoint is and convert it: all of it, or not at all. Reads the reference code's YAML too.",
        "examples:\n"
        "  tools/convert.py hrnet_ocr_cs_8162_torch11.pth --inspect\n"
        "  tools/convert.py hrnet_ocr_cs_8162_torch11.pth --out ocr_cityscapes.safetensors\n"
        "  tools/convert.py hf:timm/hrnet_w48.ms_in1k --encoder-only\n"
        "  tools/convert.py encoder_epoch_30.pth decoder_epoch_30.pth --out c1_ade20k.pt\n"
        "  tools/convert.py runs/cityscapes/checkpoints/best.pt --to mmseg --out best_mmseg.pth\n"
        "  tools/convert.py seg_hrnet_w48_train_512x1024.yaml --out configs/mine.yaml",
    )
    add = arguments.add_argument
    add("source", nargs="+", metavar="SOURCE", help="path, hf:owner/name[@revision], or https://...#sha256=...")
    add("--inspect", action="store_true", help="say what it is and write nothing")
    add("--to", default="hrseg", choices=["hrseg", *SAVED, *ALIASES], metavar="FAMILY",
        help="hrseg (default), " + ", ".join(SAVED))  # fmt: skip
    add("--out", type=Path, metavar="PATH", help="default: <name>.hrseg.safetensors; .pt: a checkpoint of hrseg")
    add("--encoder-only", action="store_true", help="leave the head out")
    add("--align-corners", choices=["true", "false"], help="where the file cannot tell")
    add("--family", choices=[*READ, *ALIASES], metavar="FAMILY", help="where the tensors' names mislead")
    return arguments.parse_args(argv)


def _default_name(source: str, family: str) -> str:
    stem = Path(source.partition("#")[0].partition("@")[0]).name.partition(".")[0]
    return f"{stem}.{family}.safetensors" if family == "hrseg" else f"{stem}.{family}.pth"


def _convert_settings(args: argparse.Namespace) -> int:
    from hrseg.files import write_text
    from hrseg.weights.reference_configs import read_reference_config

    path = Path(args.source[0])
    text = read_reference_config(path).to_yaml(path.name)
    if args.out is None or args.inspect:
        print(text, end="")
        return 0
    if args.out.suffix not in YAML_ENDINGS:
        raise ConfigError(args.out, "is not a name for settings.", "End it in .yaml.")
    require_replaceable(args.out)
    write_text(args.out, text)
    print(text.partition("\nmodel:")[0])
    print(f"written {args.out}")
    return 0
