"""Which files hrseg made. Each command asks before it replaces a file; what somebody else made is never touched."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hrseg.errors import HrsegError, first_line

CONFIG_MARK = "# Written by hrseg"  # the first line of config.yaml
PAGE_MARKS = (b'name="generator" content="hrseg', b'<p class="kind">segmentation ')  # the second: of older pages
PICTURE_MARK = b"hrseg"  # in the text at the beginning of a PNG
# Of what each kind of JSON file has at its top level
JSON_KEYS = (
    {"miou", "classes", "definition"},  # metrics.json
    {"differences", "definition"},  # of compare
    {"machine", "versions", "rows"},  # of benchmark
    {"task", "classes"},  # classes.json
    {"proof", "input", "output"},  # of an exported file
    {"_hrseg", "_model_class"},  # config.json for the hub
    {"host", "pid", "token"},  # a lock
    {"checkpoints", "threshold", "kept"},  # sure.json of predict
)
# What a run or an evaluation writes into its folder
RESULTS = ("config.yaml", "log.jsonl", "results.csv", "metrics.json", "per_image.npz", "report.html", "examples.npz",
           "data.png", "lock.json")  # fmt: skip
FOLDERS = ("checkpoints", "images", "failures", "replay")
SHOWN = 3


def is_made_by_hrseg(path: Path) -> bool:
    """Whether the content of a file says so. A file of a format that has no place for it: what lies beside it does."""
    reader = _BY_NAME.get(path.name) or _BY_ENDING.get(path.suffix.lower()) or _described
    with suppress(Exception):  # a foreign file may make its reader raise anything
        return reader(path)
    return False


def require_replaceable(path: Path, way_out: str = "Give another --out.") -> None:
    """Raise HrsegError where there is a file that hrseg did not make, or a folder."""
    if path.is_dir():
        raise HrsegError(path, "is a folder.", way_out)
    if path.exists() and not is_made_by_hrseg(path):
        raise HrsegError(path, "is there, and does not say that hrseg made it: it is not overwritten.", way_out)


def require_own_folder(folder: Path, way_out: str = "Give another --out.") -> None:
    """Raise HrsegError where a folder for results holds anything that hrseg did not make.

    Into a folder with a run or its results, other files may have been put; but none under the name of a result.
    """
    if folder.exists() and not folder.is_dir():
        raise HrsegError(folder, "is a file.", way_out)
    shown = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
    if not shown:
        return
    if holds_results(folder):
        foreign = [path for path in shown if path.name in RESULTS and not _is_result(path)]
    else:
        foreign = shown
    if foreign:
        names = ", ".join(path.name for path in foreign[:SHOWN])
        more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
        raise HrsegError(folder, f"holds what hrseg did not make: {names}{more}. Nothing was written.", way_out)


def require_free_names(folder: Path, way_out: str = "Give another folder with --out.") -> None:
    """Raise HrsegError where a result would replace something in a folder that is not only for results."""
    if holds_results(folder):
        require_own_folder(folder, way_out)
        return
    taken = [name for name in (*RESULTS, *FOLDERS) if (folder / name).exists() and not _is_result(folder / name)]
    if taken:
        raise HrsegError(folder, f"holds a {taken[0]} that hrseg did not make. Nothing was written.", way_out)


def holds_results(folder: Path) -> bool:
    """Whether a folder holds a run, or the results of an evaluation."""
    if any((folder / "checkpoints" / name).exists() for name in ("last.pt", "best.pt", "previous.pt")):
        return True
    return any((folder / name).exists() and is_made_by_hrseg(folder / name) for name in RESULTS)


def require_new_folder(target: Path) -> None:
    """Raise HrsegError where there is a file, or a folder that holds anything."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise HrsegError(target, "is there already.", "Choose another --out, or delete it first.")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends; after an error it is deleted.

    Raises HrsegError where the target holds anything or cannot be written.
    """
    require_new_folder(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    made: list[Path] = []
    try:
        try:
            for parent in reversed([temporary, *temporary.parents]):
                if not parent.exists():
                    parent.mkdir()
                    made.append(parent)
            yield temporary
            temporary.replace(target)
            made.clear()
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            for parent in reversed(made):
                with suppress(OSError):
                    parent.rmdir()
    except OSError as error:
        raise HrsegError(
            target, f"cannot be written: {error.strerror or first_line(error)}.", "Choose another --out."
        ) from error


def _is_result(path: Path) -> bool:
    """With config.yaml of earlier versions, which had no mark: it is known by the log beside it."""
    if is_made_by_hrseg(path):
        return True
    return path.name == "config.yaml" and is_made_by_hrseg(path.with_name("log.jsonl"))


def _config(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().startswith(CONFIG_MARK)


def _log(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    return not first or {"step", "kind"} <= json.loads(first).keys()


def _table(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().startswith("step,epoch,train_loss,")


def _json(path: Path) -> bool:
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    return any(keys <= content.keys() for keys in JSON_KEYS)


def _page(path: Path) -> bool:
    content = path.read_bytes()
    return any(mark in content for mark in PAGE_MARKS)


def _picture(path: Path) -> bool:
    with path.open("rb") as file:
        return PICTURE_MARK in file.read(1024)


def _arrays(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return {"names.npy"} <= {*archive.namelist()} or {"index.npy"} <= {*archive.namelist()}


def _checkpoint(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        content = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    return b"normalisation" in content and b"format" in content


def _safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return b"hrseg" in file.read(int.from_bytes(file.read(8), "little"))


def _described(path: Path) -> bool:
    beside = path.with_name(f"{path.name}.json")
    return beside.exists() and _json(beside)


_BY_NAME: dict[str, Callable[[Path], bool]] = {
    "config.yaml": _config, "classes.yaml": _config, "log.jsonl": _log, "results.csv": _table,
    "README.md": lambda path: _json(path.with_name("config.json")),
}  # fmt: skip
_BY_ENDING: dict[str, Callable[[Path], bool]] = {
    ".json": _json, ".html": _page, ".png": _picture, ".npz": _arrays, ".safetensors": _safetensors,
    ".pt": lambda path: _described(path) or _checkpoint(path),
}  # fmt: skip
