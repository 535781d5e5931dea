"""What it means for a person when the system stops a process that reads data."""

from __future__ import annotations

import os

from hrseg.errors import DataError


class ReadingStopped(DataError):
    """The system ended a reading process, or gave it no memory. What was done before is sound."""


def why_reading_stopped(message: str, batch_bytes: int) -> ReadingStopped | None:
    """The error to raise for torch's message about a reading process; None where it is about something else.

    batch_bytes: what one batch needs.
    """
    if "shared memory" in message or "Bus error" in message:
        room = _shared_memory()
        there = f"/dev/shm has {room / 2**20:,.0f} MiB, " if room is not None else ""
        what = f"reading processes ran out of shared memory: {there}a batch needs {batch_bytes / 2**20:,.1f} MiB"
        what += " and several are prepared at a time."
        way_out = "Use fewer data.workers (0 needs no shared memory), or docker run --shm-size=8g."
        return ReadingStopped("data.workers", what, way_out)
    if "is killed by signal" in message or "exited unexpectedly" in message:
        what = f"a reading process was ended by the system: {message.splitlines()[0].rstrip('.')}."
        return ReadingStopped("data.workers", what, "Most often memory ran out: use fewer data.workers.")
    return None


def _shared_memory() -> int | None:
    """The size of /dev/shm in bytes; None where there is none."""
    try:
        about = os.statvfs("/dev/shm")
    except OSError:
        return None
    return about.f_frsize * about.f_blocks
