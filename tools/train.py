#!/usr/bin/env python3
"""tools/train.py CONFIG [key=value ...] [--resume [auto|PATH]] [--replay STEP]: train a model."""

import sys
from collections.abc import Sequence

from hrseg.cli import command, imports
from hrseg.engine import arguments


@command
def start(argv: Sequence[str]) -> int:
    arguments.train(argv)  # --help and mistakes are answered before the seconds in which torch is imported
    with imports():
        from hrseg.engine.train import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(start())
