"""python -m hrseg NAME ...: the command `hrseg`; under torchrun: torchrun --nproc-per-node=4 -m hrseg train ..."""

import sys

from hrseg.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
