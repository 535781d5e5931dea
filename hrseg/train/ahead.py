"""While a command imports torch, smp and timm, another process lists the data sets and looks at their files."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from hrseg import build
from hrseg.config import Config, is_dotted_path
from hrseg.data import checks
from hrseg.errors import HrsegError

PR_SET_PDEATHSIG = 1  # of prctl(2)


class Ahead:
    """The training and validation sets of a run, by split, and what is wrong with them.

    They come from a process of its own, begun here. check: look at the files too.
    """

    def __init__(self, config: Config, *, check: bool):
        self._config = config
        context = multiprocessing.get_context("fork")  # nothing is imported again
        self._answers, sender = context.Pipe(duplex=False)
        context.Process(target=_look, args=(config, check, self._answers, sender, os.getpid()), daemon=True).start()
        sender.close()

    def data_sets(self) -> dict[str, Any]:
        """To be asked for once, and first. Raises what making them raised."""
        return self._next(lambda: build.data_sets(self._config))

    def problems(self, sets: dict[str, Any]) -> list[str]:
        """What `checks.find_problems` finds in the data sets. To be asked for once."""
        return self._next(lambda: checks.find_problems(sets, workers=self._config.data.workers))

    def _next(self, here: Callable[[], Any]) -> Any:
        try:
            answer = self._answers.recv()
        except (EOFError, OSError):  # it was killed, or met a fault in hrseg, which shows itself here again
            return here()
        if isinstance(answer, Exception):
            raise answer
        return answer


def start(config: Config, *, check: bool) -> Ahead | None:
    """Before torch is imported. None where a fork may not be safe or fails, and for a data set from outside hrseg."""
    if sys.platform != "linux" or is_dotted_path(config.data.dataset):
        return None
    try:
        return Ahead(config, check=check)
    except OSError:  # no more processes, or no memory for one: the run looks itself
        return None


def _send(sender: Connection, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        sender.send_bytes(content)


def _look(config: Config, check: bool, answers: Connection, sender: Connection, run: int) -> None:
    answers.close()  # else this process would wait for itself to take out what it sends, when the run has ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the run, which ends this process
    ctypes.CDLL(None).prctl(
        PR_SET_PDEATHSIG, signal.SIGKILL
    )  # however the thread that began this ends, the run's first
    if os.getppid() != run:
        return
    # tqdm's lock is one for all processes that were forked after the first bar: if this one were killed while it holds
    # it, every later bar of the run would wait for ever.
    tqdm.set_lock(threading.RLock())
    with contextlib.suppress(BrokenPipeError):  # the run has ended
        try:
            sets = build.data_sets(config)
        except (HrsegError, MemoryError) as error:
            sender.send(error)
            return
        # More than a pipe holds: it is taken out when the imports are done, and the files are not to wait for that.
        told = threading.Thread(target=_send, args=(sender, pickle.dumps(sets)), daemon=True)
        told.start()
        problems: list[str] | Exception
        try:
            problems = checks.find_problems(sets, workers=config.data.workers) if check else []
        except (HrsegError, MemoryError) as error:
            problems = error
        finally:
            told.join()
        sender.send(problems)
