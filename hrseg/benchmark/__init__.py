"""hrseg beside its peers, measured in turns in one process; the command `tools/benchmark.py`.

A subject is a module of this package with `cases(options) -> Iterator[Case]`; see hrseg/benchmark/measure.py.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hrseg import runtime as cpu
from hrseg.benchmark import report
from hrseg.benchmark.measure import Options, Result, run
from hrseg.console import command, parser
from hrseg.errors import ConfigError, nearest
from hrseg.models.hrnet import VARIANTS

SUBJECTS = ("model", "train", "loss", "data", "metric", "eval", "weights", "scaling")


@command
def main(argv: Sequence[str]) -> int:
    """tools/benchmark.py: measure, print a table of ratios, and close with one line of JSON."""
    arguments = parser(
        "Measure hrseg and its peers in turns, compare their results, and print ratios of times.",
        "examples:\n"
        "  tools/benchmark.py loss\n"
        "  tools/benchmark.py model --variant w48 --size 512x1024 --json w48.json\n"
        "  tools/benchmark.py all --short --markdown docs/benchmarks.md",
    )
    arguments.add_argument("what", choices=[*SUBJECTS, "all"])
    arguments.add_argument("--variant", help="of the HRNet (default: w18, and w48 for inference)")
    arguments.add_argument("--size", default="512x1024", metavar="HxW", help="of the image (default: 512x1024)")
    arguments.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    arguments.add_argument("--threads", type=int, metavar="N", help="of both sides (default: one a CPU)")
    arguments.add_argument(
        "--rounds", type=int, metavar="N", help="of measuring every side once (default: 15; short: 7)"
    )
    arguments.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine that is not quiet"
    )
    arguments.add_argument(
        "--allocator", choices=("system", "keep"), default="system", help="keep: as hrseg's commands set it"
    )
    arguments.add_argument("--short", action="store_true", help="without the peers that take minutes to prepare")
    arguments.add_argument("--json", type=Path, metavar="PATH", help="write the last line there as well")
    arguments.add_argument("--markdown", type=Path, metavar="PATH", help="write the tables there")
    args = arguments.parse_args(argv)
    if args.variant and args.variant not in VARIANTS:
        raise ConfigError("--variant", f"no variant '{args.variant}'.", nearest(args.variant, VARIANTS))
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("--device", "there is no CUDA device.", "Leave it out to measure on the CPU.")
    rounds = max(3, args.rounds or (7 if args.short else 15))
    variant, also = (args.variant, ()) if args.variant else ("w18", ("w48",))
    options = Options(variant, _size(args.size), args.device, args.clock, rounds, args.short, also)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.allocator == "keep":
        cpu.keep_freed_memory()
    common = report.conditions(options, args.allocator, shlex.join(["tools/benchmark.py", *argv]))
    for name, value in common.items():
        print(f"{name}: {value}")
    results: dict[str, list[Result]] = {}
    for subject in SUBJECTS if args.what == "all" else (args.what,):
        results[subject] = []
        for case in importlib.import_module(f"hrseg.benchmark.{subject}").cases(options):
            names = ", ".join(name for name, side in case.sides.items() if not isinstance(side, str))
            print(f"{subject}: {names} ...", file=sys.stderr, flush=True)
            results[subject] += run(case, options)
        print(f"\n{subject}\n\n{report.table(results[subject])}", flush=True)
    if args.markdown:
        report.write_document(results, common, args.markdown)
    line = report.as_json(results, common)
    if args.json:
        report.write(line + "\n", args.json)
    print(f"\n{line}")
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ConfigError("--size", f"'{text}' is not height x width.", "For example 512x1024.")
    return int(height), int(width)
