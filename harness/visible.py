"""Foreign text on a terminal and on a page: what would be obeyed is written out."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    """The text on one line, with every control, format and bidi character written out.

    A terminal obeys escape sequences and a browser obeys direction marks: neither is markup, so
    escaping of markup alone would let a name redraw the table around it.
    """
    return "".join(map(_written_out, text))


def visible_lines(text: str) -> str:
    """The same line by line: ends of lines stay."""
    return "\n".join(map(visible, text.split("\n")))


def _written_out(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
