"""Pairs of answers that people compared, read from the forms in which such data are published."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from harness.data.files import SUFFIXES
from harness.errors import DataError
from harness.judge.exchange.json_rows import Row, read_rows, shown

Choice = Literal["first", "second", "tie"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two answers to one prompt and what each of some people preferred.

    Attributes:
        subset: of the data set; empty where it has none.
    """

    prompt: str
    first: str
    second: str
    labels: tuple[Choice, ...]
    subset: str = ""


def majority(labels: Sequence[Choice]) -> Choice | None:
    """What more people said than anything else; None where two choices have as many."""
    (top, most), *others = Counter(labels).most_common()
    return None if others and others[0][1] == most else top


def read_people(source: Path) -> list[Compared]:
    """All pairs of a file, or of the only data file of a folder.

    The columns tell the form: instruction, input, response1, response2, annotator1...; input,
    output_1, output_2, label; instruction, output_1, output_2, preference; question (or prompt),
    chosen, rejected. The last one has no order of its own: which answer comes first is drawn by
    the texts, since a rater who always named the first one would otherwise seem to be right.

    Raises:
        DataError: the file cannot be read, has other columns, or a label means nothing.
    """
    path = _only_file(source)
    rows = read_rows(path)
    columns = set(rows[0].values)
    for needed, read in _FORMS.items():
        if needed <= columns:
            return [read(row) for row in rows]
    forms = "; ".join(", ".join(sorted(needed)) for needed in _FORMS)
    found = ", ".join(map(shown, sorted(columns)))
    raise DataError(f"{path}: has {found}; comparisons need one of: {forms}")


def _only_file(source: Path) -> Path:
    if not source.exists():
        raise DataError(f"{source}: no such file or folder of comparisons")
    if not source.is_dir():
        return source
    found = sorted(p for p in source.iterdir() if p.name.endswith(SUFFIXES[:4]))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "no .jsonl or .json file"
        raise DataError(f"{source}: holds {names}; name the file that is meant")
    return found[0]


_NUMBERS: Mapping[str, Choice] = MappingProxyType(
    {"0": "tie", "1": "first", "1.5": "tie", "2": "second"}
)


def _choice(row: Row, key: str) -> Choice:
    """0 and 1.5 are ties, as the published forms have it; 1 and 2 name the better answer."""
    value = row.values.get(key)
    number = f"{value:g}" if type(value) in (int, float) else ""
    if number not in _NUMBERS:
        raise DataError(f"{row.place}: '{key}' is {value!r:.40}, not 0 (tie), 1 or 2")
    return _NUMBERS[number]


def _several(row: Row) -> Compared:
    raters = sorted(key for key in row.values if re.fullmatch(r"annotator\d+", key))
    more = row.text("input")
    prompt = row.text("instruction") + (f"\n\n{more}" if more.strip() else "")
    return Compared(
        prompt, row.text("response1"), row.text("response2"),
        tuple(_choice(row, key) for key in raters), _subset(row),
    )  # fmt: skip


def _labelled(prompt: str, label: str) -> Callable[[Row], Compared]:
    def read(row: Row) -> Compared:
        return Compared(
            row.text(prompt), row.text("output_1"), row.text("output_2"), (_choice(row, label),),
            _subset(row),
        )  # fmt: skip

    return read


def _preferred(prompt: str) -> Callable[[Row], Compared]:
    def read(row: Row) -> Compared:
        texts = row.text(prompt), row.text("chosen"), row.text("rejected")
        drawn = hashlib.sha256("\0".join(sorted(texts[1:])).encode()).digest()[0] % 2 == 0
        chosen_first = drawn == (texts[1] < texts[2])
        first, second = texts[1:] if chosen_first else texts[:0:-1]
        label: Choice = "first" if chosen_first else "second"
        return Compared(texts[0], first, second, (label,), _subset(row))

    return read


def _subset(row: Row) -> str:
    return str(row.values.get("subset") or "")


_FORMS: Mapping[frozenset[str], Callable[[Row], Compared]] = MappingProxyType(
    {
        frozenset(("instruction", "input", "response1", "response2", "annotator1")): _several,
        frozenset(("input", "output_1", "output_2", "label")): _labelled("input", "label"),
        frozenset(("instruction", "output_1", "output_2", "preference")): _labelled(
            "instruction", "preference"
        ),
        frozenset(("question", "chosen", "rejected")): _preferred("question"),
        frozenset(("prompt", "chosen", "rejected")): _preferred("prompt"),
    }
)
