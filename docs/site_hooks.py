"""What the site shows otherwise than the repository: files outside docs/ are named, not linked."""

import re

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?:\.\./)?(?:configs|hrseg|tests|tools|README|LICENSE)[^)]*\)")


def on_page_markdown(markdown, **_):
    return OUTSIDE.sub(r"`\1`", markdown)
