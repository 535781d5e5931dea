#!/usr/bin/env python3
"""tools/train.py CONFIG [key=value ...] [--resume [auto|PATH]] [--replay STEP]: train a model."""

import sys

from hrseg.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
