"""How fast training is, and how much of the time it waits for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from hrseg.data.loader import Batch


class Clock:
    """Images per second and the share of time spent waiting for data, since the last record."""

    def __init__(self, images_per_step: int):
        self._images, self.began = images_per_step, time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self._since, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def timed(self, loader: Any) -> Iterator[Batch]:
        """The batches of a loader; the time spent waiting for them is added up."""
        iterator = iter(loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - start
            yield batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not training and does not count for the rate."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def lap(self) -> None:
        """Count an iteration."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """The figures since they were last read, for log.jsonl."""
        elapsed = time.perf_counter() - self._since
        rate = (self._steps + 1) * self._images / elapsed
        values = {"images_per_s": rate, "data_wait": self._waited / elapsed, "time_s": time.perf_counter() - self.began}
        self._reset()
        self._steps = -1  # the iteration that reads counts for the record it writes
        return values
