#!/usr/bin/env python3
"""tools/predict.py --checkpoint PATH INPUT... --out DIR: segment images and videos."""

import sys

from hrseg.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
