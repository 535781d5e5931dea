"""How a run is asked to stop: SIGTERM and Ctrl-C, on one process or on all."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import torch

from hrseg import distributed


class NothingToSave(BaseException):
    """The run is to stop, and no iteration was done. Not an Exception: nothing on the way catches it."""


class StopRequest:
    """SIGTERM and the first Ctrl-C ask the loop to stop after the running iteration, or to abandon its validation.

    Before the loop they end the run at once. A second Ctrl-C interrupts in any case, but not under torchrun, which
    passes on to every process what these were sent already.
    """

    def __init__(self, device: torch.device):
        self._device, self._flag, self._at_once = device, False, True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not the main thread
                self._before[number] = signal.signal(number, self._take_notice)
        return self

    def _take_notice(self, number: int, _frame: object) -> None:
        again, self._flag = self._flag, True
        if self._at_once:
            raise NothingToSave
        if again and number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt

    def postpone(self) -> None:
        """From now on there is something to save."""
        self._at_once = False
        if self._flag:
            raise NothingToSave

    def is_asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self._flag

    def is_agreed(self, ask_others: bool) -> bool:
        """Whether to stop. With several processes they agree, at the iterations that log."""
        if distributed.world_size() == 1:
            return self._flag
        return ask_others and distributed.any_rank(self._flag, self._device)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
