"""Real preference pairs of one turn, in the field's formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.api import DataError, Rows, keep_texts, load_rows

SHOWN = 80
"""Characters of an instruction that an error shows."""


class Source(NamedTuple):
    """A folder, file or hub id, and the split of it."""

    place: str
    split: str


class Preference(NamedTuple):
    """A prompt and two answers, as people or a stronger model labelled them."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Preferences:
    """The pairs that can be used, one for each prompt, and what became of the others."""

    pairs: Sequence[Preference]
    facts: Mapping[str, Any]


def read_preferences(source: Source, held_out: Sequence[str] = ()) -> Preferences:
    """Pairs of one turn with two different answers, the first of each prompt.

    Columns are `prompt`, `chosen` and `rejected`. An answer is a text, or a list of messages that
    ends with the assistant's and has at most the user's prompt before it.

    Args:
        source: of the pairs.
        held_out: prompts that must not be among them.

    Raises:
        DataError: a column is missing, holds something else, or no pair is left.
    """
    rows = load_rows(source.place, source.split, columns=["prompt", "chosen", "rejected"])
    prompts = rows.texts("prompt", empty=True)
    found: list[tuple[int, Preference]] = []
    dropped = Counter({"several turns": 0, "without two different answers": 0})
    for i, prompt in enumerate(prompts):
        answers = [_answer(rows, i, side, prompt) for side in ("chosen", "rejected")]
        chosen, rejected = answers
        if chosen is None or rejected is None:
            dropped["several turns"] += 1
        elif not chosen.strip() or not rejected.strip() or chosen == rejected:
            dropped["without two different answers"] += 1
        else:
            found.append((i, Preference(prompt, chosen, rejected)))
    kept = keep_texts(
        [pair.prompt for _, pair in found], lambda i: rows.place(found[i][0]), held_out=held_out
    )
    facts = {**kept.facts, "dropped": {**dropped, **kept.dropped}, "revision": rows.revision}
    return Preferences([found[i][1] for i in kept.rows], facts)


def _answer(rows: Rows, i: int, side: str, prompt: str) -> str | None:
    """The text of an answer; None where it belongs to a longer conversation."""
    value = rows.columns[side][i]
    if value is None or isinstance(value, str):
        return value or ""
    try:
        *before, last = [(message["role"], message["content"]) for message in value]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{rows.source}: {rows.place(i)}: '{side}' is neither a text nor a list of messages "
            f"with role and content: {value!r:.{SHOWN}}"
        ) from error
    if before not in ([], [("user", prompt)]) or last[0] != "assistant":
        return None
    return str(last[1] or "")
