"""The fast form on a GPU: all kernels of one image size are recorded once and launched together, as a CUDA graph.

An HRNet is hundreds of small kernels, and to launch them one after the other takes longer than to compute them. A graph
is recorded in the time of a few answers and needs no compiler; torch.compile takes minutes for each network.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 3  # answers before the recording: cuDNN picks its kernels and cuBLAS its workspace, both forbidden in one


@contextlib.contextmanager
def kernels_timed(wanted: bool) -> Iterator[None]:
    """Whether cuDNN times its kernels for each new image size, inside; it takes seconds, for a size that repeats."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Recorder:
    """Records what a module on a GPU does with images of one shape.

    Its recordings share memory, so one answers at a time, in stream order; each answer is a copy of its own.
    """

    def __init__(self, module: nn.Module):
        self._module, self._one_at_a_time = module, threading.Lock()
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None  # always the same, or memory would not be shared

    @torch.inference_mode()
    def record(self, image: Tensor) -> Callable[[Tensor], Any]:
        """The module as a function of images of this one's shape, type and device.

        Raises RuntimeError where the module does what cannot be recorded, torch.OutOfMemoryError.
        """
        timed = kernels_timed(not torch.are_deterministic_algorithms_enabled())
        with self._one_at_a_time, torch.cuda.device(image.device), torch.autocast("cuda", enabled=False), timed:
            if self._stream is None:
                self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
            given = image.clone(memory_format=torch.channels_last)
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP):
                    self._module(given)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may allocate meanwhile, such as the one that pins batches.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                answer = self._module(given)

        @torch.inference_mode()
        def replay(x: Tensor) -> Any:
            with self._one_at_a_time, torch.cuda.device(given.device):
                given.copy_(x)
                graph.replay()
                return tuple(part.clone() for part in answer) if isinstance(answer, tuple) else answer.clone()

        return replay
