"""The configs that come with hrseg: found by name from any folder, in a clone and after an installation."""

from __future__ import annotations

import logging
from pathlib import Path

from hrseg.errors import ConfigError, nearest

log = logging.getLogger(__name__)


def shipped_configs() -> dict[str, Path]:
    """The configs that come with hrseg, by file name."""
    clone, *above = Path(__file__).parents[2:]
    # An installation puts them into share/ of a folder above site-packages: the environment, ~/.local, or --target.
    folders = [folder / "share" / "hrseg" / "configs" for folder in (clone, *above)]
    if (clone / "tools" / "train.py").is_file():
        folders.insert(0, clone / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.name: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def find_config(path: Path) -> Path:
    """The path itself where there is such a file, else the shipped config that NAME.yaml or configs/NAME.yaml names.

    Raises ConfigError, with the names of the shipped configs, if there is neither.
    """
    if path.exists():
        return path
    shipped = shipped_configs()
    if path.name in shipped and path.parent in (Path(), Path("configs")):
        log.info("%s: taken from the configs shipped with hrseg, %s", path, shipped[path.name])
        return shipped[path.name]
    way_out = f"Give the path of a YAML file, or the name of a shipped one. {nearest(path.name, shipped)}"
    raise ConfigError(path, "no such file.", way_out)
