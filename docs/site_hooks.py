"""What the site shows otherwise than the repository."""

import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parent
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+((?:configs|hrseg|tests|tools|README|LICENSE|CONTRIBUTING)[^)]*)\)")
FILE_NAME = re.compile(r"\[([\w/]+\.md)\]\(([^)#]+)(#[^)]*)?\)")


def on_config(config, **_):
    """The repository is linked where the clone knows its public address."""
    asked = subprocess.run(
        ["git", "remote", "get-url", "origin"], cwd=DOCS, capture_output=True, text=True, check=False
    )
    address = asked.stdout.strip().removesuffix(".git")
    if not config.repo_url and address.startswith("https://"):
        config.repo_url, config.repo_name, config.edit_uri = address, "repository", ""
    return config


def on_page_markdown(markdown, page, config, **_):
    """Links carry titles; files outside docs/ are linked in the repository, or named where it has no address.

    What belongs to a numbered item is indented for Python-Markdown.
    """
    here = (DOCS / page.file.src_uri).parent
    lines, in_item = [], False

    def titled(link):
        target = (here / link[2]).resolve()
        return f"[{title_of(target)}]({link[2]}{link[3] or ''})" if target.is_file() else link[0]

    def outside(link):
        return f"[{link[1]}]({config.repo_url}/blob/HEAD/{link[2]})" if config.repo_url else f"`{link[1]}`"

    for line in FILE_NAME.sub(titled, OUTSIDE.sub(outside, markdown)).splitlines():
        in_item = bool(re.match(r"\d+\. ", line)) or (in_item and (not line or line.startswith("   ")))
        lines.append(" " + line if in_item and line.startswith("   ") else line)
    return "\n".join(lines)


def title_of(path):
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found[1] if found else path.stem
