#!/usr/bin/env python3
"""tools/convert.py SOURCE [--inspect] [--to FAMILY] [--out PATH]: name a checkpoint and convert it."""

import sys

from hrseg.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
