"""Rank, world size, sums over ranks; the same calls work in one process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=15)  # with a process that does not come to a collective operation
_patient: Any = None  # a group of the same processes that waits for a day
TORCHRUN_LOOKS_S = 5.0  # torchrun looks every 0.1 s whether a process has ended


def active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if active() else 0


def world_size() -> int:
    return dist.get_world_size() if active() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return rank() == 0


def rank_from_environment() -> int:
    """The rank that torchrun gave this process, also outside `process_group`."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did, and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or active():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, number, size = next(dist.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # After a restart on one machine torchrun's store still knows where the dead processes could be reached. (On
        # several machines the count may differ from one to the other.)
        store = dist.PrefixStore(f"restart_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=PATIENCE)
    global _patient
    _patient = dist.new_group(backend="gloo", timeout=timedelta(days=1))
    try:
        yield
    except Exception as error:
        # Without the group's orderly end: the process goes, and with it what the others wait for.
        if _is_loss_of_another(error):
            log.error("process %d: another process has ended, so this one does too.", rank())
            time.sleep(TORCHRUN_LOOKS_S)  # torchrun takes the process that ends first for the cause
            raise SystemExit(1) from None
        get_error_handler().record_exception(error)  # for the summary of torchrun
        raise
    dist.destroy_process_group()


def _is_loss_of_another(error: Exception) -> bool:
    """Whether a collective operation failed because another process is gone, rather than by this one's fault."""
    text = str(error)
    signs = ("gloo/transport", "Connection closed by peer", "Connection reset by peer",
             "ncclRemoteError", "NCCL communicator was aborted")  # fmt: skip
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, on every rank."""
    if active():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on any rank."""
    return bool(sum_over_ranks(torch.tensor(int(flag), device=device)).item())


def max_over_ranks(tensor: Tensor) -> Tensor:
    """The largest of every rank's tensor, on every rank."""
    if active():
        tensor = tensor.clone()
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def share_buffers(model: nn.Module) -> None:
    """Give every rank the first one's buffers: plain batch norm has other running statistics on each."""
    if active():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def gather(value: Any) -> list[Any]:
    """Every rank's value in rank order, on every rank. Values are pickled: for small plain things."""
    if not active():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    if active():
        # NCCL would have to guess the GPU.
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)


def wait_for_main() -> None:
    """Wait until the first process is here too; it may take hours, over the check of a large data set."""
    if active():
        dist.barrier(_patient)
