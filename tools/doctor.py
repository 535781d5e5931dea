#!/usr/bin/env python3
"""tools/doctor.py RUN RUN ... --out DIR: what is wrong with the labels."""

import sys

from hrseg.commands.doctor import main

if __name__ == "__main__":
    sys.exit(main())
