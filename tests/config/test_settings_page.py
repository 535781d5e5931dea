"""The settings page shows the schema: what stands on it is what is printed."""

from __future__ import annotations

import pytest
import yaml

from hrseg.config import settings_page
from hrseg.config.__main__ import main
from hrseg.errors import HrsegError
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "configuration.md"
SECTIONS = dict(settings_page.sections())


def test_the_tables_on_the_page_are_those_that_are_printed():
    page = PAGE.read_text(encoding="utf-8")
    assert settings_page.renewed(page) == page, "run python -m hrseg.config docs/configuration.md"


@pytest.mark.parametrize(
    ("name", "section"), list(settings_page.sections()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_setting_is_under_its_heading_with_type_default_and_meaning(name, section):
    under = PAGE.read_text(encoding="utf-8").split(f"# `{name}`\n", 1)[1].split("\n#", 1)[0]
    table = settings_page.table(section)
    assert table in under
    rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"`{key}`" for key in section.model_fields]
    for key, (_, kind, default, meaning) in zip(section.model_fields, rows, strict=True):
        field = section.model_fields[key]
        assert kind and meaning.endswith("."), key
        value = "required" if field.is_required() else field.get_default(call_default_factory=True)
        plain = str(value) if hasattr(value, "parts") else value
        assert yaml.safe_load(default.strip("`")) == plain, key


def test_choices_and_bounds_are_part_of_the_type():
    table = settings_page.table(SECTIONS["optim"])
    assert "| `schedule` | poly, cosine, constant | `poly` |" in table
    assert "| `momentum` | number from 0, below 1 | `0.9` |" in table


def test_a_page_without_a_section_is_refused():
    page = PAGE.read_text(encoding="utf-8").replace("<!-- settings of track, ", "<!-- ")
    with pytest.raises(HrsegError, match="markers for each section: track"):
        settings_page.renewed(page)


def test_the_command_prints_every_section_and_renews_a_page(tmp_path, capsys):
    assert main([]) == 0
    assert "## `augment.jitter`" in capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("| `hrnetv2_w18` |", "| `other` |"), encoding="utf-8")
    assert main([str(page)]) == 0
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
