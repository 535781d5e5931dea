"""What the site shows otherwise than the repository."""

import re

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?:\.\./)?(?:configs|hrseg|tests|tools|README|LICENSE|CONTRIBUTING)[^)]*\)")


def on_page_markdown(markdown, **_):
    """Files outside docs/ are named, not linked; what belongs to a numbered item is indented for Python-Markdown."""
    lines, in_item = [], False
    for line in OUTSIDE.sub(r"`\1`", markdown).splitlines():
        in_item = bool(re.match(r"\d+\. ", line)) or (in_item and (not line or line.startswith("   ")))
        lines.append(" " + line if in_item and line.startswith("   ") else line)
    return "\n".join(lines)
