#!/usr/bin/env python3
"""tools/train.py CONFIG [key=value ...] [--resume [auto|PATH]] [--replay STEP]: train a model."""

import os
import sys
from collections.abc import Sequence

from hrseg.commands import arguments
from hrseg.console import command
from hrseg.train import ahead


@command
def start(argv: Sequence[str]) -> int:
    args, config, folder = arguments.train(argv)  # help and mistakes are told before the seconds that torch takes
    main = int(os.environ.get("RANK", 0)) == 0
    looking = ahead.start(config, check=config.data.check and main) if args.replay is None else None
    from hrseg.train import loop as train

    return train.start(args, config, folder, looking)


if __name__ == "__main__":
    sys.exit(start())
