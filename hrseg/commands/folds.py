"""The command `tools/folds.py`: the runs of a k-fold split as one score in which every image counts once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, counted, parser
from hrseg.made_files import require_own_folder


@command
def main(argv: Sequence[str]) -> int:
    """Add up what each fold's model answered for the images that it did not see."""
    args = parsed(argv)

    from hrseg.evaluate.out_of_fold import merge_folds, write_scores
    from hrseg.metrics import scores_of_images, table

    if args.out:
        require_own_folder(args.out)
    per_image, shared = merge_folds(args.runs)
    scores = scores_of_images(per_image)
    print(table(scores))
    print(f"mIoU {scores.miou:.4f} ({counted(len(per_image), 'image')}, each by a model that was trained without it)")
    if args.out:
        print(f"evidence: {write_scores(args.out, per_image, scores, shared, args.runs)}")
    return 0


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    options = parser(
        "Score a k-fold split as a whole: every image once, by the model that was trained without it.",
        "examples:\n  tools/folds.py runs/mine_0 runs/mine_1 runs/mine_2 --out runs/mine",
    )
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the run folder of each fold")
    options.add_argument("--out", type=Path, metavar="DIR", help="leave metrics.json and per_image.npz here")
    return options.parse_args(argv)
