#!/usr/bin/env python3
"""tools/start.py DATA --minutes M: a first recipe for your data, machine and time."""

import sys

from hrseg.commands.start import main

if __name__ == "__main__":
    sys.exit(main())
