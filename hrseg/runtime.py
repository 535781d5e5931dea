"""What makes PyTorch faster on a CPU without changing a result."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc, malloc.h


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory in the process; returns whether it does.

    By default an activation of more than 32 MiB is mapped anew each time and its pages are zeroed one fault at a time,
    which costs a sixth to a quarter of a training step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
