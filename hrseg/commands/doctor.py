"""The command `tools/doctor.py`: find what is wrong with labels, show it, and write a mended data set."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, counted, parser, require_effect, split_settings
from hrseg.errors import ConfigError

OBEYED = ("data", "eval", "run", "train.precision")


@command
def main(argv: Sequence[str]) -> int:
    """Examine labels by the models of folds; or, with `apply` first, do what was decided about them."""
    return _apply(argv[1:]) if argv[:1] == ["apply"] else _examine(argv)


def _examine(argv: Sequence[str]) -> int:
    options = parser(
        "Find labels that are likely wrong: each image is judged by a model that was not trained on it.",
        "examples:\n"
        "  tools/doctor.py runs/mine_0 runs/mine_1 runs/mine_2 --out runs/doctor\n"
        "  tools/doctor.py runs/demo --out runs/doctor\n"
        "  tools/doctor.py apply decisions.json --out data/mine_mended\n"
        "  tools/doctor.py apply --help",
    )
    options.add_argument("words", nargs="+", metavar="RUN", help="the runs or checkpoints of all folds, or one")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder")
    options.add_argument("--split", metavar="NAME", help="of one model: the split to judge (default: data.val_split)")
    options.add_argument("--most", type=_positive, default=1000, metavar="N", help="suspects at most (%(default)s)")
    options.add_argument("--trust-code", action="store_true", help="obey code outside hrseg named in the checkpoint")
    args = options.parse_intermixed_args(argv)
    sources, overrides = split_settings(args.words)
    if not sources:
        raise ConfigError("tools/doctor.py", "has no model to ask.", "Give the runs of all folds.")
    require_effect(overrides, OBEYED, "tools/doctor.py")

    from hrseg.doctor.examination import examine

    content = examine(
        sources, overrides, args.out, split=args.split, most=args.most, trust_code=args.trust_code
    )  # fmt: skip
    kinds = Counter(suspect["kind"] for suspect in content["suspects"])
    print(f"{counted(len(content['suspects']), 'suspect')} in {counted(len(content['images']), 'image')}")
    for kind, number in kinds.most_common():
        print(f"  {kind:<24}{number:>6}")
    for pair in content["confused_classes"][:5]:
        print(f"hard to tell apart: {' and '.join(pair['classes'])}")
    for what in ("near_duplicates", "unusual_images"):
        if content[what]:
            print(f"{what.replace('_', ' ')}: {len(content[what])}")
    print(f"decide on the page: {args.out / 'doctor.html'}")
    return 0


def _apply(argv: Sequence[str]) -> int:
    options = parser(
        "Write a data set in which the masks are mended as decided. Everything else is linked; nothing is changed in "
        "place.",
        "examples:\n"
        "  tools/doctor.py apply decisions.json --out data/mine_mended\n"
        "  tools/doctor.py apply runs/doctor/suspects.json --take-above 0.5 --out data/mine_mended",
    )
    options.add_argument("decisions", type=Path, metavar="DECISIONS", help="what the page saved, or suspects.json")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder, for data.root")
    options.add_argument("--suspects", type=Path, metavar="DIR", help="the doctor's folder, if it was moved")
    options.add_argument(
        "--take-above", type=_share, metavar="S", help="take the model's view also of open suspects from this score on"
    )
    args = options.parse_args(argv)

    from hrseg.doctor.mending import RECORD, apply

    record = apply(args.decisions, args.out, suspects=args.suspects, take_above=args.take_above)
    pixels = sum(change["pixels"] for change in record["changes"])
    print(f"{counted(len(record['changes']), 'mask')} mended, {pixels:,} pixels; the rest is linked")
    print(f"record: {args.out / RECORD}")
    print(f"train on it: data.root={args.out}")
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return share
