#!/usr/bin/env python3
"""tools/export.py --checkpoint PATH --format F --out PATH: a checkpoint as a file for another runtime, verified."""

import sys

from hrseg.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
