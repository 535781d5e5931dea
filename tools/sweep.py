#!/usr/bin/env python3
"""tools/sweep.py SWEEP [key=value ...]: the runs of a wandb sweep file on this machine, offline."""

import sys

from hrseg.commands.sweep import main

if __name__ == "__main__":
    sys.exit(main())
