"""What all commands share: exit codes, parsers, the reading of `key=value`, progress bars, counts in words."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from hrseg.errors import ConfigError, HrsegError, first_line

LESS_MEMORY = (
    "Use smaller images (augment.crop, eval.window), a smaller batch_size, a larger train.accumulate; in predicting, a "
    "smaller --batch or --tile."
)

SETTING = re.compile(r"[A-Za-z_][\w.]*=")


def command(main: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str] | None], int]:
    """A command's main: 0 when done; 2 for bad input, with one message; a bug keeps its traceback.

    A broken pipe (`| head`) and Ctrl-C end it quietly.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        _escape_what_cannot_be_shown()
        logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
        for noisy in ("httpx", "urllib3", "huggingface_hub"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        # Each retry without a network is two lines; the error that ends them is reported.
        logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
        words = sys.argv[1:] if argv is None else argv
        _called.set((f"tools/{main.__module__.rpartition('.')[2]}.py", tuple(words)))
        try:
            return main([expand_home(word) for word in words])
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
            print("\nstopped by Ctrl-C", file=sys.stderr)
            return 130
        except Exception as error:
            if not _out_of_memory(error):
                raise
            print(f"error: memory: {first_line(error)}. {LESS_MEMORY}", file=sys.stderr)
            return 2

    return wrapped


def _escape_what_cannot_be_shown() -> None:
    """Let a console or pipe that lacks a letter (cp1252, gbk, ASCII) show its escape, such as `\\u6b69`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def expand_home(word: str) -> str:
    """A word of the command line in which a leading ~ has become the home folder, as in ~/photos and --out=~/results.

    A shell does that, but not within quotes or after an equals sign. Settings, key=value, see to it themselves.
    """
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if value != "~" and not value.startswith("~/"):
        return word
    try:
        return f"{option}{equals}{Path(value).expanduser()}"
    except RuntimeError as error:
        raise HrsegError(word, f"{first_line(error)}.", "Write the whole path.") from None


def _out_of_memory(error: Exception) -> bool:
    """Python's and numpy's MemoryError, torch's on CUDA (and its libraries') and on the CPU, OpenCV's."""
    texts = ("can't allocate memory", "Insufficient memory", "Failed to allocate", "CUDA error: out of memory",
             "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")  # fmt: skip
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or any(text in str(error) for text in texts)
    )


_program: ContextVar[str | None] = ContextVar("program", default=None)
_called: ContextVar[tuple[str, tuple[str, ...]]] = ContextVar("called", default=("hrseg", ()))


@contextlib.contextmanager
def called_as(program: str) -> Iterator[None]:
    """Within the block, help names this program (`hrseg train`) instead of the script (`tools/train.py`)."""
    before = _program.set(program)
    try:
        yield
    finally:
        _program.reset(before)


def resume_command() -> str:
    """The command that is running, with --resume, to be typed again."""
    script, words = _called.get()
    kept, skip = [], False
    for word in words:
        if (skip and word == "auto") or (word.startswith("--resume") and word != "--resume"):
            skip = False
            continue
        skip = word == "--resume"
        if not skip:
            kept.append(word)
    program = _program.get() or script
    if "TORCHELASTIC_RUN_ID" in os.environ:
        program = f"torchrun ... {program}"
    return f"{program} {shlex.join(kept)} --resume"


class _Parser(argparse.ArgumentParser):
    """argparse's parser; with intermixed words it says of optional ones that they are required."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required:"):
            message = message.replace(", key=value", "")
        super().error(message)


def parser(description: str, epilog: str, *, program: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help ends with calls that work.

    The texts show calls of scripts in a clone, `tools/NAME.py configs/NAME.yaml`. Where the command was called as
    `hrseg NAME`, they become calls of that. program: the name in the usage line; None: as it was called.
    """
    program = program or _program.get()
    if program:
        description, epilog = _as_installed(description), _as_installed(epilog)
    return _Parser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _as_installed(text: str) -> str:
    text = re.sub(r"(torchrun .*?)tools/(\w+)\.py", r"\1-m hrseg \2", text)
    text = re.sub(r"tools/(\w+)\.py", r"hrseg \1", text)
    return re.sub(r"\bconfigs/(\w+\.yaml)", r"\1", text)


def counted(number: int, noun: str) -> str:
    """'1 image', '2 images'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def image_size(text: str) -> tuple[int, int]:
    """(height, width) from text such as 512x1024, for argparse."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"'{text}' is not height x width, such as 512x1024")
    return int(height), int(width)


def fraction(text: str) -> float:
    """A number between 0 and 1 from text, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def progress(
    total: int | None, what: str, unit: str, *, shown: bool = True, start: int = 0, leave: bool = False
) -> tqdm:
    """A progress bar with rate and time left; in a log file, one line every ten seconds.

    total: None where it is not known. shown: False draws nothing. start: what was done before. leave: the bar stays
    when it is complete.
    """
    often = 0.2 if sys.stderr.isatty() else 10
    return tqdm(
        total=total, initial=start, desc=what, unit=unit, leave=leave, dynamic_ncols=True, mininterval=often,
        disable=not shown,
    )  # fmt: skip


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Positional words apart from `key=value` words. A path may have an equals sign in it: runs/lr=0.1/config.yaml."""
    settings = [word for word in words if SETTING.match(word)]
    return [word for word in words if word not in settings], settings


def require_effect(settings: Sequence[str], obeyed: Sequence[str], command: str) -> None:
    """Raise ConfigError for a typed setting, key=value, that a command would ignore.

    obeyed: the sections and single settings that it reads. What stands in a file is for all commands and not meant.
    """
    for word in settings:
        key = word.partition("=")[0]
        if not any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in obeyed):
            what = f"has no effect on {command}, which reads {', '.join(obeyed)}."
            raise ConfigError(key, what, "Leave it out.")
