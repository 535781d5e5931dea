"""The device of a command, the number types it computes in, and the settings of the process for it."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from hrseg.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc, malloc.h


def set_up(device_name: str, *, threads: int | None = None, deterministic: bool = False) -> torch.device:
    """Pick the device of a run and set this process up for it.

    threads: CPU threads; None leaves torch's choice. deterministic: on CUDA, only operations that repeat bit for bit.
    """
    device = pick_device(device_name)
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not deterministic
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for what asks for no device: streams, memory that is pinned, collectives
    return device


def pick_device(name: str) -> torch.device:
    """The device that the setting run.device names; `auto` is CUDA where it is available.

    Under torchrun `cuda` is one GPU per rank. Raises ConfigError for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("run.device", f"'{name}' is not a device.", "Use auto, cpu, cuda or cuda:1.") from None
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ConfigError("run.device", f"'{name}' is not available.", "Use auto, cpu or cuda.")
    if device.type == "cuda":
        if device.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "run.device", f"'{name}' would put all processes on one GPU.", "Use cuda: one GPU per rank."
            )
        if not torch.cuda.is_available():
            raise ConfigError("run.device", f"'{name}': there is no CUDA device.", "Use run.device=cpu.")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if device.index >= torch.cuda.device_count():
            raise ConfigError("run.device", f"'{device}': there are {torch.cuda.device_count()} CUDA devices.")
    return device


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory in the process; returns whether it does.

    By default an activation of more than 32 MiB is newly mapped each time and its pages are zeroed one fault at a time,
    which costs a sixth to a quarter of a training step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
