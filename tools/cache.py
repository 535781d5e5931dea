#!/usr/bin/env python3
"""tools/cache.py build|clear CONFIG [key=value ...]: decoded samples on disk."""

import sys

from hrseg.commands.cache import main

if __name__ == "__main__":
    sys.exit(main())
