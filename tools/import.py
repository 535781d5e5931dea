#!/usr/bin/env python3
"""tools/import.py SOURCE --out DIR: a data set from what labelling tools export."""

import sys

from hrseg.commands.importing import main

if __name__ == "__main__":
    sys.exit(main())
