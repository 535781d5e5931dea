"""The command `tools/check_data.py`: everything that is wrong with a data set, before training."""

from __future__ import annotations

from collections.abc import Sequence

from hrseg import build
from hrseg import config as settings
from hrseg.cli import command, parser
from hrseg.data.checks import require_sound


@command
def main(argv: Sequence[str]) -> int:
    """Look at every pair of files of the training and validation splits; exit code 2 if training would fail."""
    arguments = parser(
        "Check a data set: pairs, unreadable files, sizes, ids outside the classes. All problems are told together.",
        "examples:\n  tools/check_data.py configs/folder.yaml data.root=data/mine",
    )
    arguments.add_argument("config", metavar="CONFIG", help="a YAML file; configs/ has some")
    arguments.add_argument("settings", nargs="*", metavar="key=value", help="e.g. data.root=data/mine")
    args = arguments.parse_intermixed_args(argv)
    config = settings.load(args.config, args.settings)
    splits = dict.fromkeys((config.data.train_split, config.data.val_split))
    sets = {split: build.dataset(config, split) for split in splits}
    require_sound(sets, workers=config.data.workers)
    for split, dataset in sets.items():
        print(f"{split}: {len(dataset)} images, nothing wrong")
    return 0
