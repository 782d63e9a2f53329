"""Foreign text made safe to show: names, reasons and notes stay text wherever they are printed."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 300
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKDOWN = re.compile(r"([\\`*\[\]|~#!$])|(?<![^\W_])(_)|(_)(?![^\W_])")
_BLOCK = re.compile(r"^(\d*)([-+=.)])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def visible(text: str) -> str:
    """The text on one line, with every control, format and bidi character written out.

    A terminal obeys escape sequences and a browser obeys direction marks: neither is markup, so
    escaping of markup alone would let a name redraw the table around it.
    """
    return "".join(map(_written_out, text))


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text with its white space collapsed, cut where it is longer than a reader needs."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def markdown(text: str) -> str:
    """The text as GitHub's Markdown shows it unchanged, at the start of a line or in a table."""
    escaped = re.sub("[&<>]", lambda found: _ENTITIES[found[0]], visible(text))
    escaped = _MARKDOWN.sub(lambda found: "\\" + found[0], escaped)
    # A bare address becomes a link without any markup.
    return _BLOCK.sub(r"\1\\\2", escaped).replace("://", "&#58;//").replace("www.", "www&#46;")


def file_name(text: str) -> str:
    """A name that is one harmless path component on every system."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "task"


def _written_out(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
