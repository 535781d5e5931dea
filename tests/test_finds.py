"""Files that once made a reader fail, found by tests/fuzz.py; and a few fresh mutations of each kind."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
import tifffile
import torch

from tests import fuzz


def legacy() -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.arange(4.0)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((9, 7), np.uint8))
    return file.getvalue()


def in_a_circle() -> bytes:
    """A TIFF whose first page names itself as the next."""
    content = bytearray(tiff())
    (first,) = struct.unpack_from("<I", content, 4)
    (tags,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * tags, first)
    return bytes(content)


def with_tags(count: int) -> bytes:
    content = bytearray(tiff())
    (first,) = struct.unpack_from("<I", content, 4)
    struct.pack_into("<H", content, first, count)
    return bytes(content) + bytes(2**20)


def storage_elsewhere() -> bytes:
    """The list of storages at the end of a file of older torch names another than its tensor does."""
    content = legacy()
    place = content.rindex(b"X", 0, len(content) - 24)
    return content[: place + 5] + bytes([content[place + 5] ^ 1]) + content[place + 6 :]


FINDS = [
    ("settings", b"? [a, b]\n: c"),  # a list as key
    ("settings", b"a: 1\n? {b: c}\n: 2"),
    ("checkpoint", b"\x80\x04\x95" + b"\xff" * 8 + b"."),  # a frame of 2^64 bytes
    ("checkpoint", b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b"."),  # a number of 255 bytes
    ("checkpoint", b"\x80\x02]r\xff\xff\xff\x7f" + b"0."),  # a list to be remembered under the number 2^31 - 1
    ("checkpoint", b"\x80\x05\x96" + b"\0" * 4 + b"\1" + b"\0" * 3 + b"."),  # a bytearray of 4 GiB
    ("checkpoint", legacy()[:40] + b"0" * 5 + legacy()[40:]),  # the stack is popped when it is empty
    ("checkpoint", storage_elsewhere()),
    ("picture", in_a_circle()),
    ("picture", with_tags(2**16 - 1)),
]


@pytest.mark.parametrize(("kind", "data"), FINDS, ids=[f"{kind} {i}" for i, (kind, _) in enumerate(FINDS)])
def test_what_was_found_is_answered_with_a_sentence(kind, data, tmp_path):
    assert fuzz.outcome(kind, data, tmp_path) == ""


@pytest.mark.parametrize("kind", fuzz.READERS)
def test_mutated_files_are_read_or_refused(kind, tmp_path):
    for number, data in itertools.islice(fuzz.files(kind, seed=1), 200):
        assert fuzz.outcome(kind, data, tmp_path) == "", number


@pytest.mark.long
@pytest.mark.parametrize("kind", fuzz.READERS)
def test_many_mutated_files_are_read_or_refused(kind, tmp_path):
    for number, data in itertools.islice(fuzz.files(kind, seed=2), 10_000):
        assert fuzz.outcome(kind, data, tmp_path) == "", number
