"""Columns on a terminal, for what is listed and shown."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable


def print_table(rows: Iterable[tuple[str, str, str]]) -> None:
    """Print name, text and remark of each row, wrapped to the terminal."""
    rows = list(rows)
    first = max((len(row[0]) for row in rows), default=0)
    width = shutil.get_terminal_size((100, 24)).columns
    for name, text, more in rows:
        line = f"  {name:<{first}}  {text}" + (f"  [{more}]" if more else "")
        print(
            "\n".join(
                textwrap.wrap(
                    line, width, subsequent_indent=" " * (first + 4), drop_whitespace=True
                )
            )
            or line
        )
