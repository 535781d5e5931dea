"""The command `hrseg`: `hrseg NAME ...` is the same as tools/NAME.py, for people who installed the package."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from hrseg.console import called_as, command, parser
from hrseg.errors import HrsegError, nearest
from hrseg.version import __version__

# In the order of the work. A name is that of a module in hrseg.commands, but for a word that Python keeps to itself.
COMMANDS = {
    "import": "make a data set from what labelling tools export, or from maps",
    "check_data": "report everything that is wrong with a data set",
    "cache": "decode a data set once, for faster training",
    "start": "write settings for your data, your machine and your minutes",
    "train": "train a model",
    "sweep": "train with several settings, one run after the other",
    "test": "score a model, or predictions in files",
    "folds": "put the runs of a k-fold split together as one score",
    "doctor": "find labels that are likely wrong, and mend them",
    "compare": "compare two methods by their runs",
    "report": "write the page of a run, or of two side by side",
    "predict": "segment images and videos",
    "serve": "start a local page that segments images",
    "convert": "name a checkpoint and convert it",
    "export": "write a checkpoint as a file for another runtime",
    "benchmark": "measure hrseg beside other packages",
}

MODULES = {"import": "importing"}


def module_of(name: str) -> str:
    """The full name of the module of a command."""
    return f"hrseg.commands.{MODULES.get(name, name)}"


@command
def main(argv: Sequence[str]) -> int:
    """hrseg NAME ...: hand the words after the name to the command of that name."""
    listed = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    options = parser(
        "Semantic segmentation with HRNet.",
        f"commands, in the order of the work:\n{listed}\n\n"
        "examples:\n"
        "  hrseg train cityscapes.yaml data.root=/data/cityscapes\n"
        "  hrseg predict --checkpoint best.pt photo.jpg --out predictions\n"
        "  hrseg train --help\n"
        "  torchrun --nproc-per-node=4 -m hrseg train cityscapes.yaml",
        program="hrseg",
    )
    options.add_argument("--version", action="version", version=f"hrseg {__version__}")
    options.add_argument("name", metavar="NAME", help="one of the commands below; hrseg NAME --help shows its options")
    args = options.parse_args(argv[:1])
    name = args.name.replace("-", "_")  # check-data too
    if name not in COMMANDS:
        raise HrsegError(f"hrseg {args.name}", "no such command.", nearest(name, COMMANDS))
    with called_as(f"hrseg {args.name}"):
        return importlib.import_module(module_of(name)).main(argv[1:])
