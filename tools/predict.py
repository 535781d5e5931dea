#!/usr/bin/env python3
"""tools/predict.py --checkpoint PATH INPUT... --out DIR: segment pictures and films."""

import sys
from collections.abc import Sequence

from hrseg.cli import command, imports
from hrseg.engine import arguments


@command
def start(argv: Sequence[str]) -> int:
    arguments.predict(argv)  # --help and mistakes are answered before the seconds in which torch is imported
    with imports():
        from hrseg.engine.predict import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(start())
