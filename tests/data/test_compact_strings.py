"""Names and paths in two blocks of memory: what went in comes out."""

from pathlib import Path

import pytest

from hrseg.data.compact_strings import compact_names, compact_paths, plain_strings

NAMES = ["a", "", "b/ü", "bad\udcff byte", "c"]  # the fourth is no UTF-8, as a file's name may be


@pytest.mark.parametrize("values", [[], [""], NAMES, NAMES * 2000])
def test_packed_is_the_sequence_that_it_was_made_of(values):
    held = compact_names(values)
    assert len(held) == len(values) and list(held) == values and list(held.strings()) == values
    assert [held[i] for i in range(-len(values), len(values))] == values * 2 and held[1:3] == values[1:3]
    with pytest.raises(IndexError):
        held[len(values)]


def test_packed_paths_are_paths():
    held = compact_paths([Path("x/a.png"), "y/b.png"])
    assert list(held) == [Path("x/a.png"), Path("y/b.png")] and list(plain_strings(held)) == ["x/a.png", "y/b.png"]
