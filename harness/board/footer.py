"""What stands under a board: how the tests were made, what they could see, what was spent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.board.contents import Board, TaskBoard
from harness.board.numbers import fixed, places

_HEADLINES = ("pairs", "epochs", "pairs_per_step", "learning_rate", "test_prompts", "samples")

_ERRORS = 2.8  # standard errors in a minimum detectable effect


def facts(task: TaskBoard) -> tuple[str, ...]:
    """Sentences under the tables of a task."""
    return (*task.notes, *filter(None, (_detectable(task), _families(task))))


def methodology(board: Board) -> tuple[str, ...]:
    """Sentences that hold for all tasks."""
    several = any(len(task.seeds) > 1 for task in board.tasks)
    ordered = any(not task.no_order for task in board.tasks)
    found = (
        "Intervals are 95 %, those of differences paired by prompt and seed.",
        "Test: two-way variance components (prompts crossed with seeds), t with calibrated degrees "
        "of freedom, the variance between runs drawn towards that of all rows (docs/statistics.md)."
        if several else "",
        f"p Holm is adjusted within a task, over the differences to {board.reference_method}. Ties "
        "and ranks rest on the differences of all pairs, Benjamini-Hochberg, adjusted p < 0.05: "
        "rows that share a letter cannot be told apart." if ordered else "",
        "Costs are those of one run; FLOPs are billed as if each method had paid alone for "
        "everything that it reads.",
    )  # fmt: skip
    return tuple(filter(None, found))


def closing(board: Board) -> tuple[str, ...]:
    """What a reader at a terminal must see last: how to read it, the notes, the budget in short."""
    known = {key: board.budget[key] for key in _HEADLINES if key in board.budget}
    budget = f"Budget: {settings(known or board.budget)}."
    return (*methodology(board), *(f"Note: {note}" for note in board.notes), budget)


def settings(values: Mapping[str, Any]) -> str:
    """Nested settings on one line, sorted by name."""
    return ", ".join(f"{key} {value}" for key, value in sorted(_flat(values)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _detectable(task: TaskBoard) -> str:
    if task.mde is None:
        return ""
    size = fixed(task.mde, places([task.mde / _ERRORS]))
    largest = f"the largest of {len(task.pairs)} pairs, " if len(task.pairs) > 1 else ""
    runs = f"{len(task.seeds)} seeds" if len(task.seeds) > 1 else "one seed (about these runs only)"
    return (
        f"Minimum detectable effect at 80 % power with {runs} and {task.prompts} prompts: {size} "
        f"{task.primary.unit or task.primary.name} ({largest}before correction)."
    )


def _families(task: TaskBoard) -> str:
    tested = sum(row.gap is not None and row.gap.p_holm is not None for row in task.rows)
    against = f"Holm over {tested} differences to {task.reference}" if tested else ""
    pairs = f"Benjamini-Hochberg over {len(task.pairs)} pairs" if not task.no_order else ""
    found = "; ".join(filter(None, (against, pairs)))
    return f"Corrections: {found}." if found else ""
