"""The command `tools/predict.py`: segment images and videos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, fraction, parser
from hrseg.errors import ConfigError

# As in hrseg.data.images.large_images, which imports OpenCV; a test compares them.
MAX_PIXELS, TILE = 500_000_000, 1024


@command
def main(argv: Sequence[str]) -> int:
    """Segment images and videos; 2 where some of them could not be read."""
    args = parsed(argv)
    from hrseg import distributed, runtime
    from hrseg.predict.input_files import find_inputs
    from hrseg.predict.label_ids import label_ids
    from hrseg.predict.many_files import made_by, predict_files
    from hrseg.predict.outputs import Outputs
    from hrseg.predict.predictor import Predictor
    from hrseg.predict.tally import summary
    from hrseg.predict.training_data import require_possible, write_training_data

    out = Path(args.out)
    inputs = find_inputs(args.input, sys.stdin, out)
    predictor = Predictor(
        args.checkpoint,
        args.device,
        flip=args.flip,
        turns=args.turns,
        scales=args.scales,
        precision=args.precision,
        tile=args.tile,
        max_pixels=args.max_pixels,
        threshold=args.threshold,
        sure=args.sure,
        trust_code=args.trust_code,
    )
    if predictor.device.type == "cpu":
        runtime.keep_freed_memory()
    if args.ids == "labels":
        label_ids(predictor.space)  # refuses what has none before anything is written
    outputs = Outputs(
        out,
        made_by(args.checkpoint, predictor),
        colors=not args.no_colors,
        overlay=not args.no_overlay,
        probabilities=args.probabilities,
        frames=args.frames,
        label_ids=args.ids == "labels",
        masks="ids" if args.sure is None else "masks",
    )
    if args.sure is not None:
        require_possible(inputs, outputs, predictor.space)
    with distributed.process_group(predictor.device):
        parts = predict_files(predictor, inputs, outputs, batch=args.batch, workers=args.workers)
        problems = [problem for part in parts for problem in part.problems]
        if distributed.is_main():
            if args.sure is not None:
                write_training_data(inputs, outputs, predictor.space, args.checkpoint, args.sure)
            print(summary(parts, out, predictor.space))
            for problem in problems:
                print(f"error: {problem}", file=sys.stderr)
            if problems:
                verb = "was" if len(problems) == 1 else "were"
                print(f"{len(problems)} of {len(inputs)} {verb} left out; all others are done.", file=sys.stderr)
    # Another process that ends with 2 would have torchrun stop the first before it has reported everything.
    return 2 if problems and distributed.rank_from_environment() == 0 else 0


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The options. Raises ConfigError where --out is a file."""
    options = parser(
        "Segment images and videos: class indices, colours and overlays. What is complete is not done again.",
        "examples:\n"
        "  tools/predict.py --checkpoint runs/demo/checkpoints/best.pt photo.jpg --out predictions\n"
        "  tools/predict.py --checkpoint best.pt photos/ video.mp4 'more/**/*.tif' --out predictions --batch 8\n"
        "  tools/predict.py --checkpoint fold_0.pt --checkpoint fold_1.pt --flip --turns photos/ --out predictions\n"
        "  find photos -newer last | tools/predict.py --checkpoint best.pt - --out predictions\n"
        "  torchrun --nproc-per-node=4 tools/predict.py --checkpoint best.pt photos/ --out predictions",
    )
    add = options.add_argument
    add("input", nargs="+", metavar="INPUT", help="files, folders, patterns, videos; - reads a list of them")
    add("--checkpoint", required=True, action="append", metavar="PATH", help="may be repeated: answers are averaged")
    add("--out", required=True, metavar="DIR", help="receives ids/, colors/, overlay/, classes.json and legend.png")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--batch", type=_positive, default=1, metavar="N", help="images of one size, or frames, at once (%(default)s)")
    add("--workers", type=_positive, default=4, metavar="N", help="threads that read and write (%(default)s)")
    add("--precision", choices=["fp32", "bf16", "fp16"], help="default: fp32 on the CPU, else the checkpoint's")
    add("--flip", action=argparse.BooleanOptionalAction, help="average with the mirrored image")
    add("--turns", action=argparse.BooleanOptionalAction, help="average with the image turned by right angles")
    add("--scales", type=_scales, metavar="A,B", help="average over these sizes of the image, e.g. 0.75,1,1.25")
    add(
        "--threshold",
        type=fraction,
        metavar="X",
        help="binary, multilabel: the probability above which a pixel counts (default: the checkpoint's, else 0.5)",
    )
    add("--no-colors", action="store_true", help="do not write the palette PNG")
    add("--no-overlay", action="store_true", help="do not write overlays of images")
    add(
        "--probabilities",
        action="store_true",
        help="also write each image's class probabilities, float16: probabilities/NAME.npz",
    )
    ids_help = "values in ids/: class indices, or those of the data set's masks (%(default)s)"
    add("--ids", choices=["indices", "labels"], default="indices", help=ids_help)
    sure_help = "make training data: masks/, images/ and classes.yaml; pixels below this probability are ignored"
    add("--sure", type=fraction, metavar="P", help=sure_help)
    add("--frames", action="store_true", help="also write the class indices of each video frame: ids/NAME/000000.png")
    add("--tile", type=int, default=TILE, metavar="N", help="larger than 4 of these: in tiles; 0: never (%(default)s)")
    add("--max-pixels", type=_positive, default=MAX_PIXELS, metavar="N", help="larger images are refused (%(default)s)")
    add("--trust-code", action="store_true", help="run code outside hrseg that the checkpoint names")
    args = options.parse_args(argv)
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}", "is a file.", "Give a folder.")
    return args


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"'{word}' is not a whole number above 0")
    return int(word)


def _scales(word: str) -> list[float]:
    try:
        scales = [float(part) for part in word.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(0 < scale < 100 for scale in scales):
        raise argparse.ArgumentTypeError(f"'{word}' is not a list of numbers above 0")
    return scales
