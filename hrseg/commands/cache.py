"""The command `tools/cache.py`: build or delete the decoded samples of a data set on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hrseg.console import command, parser
from hrseg.errors import ConfigError


@command
def main(argv: Sequence[str]) -> int:
    """Make the cache of the training and validation splits, or delete it."""
    args = parsed(argv)

    from hrseg import build
    from hrseg import config as settings
    from hrseg.data.cache import CachedDataset, clear_caches
    from hrseg.data.checks import require_sound
    from hrseg.data.fitted import FittedDataset

    config = settings.load(args.config, args.settings)
    folder = build.cache_dir(config)
    if args.action == "clear":
        print(f"{folder}: {clear_caches(folder) / 1e9:.2f} GB deleted")
        return 0
    if config.data.cache == "none":
        raise ConfigError(
            "data.cache", "is none: there is nothing to build.", "Set data.cache=strips or data.cache=raw."
        )
    datasets = build.data_sets(config)
    if config.data.check:
        require_sound(datasets, workers=config.data.workers)
    for split, dataset in datasets.items():
        dataset = dataset.whole if isinstance(dataset, FittedDataset) else dataset  # what files hold is cached
        cached = build.cached(config, dataset, renew=True)
        assert isinstance(cached, CachedDataset)  # data.cache is not none
        print(f"{split}: {len(cached)} samples in {cached.folder}")
    return 0


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    options = parser(
        "Decode a data set once, for faster training. Where data.cache is set, training makes the cache automatically; "
        "build also renews what was made from files that have changed.",
        "examples:\n"
        "  tools/cache.py build configs/cityscapes.yaml data.cache=strips\n"
        "  tools/cache.py clear configs/cityscapes.yaml",
    )
    options.add_argument("action", choices=("build", "clear"))
    options.add_argument("config", metavar="CONFIG", help="a YAML file; configs/ has some")
    options.add_argument("settings", nargs="*", metavar="key=value", help="e.g. data.cache_dir=/fast/cache")
    return options.parse_intermixed_args(argv)
