#!/usr/bin/env python3
"""tools/predict.py --checkpoint PATH INPUT... --out DIR: segment pictures and films."""

import sys

from hrseg.engine.predict import main

if __name__ == "__main__":
    sys.exit(main())
