#!/usr/bin/env python3
"""tools/folds.py RUN RUN ...: the runs of a k-fold split as one score."""

import sys

from hrseg.commands.folds import main

if __name__ == "__main__":
    sys.exit(main())
