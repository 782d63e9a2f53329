"""Foreign text made safe to show: names, reasons and notes stay text wherever they are printed."""

from __future__ import annotations

import re

from harness.visible import visible

LONGEST = 300
_MARKDOWN = re.compile(
    r"""[\\`*|~$]          # code, emphasis, cells of a table, mathematics
    | (?<![^\W_])_ | _(?![^\W_])   # emphasis at the edge of a word
    | <(?=[A-Za-z/!?])    # a tag; "<0.001" is none
    | &(?=[#\w]+;)        # an entity
    | \](?=[(\[:])         # a link, or the address that one refers to
    | :(?=//) | (?<=www)\.  # an address, which becomes a link without any markup
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BLOCK = re.compile(r"[-+=>#\[]|\d+(?=[.)])")


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text with its white space collapsed, cut where it is longer than a reader needs."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def markdown(text: str) -> str:
    """The text within a line of GitHub's Markdown, shown as it is."""
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", visible(text))


def markdown_line(text: str) -> str:
    """The text as a line of its own: not a heading, an item of a list or a check box."""
    start = _BLOCK.match(text)
    return markdown(text) if start is None else f"&#{ord(text[0])};{markdown(text[1:])}"


def file_name(text: str) -> str:
    """A name that is one harmless path component on every system."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "task"
