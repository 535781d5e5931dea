"""The command `tools/cache.py`: decoded samples of a data set on disk, made or deleted."""

from __future__ import annotations

from collections.abc import Sequence

from hrseg import build
from hrseg import config as settings
from hrseg.console import command, parser
from hrseg.data import cache
from hrseg.data.checks import require_sound
from hrseg.errors import ConfigError


@command
def main(argv: Sequence[str]) -> int:
    """Make the cache of the training and validation splits, or delete it."""
    arguments = parser(
        "Decode a data set once, for faster training. Training makes the cache by itself where data.cache is set; "
        "build also renews what was made from files that have changed.",
        "examples:\n"
        "  tools/cache.py build configs/cityscapes.yaml data.cache=strips\n"
        "  tools/cache.py clear configs/cityscapes.yaml",
    )
    arguments.add_argument("action", choices=("build", "clear"))
    arguments.add_argument("config", metavar="CONFIG", help="a YAML file; configs/ has some")
    arguments.add_argument("settings", nargs="*", metavar="key=value", help="e.g. data.cache_dir=/fast/cache")
    args = arguments.parse_intermixed_args(argv)
    config = settings.load(args.config, args.settings)
    folder = build.cache_dir(config)
    if args.action == "clear":
        print(f"{folder}: {cache.clear(folder) / 1e9:.2f} GB deleted")
        return 0
    if config.data.cache == "none":
        raise ConfigError(
            "data.cache", "is none: there is nothing to build.", "Set data.cache=strips or data.cache=raw."
        )
    names = dict.fromkeys((config.data.train_split, config.data.val_split))
    sets = {split: build.dataset(config, split) for split in names}
    if config.data.check:
        require_sound(sets, workers=config.data.workers)
    for split in sets:
        dataset = build.cached(config, sets[split], renew=True)
        assert isinstance(dataset, cache.Cached)  # data.cache is not none
        print(f"{split}: {len(dataset)} samples in {dataset.folder}")
    return 0
