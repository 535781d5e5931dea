"""One training at a time in a run folder: a lock that names its holder and outlives none.

The holder touches the file every few seconds. Whether a holder is alive is asked of the operating system where it runs
on this machine; of another machine, the file is watched for a few of these beats, whatever both clocks say. So this
works on network disks, and a lock that was left by a killed process is taken over without help.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from hrseg.errors import HrsegError

NAME = "lock.json"
BEAT_S = 5.0  # between two touches by the holder
SILENCE_S = 4 * BEAT_S  # without a touch, after which a holder on another machine counts as dead
SETTLE_S = 0.2  # between taking a lock over and reading it again: another process may have done the same


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. started: of the process, in clock ticks since boot. namespace: of process ids."""

    host: str
    namespace: str
    pid: int
    started: str
    since: str  # local time, for people
    token: str

    @classmethod
    def this_process(cls) -> Holder:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), _namespace(), os.getpid(), _started(os.getpid()), since, uuid.uuid4().hex)

    def is_on_this_machine(self) -> bool:
        return (self.host, self.namespace) == (socket.gethostname(), _namespace())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """Holds a run folder while the block lasts. The folder is made, and removed again if it is still empty at the end.

    Raises HrsegError where another living process holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME
        self._me = Holder.this_process()
        self._ended = threading.Event()
        self._made_folder = False

    def require_free(self) -> None:
        """Raise HrsegError where another living process holds the folder; nothing is written."""
        holder = read_holder(self.path)
        if holder is not None and _is_alive(holder, self.path):
            what = f"a training runs in this folder: {holder}."
            raise HrsegError(self.folder, what, "Wait for its end or stop it; or choose run.dir=OTHER.")

    def __enter__(self) -> RunLock:
        try:
            self._made_folder = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise HrsegError(self.folder, f"cannot be written: {error.strerror}.", "Choose another run.dir.") from error
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            if read_holder(self.path) == self._me:
                self.path.unlink()
            if self._made_folder:
                self.folder.rmdir()  # fails where anything is in it

    def _acquire(self) -> None:
        while True:
            with contextlib.suppress(FileExistsError):
                with self.path.open("x", encoding="utf-8") as file:
                    json.dump(asdict(self._me), file)
                return
            self.require_free()
            temporary = self.folder / f".{self._me.token}.json"
            temporary.write_text(json.dumps(asdict(self._me)), encoding="utf-8")
            temporary.replace(self.path)
            time.sleep(SETTLE_S)
            if read_holder(self.path) == self._me:
                return

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError):  # the disk may be away for a moment
                os.utime(self.path)


def read_holder(path: Path) -> Holder | None:
    """Who holds a lock; None where there is none, or nobody that can be made out."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_alive(holder: Holder, path: Path) -> bool:
    if holder.is_on_this_machine():
        return _started(holder.pid) == holder.started != ""
    first = _touched(path)
    deadline = time.monotonic() + SILENCE_S
    while time.monotonic() < deadline:
        if _touched(path) != first:
            return True
        time.sleep(BEAT_S / 10)
    return False


def _touched(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _started(pid: int) -> str:
    """When a process of this machine started: with it, a number that is used again is told apart. Empty: no process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]  # Z: it has ended, and its parent has not yet asked how
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "unknown"


def _namespace() -> str:
    """Two containers may share a name and not their process ids."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
