"""What an answer looks like: its length and its markdown, counted as Arena-Hard counts them.

Source: Li et al. 2024, arXiv:2406.11939, and the style control of Arena-Hard's version 2: headers
of one to six signs, ordered and unordered list items, bold spans, none of them inside a block of
code. Arena-Hard measures length in the tokens of one vendor's tokenizer; here it is in words.
"""

from __future__ import annotations

import re

CODE = re.compile(r"```[^`]*```")
HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
# Blanks before an item, but not line ends: to let them match costs the square of their number.
ITEM = re.compile(r"^[^\S\n]*(?:\d+\.|[-*+])\s", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


def style(text: str) -> dict[str, int]:
    """Counts of an answer: `characters`, `words`, `headers`, `lists` (items) and `bold` (spans)."""
    prose = CODE.sub("``````", text)
    return {
        "characters": len(text),
        "words": len(text.split()),
        "headers": len(HEADER.findall(prose)),
        "lists": len(ITEM.findall(prose)),
        "bold": len(BOLD.findall(prose)),
    }
