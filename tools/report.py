#!/usr/bin/env python3
"""tools/report.py RUN [RUN_B]: write the page of a run, or of two side by side."""

import sys

from hrseg.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
