"""What the words after a command mean; without torch, so that help and mistakes are answered at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hrseg import config as settings
from hrseg.config import Config
from hrseg.console import parser, split_settings
from hrseg.errors import ConfigError


def train(argv: Sequence[str]) -> tuple[argparse.Namespace, Config, Path]:
    """Of tools/train.py: the options, the settings, the run folder."""
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
        help="go on where the run folder's last checkpoint, or the one at PATH, ends",
    )  # fmt: skip
    arguments.add_argument(
        "--replay", type=int, metavar="STEP",
        help="do a past iteration again and draw its batch, the loss of each pixel, what OHEM kept; alters nothing",
    )  # fmt: skip
    args = arguments.parse_intermixed_args(argv)
    if args.resume and "=" in args.resume and not Path(args.resume).exists():  # --resume key=value
        args.settings, args.resume = [args.resume, *args.settings], "auto"
    config = settings.load(args.config, args.settings)
    folder = config.run.dir or Path("runs") / Path(args.config).stem
    return args, config, folder


def test(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Of tools/test.py: the options, the config file if there is one, the changed settings."""
    arguments = parser(
        "Score a checkpoint, or a folder of predictions: class table, metrics.json, per_image.npz, pictures and "
        "report.html.",
        "examples:\n"
        "  tools/test.py --checkpoint runs/demo/checkpoints/best.pt\n"
        "  tools/test.py --checkpoint best.pt data.root=/data/cityscapes eval.flip=true 'eval.scales=[0.75, 1, 1.25]'\n"
        "  tools/test.py --checkpoint fold_0.pt --checkpoint fold_1.pt eval.turns=true\n"
        "  tools/test.py configs/cityscapes.yaml --predictions of_another_framework/\n"
        "  tools/test.py --checkpoint best.pt data.val_split=test --submit submission\n"
        "  torchrun --nproc-per-node=4 tools/test.py configs/cityscapes.yaml --checkpoint best.pt",
    )
    arguments.add_argument("words", nargs="*", metavar="[CONFIG] key=value", help="settings; default: the checkpoint's")
    arguments.add_argument(
        "--checkpoint",
        metavar="PATH",
        action="append",
        help="of hrseg or any family of docs/weights.md; hub ids too; given several times, answers are averaged",
    )
    arguments.add_argument(
        "--predictions", type=Path, metavar="DIR", help="score these PNG files, named after the images, instead"
    )
    arguments.add_argument(
        "--ids",
        choices=("classes", "labels"),
        help="what --predictions hold: classes, 0 to K-1, or labels, the values of the data set's own masks; "
        "default: labels for cityscapes, else classes",
    )
    arguments.add_argument("--definition", help="how an absent class counts: cityscapes, ade20k, hrnet, mmseg or smp")
    arguments.add_argument(
        "--submit", type=Path, metavar="DIR", help="also write DIR and DIR.zip with what the Cityscapes server wants"
    )
    arguments.add_argument("--out", type=Path, metavar="DIR", help="default: the checkpoint's run folder")
    arguments.add_argument("--trust-code", action="store_true", help="obey code outside hrseg named in the checkpoint")
    args = arguments.parse_intermixed_args(argv)
    files, overrides = split_settings(args.words)
    if len(files) > 1:
        raise ConfigError(f"'{files[1]}'", "is one word too many.", "Give one CONFIG and key=value settings.")
    if bool(args.checkpoint) == bool(args.predictions):
        raise ConfigError("tools/test.py", "scores either a model or files.", "Give --checkpoint or --predictions.")
    if args.ids and not args.predictions:
        raise ConfigError("--ids", "says what --predictions hold.", "Give --predictions DIR, or leave it out.")
    return args, files, overrides
