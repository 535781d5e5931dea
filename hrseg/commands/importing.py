"""The command `hrseg import` (`tools/import.py`): a data set from what labelling tools export, and from maps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrseg.console import command, counted, fraction, parser


@command
def main(argv: Sequence[str]) -> int:
    """Write images, masks and classes as data.dataset=folder reads them, and say what was done."""
    args = parsed(argv)

    from hrseg.importing.importer import import_data
    from hrseg.importing.records import Options

    words = vars(args)
    done = import_data(Options(**{**words, "sources": tuple(args.sources)}))
    print(summary(done))
    print(f"{args.out}: masks, classes.yaml and import.json. Check it, then train:")
    print(f"  tools/check_data.py {settings(done, args.out)}")
    print(f"  tools/train.py {settings(done, args.out)}")
    return 0


def summary(done: dict[str, Any]) -> str:
    """What was imported and what was left out, in a few lines."""
    images = ", ".join(f"{split} {number}" for split, number in done["images"].items())
    lines = [f"{done['format']}: images: {images}; {counted(done['annotations'], 'annotation')}"]
    lines.append(f"classes: {', '.join(entry['name'] for entry in done['classes'])}")
    if done["overlap_share"]:
        lines.append(f"annotations of different classes overlap in {done['overlap_share']:.1%} of the labelled pixels")
    if done["ignored_annotations"]:
        lines.append(f"{counted(done['ignored_annotations'], 'annotation')} ignored (crowds and the like)")
    nouns = {
        "images": "image that is broken",
        "annotations": "annotation that is broken",
        "empty": "image without labels",
    }
    for kind, noun in nouns.items():
        if number := len(done["left_out"][kind]):
            first, _, rest = noun.partition(" ")
            lines.append(f"left out: {counted(number, first)} {rest if number == 1 else rest.replace('is', 'are')}")
    return "\n".join([*lines, *done["notes"]])


def settings(done: dict[str, Any], out: Path) -> str:
    """The words that train on it."""
    words = f"configs/folder.yaml data.root={out}"
    splits = set(done["images"])
    return f"{words} data.val_share=null" if {"train", "val"} <= splits else words


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    options = parser(
        "Make a data set from what a labelling tool exported, or from a map. The format is recognised by its content. "
        "Images are linked, not copied.",
        "examples:\n"
        "  tools/import.py export.zip --out data/mine --unlabelled background\n"
        "  tools/import.py annotations.json --images photos --out data/mine --unlabelled ignore\n"
        "  tools/import.py ortho.tif fields.gpkg --class-field crop --out data/mine --unlabelled ignore",
    )
    add = options.add_argument
    add("sources", nargs="+", type=Path, metavar="SOURCE", help="a folder, a .zip, or files of annotations")
    add("--out", type=Path, required=True, metavar="DIR", help="the new folder, for data.root")
    add("--format", metavar="NAME", help="the format, where it is not recognised")
    add("--images", type=Path, metavar="DIR", help="the folder with the images, if they are not beside the annotations")
    add("--unlabelled", choices=("background", "ignore"), help="what pixels are that no annotation covers")
    add("--line-width", type=_positive, metavar="N", help="of Labelme's lines, in pixels (default: 10)")
    add(
        "--classes",
        type=Path,
        metavar="FILE",
        help="a table of classes, CSV or JSON: name and colour, or name and value",
    )
    add(
        "--soft", choices=("threshold", "ignore"), help="what pixels between two classes become, in JPEG and soft masks"
    )
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="maps: polygons or a label raster, if they are not among the sources",
    )
    add("--class-field", metavar="NAME", help="maps: the field of the polygons that is the class")
    add("--tile", type=_tile, metavar="N", help="maps: side of the tiles in pixels (default: 512)")
    add("--val-share", type=fraction, metavar="S", help="maps: share of the ground for validation (default: 0.2)")
    add("--copy", action="store_true", help="copy images instead of linking them")
    add("--skip-broken", action="store_true", help="leave out what is broken, and count it")
    return options.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 to 9999")
    return int(text)


def _tile(text: str) -> int:
    if not text.isdecimal() or not 32 <= int(text) <= 8192:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 32 to 8192")
    return int(text)
