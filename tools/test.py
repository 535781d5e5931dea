#!/usr/bin/env python3
"""tools/test.py [CONFIG] --checkpoint PATH [key=value ...]: score a model."""

import sys
from collections.abc import Sequence

from hrseg.commands import arguments
from hrseg.console import command


@command
def start(argv: Sequence[str]) -> int:
    arguments.test(argv)  # --help and mistakes are answered before the seconds in which torch is imported
    from hrseg.evaluate.evaluation import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(start())
