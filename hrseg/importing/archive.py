"""Archives that tools export, unpacked within bounds: nothing lands outside the folder, nothing grows without end."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from hrseg.console import progress
from hrseg.errors import DataError, first_line

MOST_FILES = 2_000_000
MOST_GROWTH = 200  # unpacked over packed bytes of the whole archive
FREE_BYTES = 64 * 2**20  # for small archives, whatever the growth


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip archive into a folder. Raises DataError for one that is broken or may do harm."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _require_harmless(path, members)
            with progress(len(members), f"unpacking {path.name}", "file") as bar:
                for member in members:
                    _extract(archive, member, folder)
                    bar.update()
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise DataError(path, f"cannot be unpacked: {first_line(error)}.", "Export it again.") from None
    except OSError as error:
        raise DataError(path, f"cannot be unpacked: {error.strerror or first_line(error)}.") from None
    except Exception as error:
        if type(error).__module__ in ("zlib", "lzma", "_lzma"):
            raise DataError(path, f"cannot be unpacked: {first_line(error)}.", "Export it again.") from None
        raise


def _require_harmless(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_FILES:
        raise DataError(path, f"holds {len(members):,} files, more than {MOST_FILES:,}.", "Unpack it yourself.")
    size = sum(member.file_size for member in members)
    if size > max(FREE_BYTES, MOST_GROWTH * path.stat().st_size):
        what = f"would grow to {size:,} bytes, more than {MOST_GROWTH} times its size."
        raise DataError(path, what, "If that is right, unpack it yourself and give the folder.")
    for member in members:
        name = member.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
            raise DataError(path, f"holds a file whose name leads out of the archive: '{member.filename}'.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(path, f"holds a link: '{member.filename}'.", "Unpack it yourself and give the folder.")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder.joinpath(*PurePosixPath(member.filename.replace("\\", "/")).parts)
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)  # reads no more than the size that was checked: zipfile cuts it there
