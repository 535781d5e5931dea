"""Draw toy city: python -m hrseg.toycity --out data/toycity"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, image_size, parser


@command
def main(argv: Sequence[str]) -> int:
    """Write a toy city as a folder, unless the same one is already there."""
    options = parser(
        "Draw synthetic street scenes in the layout of Cityscapes.",
        "example:\n  python -m hrseg.toycity --out data/toycity --train 300 --val 60",
    )
    options.prog = "python -m hrseg.toycity"
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    options.add_argument("--train", type=int, default=300, metavar="N", help="training images (%(default)s)")
    options.add_argument("--val", type=int, default=60, metavar="N", help="validation images (%(default)s)")
    options.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another one gives other streets (%(default)s)"
    )
    options.add_argument("--size", type=image_size, default=(256, 512), metavar="HxW", help="pixels (256x512)")
    options.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    args = options.parse_args(argv)
    from hrseg.toycity.city_files import write_city

    written = write_city(
        args.out, train=args.train, val=args.val, seed=args.seed, size=args.size, workers=args.workers,
        show_progress=True,
    )  # fmt: skip
    counts = f"{args.train} training and {args.val} validation images"
    print(f"toy city: {counts} {'written to' if written else 'already there:'} {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
