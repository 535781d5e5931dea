"""tools/benchmark.py: hrseg and its peers, measured in turns."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hrseg.benchmark import SUBJECTS
from hrseg.console import command, image_size, parser
from hrseg.errors import ConfigError, nearest
from hrseg.made_files import require_replaceable


@command
def main(argv: Sequence[str]) -> int:
    """Measure, print a table of ratios, and end with one line of JSON."""
    args = parse_words(argv)
    if args.what == "gpu":
        from hrseg.benchmark.gpu import prove_measure_learn

        return prove_measure_learn(args.out, only=args.only or ())
    import torch

    from hrseg import runtime
    from hrseg.benchmark import report
    from hrseg.benchmark.measure import Options, Result, run_case
    from hrseg.models.hrnet import VARIANTS

    if args.variant and args.variant not in VARIANTS:
        raise ConfigError("--variant", f"no variant '{args.variant}'.", nearest(args.variant, VARIANTS))
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("--device", "there is no CUDA device.", "Leave it out to measure on the CPU.")
    if args.json:
        require_replaceable(args.json, "Give another --json.")
    rounds = max(3, args.rounds or (7 if args.short else 15))
    variant, also = (args.variant, ()) if args.variant else ("w18", ("w48",))
    options = Options(variant, args.size, args.device, args.clock, rounds, args.short, also)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.allocator == "keep":
        runtime.keep_freed_memory()
    common = report.conditions(options, args.allocator, shlex.join(["tools/benchmark.py", *argv]))
    for name, value in common.items():
        print(f"{name}: {value}")
    results: dict[str, list[Result]] = {}
    for subject in SUBJECTS if args.what == "all" else (args.what,):
        results[subject] = []
        for case in importlib.import_module(f"hrseg.benchmark.{subject}").cases(options):
            names = ", ".join(name for name, side in case.sides.items() if not isinstance(side, str))
            print(f"{subject}: {names} ...", file=sys.stderr, flush=True)
            results[subject] += run_case(case, options)
        print(f"\n{subject}\n\n{report.table(results[subject])}", flush=True)
    if args.markdown:
        report.write_document(results, common, args.markdown)
    line = report.as_json(results, common)
    if args.json:
        report.write(line + "\n", args.json)
    print(f"\n{line}")
    return 0


def parse_words(argv: Sequence[str]) -> argparse.Namespace:
    arguments = parser(
        "Measure hrseg and its peers in turns, compare their results, and print ratios of times.",
        "examples:\n"
        "  tools/benchmark.py loss\n"
        "  tools/benchmark.py model --variant w48 --size 512x1024 --json w48.json\n"
        "  tools/benchmark.py gpu --out runs/gpu\n"
        "  tools/benchmark.py all --short --markdown docs/benchmarks.md",
    )
    add = arguments.add_argument
    add("what", choices=[*SUBJECTS, "all", "gpu"], help="all: of those before it; gpu: all of `make gpu`")
    add("--variant", help="of the HRNet (default: w18, and w48 for inference)")
    add("--size", type=image_size, default=(512, 1024), metavar="HxW", help="of the image (default: 512x1024)")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--threads", type=int, metavar="N", help="of both sides (default: one per CPU)")
    add("--rounds", type=int, metavar="N", help="each measures every side once (default: 15; with --short: 7)")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine that is not quiet")
    add("--allocator", choices=("system", "keep"), default="system", help="keep: as hrseg's commands set it")
    add("--short", action="store_true", help="leave out peers that take minutes to prepare")
    add("--out", type=Path, default=Path("runs/gpu"), metavar="DIR", help="gpu: receives what is found (%(default)s)")
    add("--only", action="append", choices=("right", "measured", "learns"), help="gpu: this part; may be repeated")
    add("--json", type=Path, metavar="PATH", help="also write the last line there")
    add("--markdown", type=Path, metavar="PATH", help="write the tables there")
    return arguments.parse_args(argv)
