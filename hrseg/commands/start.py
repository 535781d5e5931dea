"""The command `hrseg start` (`tools/start.py`): a first recipe for your data, your machine and your time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, parser
from hrseg.errors import ConfigError, DataError
from hrseg.files import write_text

MARK = "# Written by hrseg start"


@command
def main(argv: Sequence[str]) -> int:
    """Write a commented YAML file that trains for the given minutes."""
    args = parsed(argv)
    out = args.out or Path(f"{args.data.resolve().name.partition('.')[0]}.yaml")
    if not args.dry and out.exists() and not (out.is_file() and out.read_bytes().startswith(MARK.encode())):
        raise ConfigError(out, "is there already, and was not written by hrseg start.", "Give another --out.")

    from hrseg.build.start import first_recipe

    weights = None if args.weights == "none" else args.weights
    recipe = first_recipe(folder_of(args), args.minutes, task=args.task, weights=weights)
    print(recipe.text, end="")
    for note in recipe.notes:
        print(f"note: {note}")
    if not args.dry:
        write_text(out, recipe.text)
        print(f"written: {out}. Train: tools/train.py {out}")
    return 0


def folder_of(args: argparse.Namespace) -> Path:
    """The data set in the folder layout: as given, or imported to a folder beside it."""
    data: Path = args.data
    if not data.exists():
        raise DataError(data, "no such file or folder.")
    if data.is_dir() and (data / "images").is_dir() and (data / "classes.yaml").is_file():
        return data
    folder = data.resolve().with_name(f"{data.resolve().name.partition('.')[0]}_imported")
    if (folder / "import.json").is_file():
        print(f"{data} was imported before: {folder}")
        return folder
    from hrseg.importing.importer import import_data
    from hrseg.importing.records import Options

    import_data(Options(sources=(data,), out=folder, unlabelled=args.unlabelled))
    print(f"{data} is imported to {folder}")
    return folder


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    options = parser(
        "Look at a data set and this machine, time a few steps, and write a commented YAML file for tools/train.py "
        "that takes the given minutes.",
        "examples:\n"
        "  tools/start.py data/mine --minutes 30\n"
        "  tools/start.py export.zip --minutes 30 --unlabelled background\n"
        "  tools/start.py data/mine --minutes 5 --dry",
    )
    add = options.add_argument
    add(
        "data",
        type=Path,
        metavar="DATA",
        help="a folder with images/, masks/, classes.yaml, or what tools/import.py reads",
    )
    add("--minutes", type=_minutes, required=True, metavar="M", help="how long the training may take")
    add("--task", choices=("multiclass", "binary", "multilabel"), help="default: binary for background and one class")
    add("--weights", choices=("imagenet", "none"), default="imagenet", help="what training starts from (%(default)s)")
    add("--unlabelled", choices=("background", "ignore"), help="imports: what pixels are that no annotation covers")
    add("--out", type=Path, metavar="PATH", help="the YAML file; default: named after DATA, in this folder")
    add("--dry", action="store_true", help="print it only; an import is still written")
    return options.parse_args(argv)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.5 <= minutes <= 100_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of minutes from 0.5 on")
    return minutes
