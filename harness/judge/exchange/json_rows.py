"""Rows of a JSON file that somebody else wrote: a list, or one object a line; also with `.gz`."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError


def shown(text: str) -> str:
    """A name out of a foreign file for an error: what a terminal would obey is written out."""
    return text if text.isprintable() else repr(text)[1:-1]


@dataclass(frozen=True)
class Row:
    """One object, and where it stands for people."""

    values: Mapping[str, Any]
    place: str

    def text(self, key: str) -> str:
        """The text under a key; it may be empty.

        Raises:
            DataError: there is none; names the place and what is there instead.
        """
        value = self.values.get(key)
        if isinstance(value, str):
            return value
        if key not in self.values:
            known = ", ".join(map(shown, self.values)) or "nothing"
            raise DataError(f"{self.place}: no '{key}'; it has: {known}")
        raise DataError(f"{self.place}: '{key}' is {value!r:.40}, not a text")


def read_rows(path: Path) -> list[Row]:
    """All rows of a file.

    Raises:
        DataError: it cannot be read, is no JSON, or holds something that is no object; names the
            file and the line.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({why}); give a .json or .jsonl file") from error
    found = _list(path, text) if text.lstrip().startswith("[") else _lines(path, text)
    rows = []
    for value, place in found:
        if not isinstance(value, dict):
            raise DataError(f"{place}: {value!r:.40} is not a JSON object")
        rows.append(Row(value, place))
    if not rows:
        raise DataError(f"{path}: holds no rows")
    return rows


def _list(path: Path, text: str) -> list[tuple[Any, str]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    return [(value, f"{path}, row {i}") for i, value in enumerate(values, start=1)]


def _lines(path: Path, text: str) -> list[tuple[Any, str]]:
    found = []
    # At line feeds only: `splitlines` also cuts at separators that a JSON text may hold as they
    # are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append((json.loads(line), f"{path}, line {number}"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
    return found
