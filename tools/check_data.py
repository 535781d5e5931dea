#!/usr/bin/env python3
"""tools/check_data.py CONFIG [key=value ...]: check a data set."""

import sys

from hrseg.commands.check_data import main

if __name__ == "__main__":
    sys.exit(main())
