#!/usr/bin/env python3
"""tools/predict.py --checkpoint PATH INPUT... --out DIR: segment pictures and films."""

import sys
from collections.abc import Sequence

from hrseg.commands import arguments
from hrseg.console import command, imports


@command
def start(argv: Sequence[str]) -> int:
    arguments.predict(argv)  # --help and mistakes are answered before the seconds in which torch is imported
    with imports():
        from hrseg.predict.files import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(start())
