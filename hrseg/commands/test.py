"""The command `tools/test.py`: score a checkpoint, or predictions that came as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hrseg import config as settings
from hrseg.console import command, fraction, parser, require_effect, split_settings
from hrseg.errors import ConfigError

OBEYED = ("data", "eval", "run", "train.precision", "model")


@command
def main(argv: Sequence[str]) -> int:
    """Score, print the class table and say where everything was left."""
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
    arguments.add_argument(
        "--out", type=Path, metavar="DIR", help="where scores go; default: run.dir, else the checkpoint's folder"
    )
    arguments.add_argument(
        "--threshold", type=fraction, metavar="X",
        help="binary, multilabel: the probability above which a pixel counts (default: the checkpoint's, else 0.5)",
    )  # fmt: skip
    arguments.add_argument("--trust-code", action="store_true", help="obey code outside hrseg named in the checkpoint")
    args = arguments.parse_intermixed_args(argv)
    files, overrides = split_settings(args.words)
    if len(files) > 1:
        raise ConfigError(f"'{files[1]}'", "is one word too many.", "Give one CONFIG and key=value settings.")
    if bool(args.checkpoint) == bool(args.predictions):
        raise ConfigError("tools/test.py", "scores either a model or files.", "Give --checkpoint or --predictions.")
    if args.ids and not args.predictions:
        raise ConfigError("--ids", "says what --predictions hold.", "Give --predictions DIR, or leave it out.")
    if args.threshold is not None and args.predictions:
        raise ConfigError("--threshold", "is for models; --predictions hold classes already.", "Leave it out.")
    if args.out and any(word.startswith("run.dir=") for word in overrides):
        raise ConfigError("--out", "and run.dir= both say where the scores go.", "Give one of them.")
    if args.predictions and not files:
        raise ConfigError("tools/test.py", "--predictions needs to know the data set.", "Give a CONFIG.")
    # Imported here: torch takes seconds, and help and mistakes are answered without it.
    from hrseg.evaluate.scoring import score_checkpoints, score_prediction_files

    require_effect(overrides, OBEYED, "tools/test.py")
    common = {"out": args.out, "definition": args.definition, "submit": args.submit}
    if args.predictions:
        score_prediction_files(args.predictions, settings.load(files[0], overrides), ids=args.ids, **common)
    else:
        config_path = files[0] if files else None
        score_checkpoints(
            args.checkpoint, config_path, overrides, threshold=args.threshold, trust_code=args.trust_code, **common
        )
    return 0
