"""The command `tools/check_data.py`: report everything that is wrong with a data set, and what it holds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, counted, parser
from hrseg.errors import HrsegError
from hrseg.made_files import require_replaceable


@command
def main(argv: Sequence[str]) -> int:
    """Look at all pairs of files of both splits; exit code 2 if training would fail or mislead."""
    args = parsed(argv)

    from hrseg import build, installed_packages
    from hrseg import config as settings
    from hrseg.data import checks
    from hrseg.data.image_checks import value_warnings
    from hrseg.data.problems import refuse_problems
    from hrseg.report import data_summary

    config = settings.load(args.config, args.settings)
    path = args.sheet or (config.run.dir or Path("runs") / Path(args.config).stem) / "data.png"
    require_replaceable(path, "Give another --sheet.")
    if misfits := installed_packages.misfits():
        raise HrsegError("installed packages", " ".join(misfits), "Install them anew: pip install --editable .")
    data, train_split = config.data, config.data.train_split
    datasets = build.data_sets(config)
    examinations = {
        split: checks.examine(dataset, workers=data.workers, digests=len(datasets) > 1)
        for split, dataset in datasets.items()
    }
    problems = [problem for examination in examinations.values() for problem in examination.problems]
    problems += checks.images_in_two_splits(datasets, examinations)
    problems += checks.sizes_without_crop(
        examinations[train_split],
        crop=config.augment.crop,
        scale=config.augment.scale,
        batch_size=config.train.batch_size,
    )
    refuse_problems(problems, datasets, one_by_one=args.all)

    space = datasets[train_split].space
    for split, examination in examinations.items():
        print(f"{split}: {counted(examination.opened, 'image')}, {examination.size_range()}, nothing wrong")
    print(data_summary.class_table(space, examinations))
    print(data_summary.weighted_loss(space, examinations[train_split]))
    taken = build.normalisation(config, datasets[train_split][0])
    data_summary.save_data_sheet(datasets, taken, path)
    print(f"images and their labels: {path}")
    warnings = [*data_summary.data_warnings(space, examinations, train_split), *value_warnings(datasets, taken)]
    for warning in warnings:
        print(f"warning: {warning}")
    return 0


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    options = parser(
        "Check a data set. Reports every problem at once: missing masks, unreadable files, sizes, values outside the "
        "classes, images that are in both splits. For a sound data set it prints the share of each class and suggested "
        "class weights, and draws a sheet of images with their labels.",
        "examples:\n"
        "  tools/check_data.py configs/folder.yaml data.root=data/mine\n"
        "  tools/check_data.py configs/cityscapes.yaml data.workers=8 --sheet cityscapes.png",
    )
    options.add_argument("config", metavar="CONFIG", help="a YAML file; configs/ has some")
    options.add_argument("settings", nargs="*", metavar="key=value", help="e.g. data.root=data/mine")
    options.add_argument("--all", action="store_true", help="list every file, not one of each kind of problem")
    options.add_argument(
        "--sheet",
        type=Path,
        metavar="PATH",
        help="picture of images and their labels; default: data.png in the run folder",
    )
    return options.parse_intermixed_args(argv)
