"""tools/report.py: the page of a run, or of two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, parser


@command
def main(argv: Sequence[str]) -> int:
    """Write a run's report.html from the files in its folder; given a second run, a comparison with it."""
    arguments = parser(
        "Write a run's report.html from the files in its folder; given a second run, a comparison with it.",
        "examples:\n"
        "  tools/report.py runs/demo\n"
        "  tools/report.py runs/cityscapes_ohem runs/cityscapes --out ohem.html",
    )
    arguments.add_argument("run", type=Path, metavar="RUN", help="a run folder with scores")
    arguments.add_argument("against", type=Path, nargs="?", metavar="RUN_B", help="the run to compare it with")
    arguments.add_argument("--out", type=Path, metavar="PATH", help="default: in the folder of RUN")
    args = arguments.parse_args(argv)
    from hrseg.report import page

    print(f"report: {page.write_report(args.run, args.against, out=args.out)}")
    return 0
