#!/usr/bin/env python3
"""tools/compare.py RUN_A RUN_B: the paired difference of two methods."""

import sys

from hrseg.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
