#!/usr/bin/env python3
"""tools/test.py [CONFIG] --checkpoint PATH [key=value ...]: score a model."""

import sys

from hrseg.commands.test import main

if __name__ == "__main__":
    sys.exit(main())
