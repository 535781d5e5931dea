#!/usr/bin/env python3
"""tools/benchmark.py SUBJECT [--variant V] [--size HxW] [--json PATH]: hrseg beside its peers."""

import sys

from hrseg.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
