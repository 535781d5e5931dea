#!/usr/bin/env python3
"""tools/serve.py --checkpoint PATH: a local page that segments pictures."""

import sys

from hrseg.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
