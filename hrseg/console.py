"""What all commands share: the exit code, the reading of `key=value`, how numbers of things are told."""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from hrseg.errors import HrsegError

LESS_MEMORY = "Use smaller images (augment.crop, eval.window), a smaller batch_size, a larger train.accumulate."


def command(main: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str] | None], int]:
    """A command's main: 0 when done; 2 for bad input, with one message; a bug keeps its traceback.

    A broken pipe (`| head`) and Ctrl-C end it quietly.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
        for noisy in ("httpx", "urllib3", "huggingface_hub"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        # Each retry without a network is two lines; the error that ends them is told.
        logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
        try:
            return main(sys.argv[1:] if argv is None else argv)
        except HrsegError as error:
            rank = os.environ.get("RANK")
            print(f"error: {error}" if rank is None else f"error: process {rank}: {error}", file=sys.stderr)
            return 2
        except SystemExit as error:  # argparse: --help or a wrong option
            return error.code if isinstance(error.code, int) else 2
        except BrokenPipeError:
            sys.stderr.close()
            return 0
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            if not _out_of_memory(error):
                raise
            print(f"error: memory: {_first_line(error)} {LESS_MEMORY}", file=sys.stderr)
            return 2

    return wrapped


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Around the import of torch and all that is built on it: the garbage collector takes a tenth of it for nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _out_of_memory(error: Exception) -> bool:
    """Python's and numpy's MemoryError, torch's on CUDA and on the CPU, OpenCV's."""
    texts = ("can't allocate memory", "Insufficient memory", "Failed to allocate")
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or any(text in str(error) for text in texts)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "there is none left.").splitlines()[0]


def parser(description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser whose help ends with calls that work."""
    return argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def counted(number: int, noun: str) -> str:
    """'1 image', '2 images'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Positional words apart from `key=value` words."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]
