#!/usr/bin/env python3
"""tools/export.py --checkpoint PATH --format F --out PATH: a checkpoint as a file for another runtime, with a proof."""

import sys

from hrseg.export.exporting import main

if __name__ == "__main__":
    sys.exit(main())
