"""python -m hrseg.config [PAGE]: print the tables of all settings, or renew those between the markers of a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hrseg.config.settings_page import renewed, sections, table
from hrseg.console import command, parser
from hrseg.files import write_text


@command
def main(argv: Sequence[str]) -> int:
    arguments = parser(
        "Print the settings as tables in Markdown, or renew the tables of a page.",
        "examples:\n  python -m hrseg.config\n  python -m hrseg.config docs/configuration.md",
    )
    arguments.add_argument("page", nargs="?", type=Path, metavar="PAGE", help="renew the tables between its markers")
    args = arguments.parse_args(argv)
    if args.page:
        write_text(args.page, renewed(args.page.read_text(encoding="utf-8")))
    else:
        print("\n".join(f"## `{name}`\n\n{table(section)}" for name, section in sections()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
