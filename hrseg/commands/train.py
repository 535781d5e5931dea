"""The command `tools/train.py`: train a model, or do a past iteration again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hrseg import config as settings
from hrseg.console import SETTING, command, parser


@command
def main(argv: Sequence[str]) -> int:
    """Train as a config says and leave everything in the run folder."""
    arguments = parser(
        "Train a model. Everything of the run is left in runs/<name of the config>/.",
        "examples:\n"
        "  tools/train.py configs/demo.yaml\n"
        "  tools/train.py configs/cityscapes.yaml data.root=/data/cityscapes train.batch_size=8 optim.lr=0.007\n"
        "  tools/train.py configs/cityscapes.yaml --resume\n"
        "  tools/train.py configs/cityscapes.yaml --replay 1200\n"
        "  torchrun --nproc-per-node=4 tools/train.py configs/cityscapes.yaml",
    )
    arguments.add_argument("config", metavar="CONFIG", help="a YAML file; configs/ has some")
    arguments.add_argument(
        "settings", nargs="*", metavar="key=value",
        help="change single settings, e.g. train.iterations=200 model.encoder=hrnetv2_w18",
    )  # fmt: skip
    arguments.add_argument(
        "--resume", nargs="?", const="auto", metavar="auto|PATH",
        help="continue from the run folder's last checkpoint, or from PATH",
    )  # fmt: skip
    arguments.add_argument(
        "--replay", type=int, metavar="STEP",
        help="do a past iteration again and draw its batch, the loss of each pixel, what OHEM kept; alters nothing",
    )  # fmt: skip
    args = arguments.parse_intermixed_args(argv)
    if args.resume and SETTING.match(args.resume) and not Path(args.resume).exists():  # --resume key=value
        args.settings, args.resume = [args.resume, *args.settings], "auto"
    config = settings.load(args.config, args.settings)
    folder = config.run.dir or Path("runs") / Path(args.config).stem
    # Imported here: torch takes seconds, and help and mistakes are answered without it.
    from hrseg.train.loop import train
    from hrseg.train.replay import replay

    if args.replay is not None:
        replay(config, folder, args.replay)
        return 0
    state = train(config, folder, resume=args.resume)
    if int(os.environ.get("RANK", 0)) == 0 and state.best["miou"] is not None:
        if (iou := state.best.get("foreground_iou")) is not None:
            at = "" if state.threshold is None else f"; threshold of the best IoU at the end: {state.threshold:.2f}"
            print(f"best IoU of the foreground {iou:.4f} at threshold 0.50{at}")
        print(f"best mIoU {state.best['miou']:.4f} at iteration {state.best['step']}: {folder}/checkpoints/best.pt")
        print(f"pictures (image, ground truth, prediction, error): {folder}/images/val/")
        print(f"report: {folder}/report.html")
    return 0
