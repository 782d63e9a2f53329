"""The two tables of a task as columns of text: what ranks, and what else there is to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.board.contents import Cost, Row, TaskBoard, tested
from harness.board.numbers import NONE, fixed, flops, p_value, places, quantity, signed
from harness.stats.difference import Estimate
from harness.stats.strength import Strength

_COSTS: tuple[tuple[str, Callable[[Cost], str]], ...] = (
    ("pairs", lambda cost: quantity(cost.pairs)),
    ("steps", lambda cost: quantity(cost.steps)),
    ("tokens", lambda cost: quantity(cost.tokens)),
    ("FLOPs", lambda cost: flops(cost.flops)),
)
_COUNTS = ("seeds", "prompts", *(title for title, _ in _COSTS))


@dataclass(frozen=True)
class Column:
    """A title, one cell per row, and whether the cells are numbers."""

    title: str
    cells: tuple[str, ...]
    number: bool = True


def ranking(task: TaskBoard) -> tuple[Column, ...]:
    """Rank, row, primary metric and the difference to the reference method."""
    rows = task.rows
    columns = [
        Column("rank", tuple(map(rank, rows))),
        Column("method", tuple(map(named, rows)), number=False),
        Column(f"{task.primary.name} ±95 %", plus_minus(rows, 0)),
    ]
    if not task.no_order:
        columns.append(Column("ties", tuple(r.ties for r in rows), number=False))
    if task.reference:
        columns.append(Column(f"minus {task.reference} [95 %]", gaps(task), number=False))
    if any(r.gap and r.gap.p_holm is not None for r in rows):
        columns += [
            Column("p", tuple(p_value(tested(r.gap.estimate) if r.gap else None) for r in rows)),
            Column("p Holm", tuple(p_value(r.gap.p_holm if r.gap else None) for r in rows)),
        ]
    return tuple(columns)


def details(task: TaskBoard) -> tuple[Column, ...]:
    """Row, spread over seeds, the other metrics with half their interval, cost of one run."""
    rows = task.rows
    primary = [r.measures[0].estimate for r in rows]
    n = decimals(primary)
    spread = (NONE if e is None or e.seed_sd is None else fixed(e.seed_sd, n) for e in primary)
    columns = [
        Column("method", tuple(map(named, rows)), number=False),
        Column("seeds", tuple(NONE if e is None else str(e.seeds) for e in primary)),
        Column("prompts", tuple(NONE if e is None else str(e.prompts) for e in primary)),
        Column("seed sd", tuple(spread)),
    ]
    columns += [
        Column(metric.name, plus_minus(rows, i))
        for i, metric in enumerate(task.metrics)
        if i and not metric.detail
    ]
    if any(row.standing for row in rows):
        columns += [
            Column(
                "strength", tuple(strength(r.standing.plain) if r.standing else NONE for r in rows)
            ),
            Column(
                "at equal style",
                tuple(strength(r.standing.styled) if r.standing else NONE for r in rows),
            ),
        ]
    columns += [
        Column(title, tuple(NONE if r.cost is None else text(r.cost) for r in rows))
        for title, text in _COSTS
    ]
    return tuple(columns)


def named(row: Row) -> str:
    """The label of a row, marked where nothing was trained."""
    return f"{row.label} (untrained)" if row.base else row.label


def folded(columns: Sequence[Column]) -> tuple[list[Column], str]:
    """The same without empty columns and equal counts, and the equal costs as one sentence."""
    known = {c.title: set(c.cells) - {NONE} for c in columns}
    same = [c for c in columns if len(known[c.title]) <= (c.title in _COUNTS)]
    costs = [c.title for c in same if c.title in dict(_COSTS) and known[c.title]]
    told = ", ".join(f"{known[title].pop()} {title}" for title in costs)
    return [c for c in columns if c not in same], f"Every run: {told}." if told else ""


def rank(row: Row) -> str:
    """A rank, or the first and last one that the data allow."""
    if row.ranks is None:
        return NONE
    first, last = row.ranks
    return str(first) if first == last else f"{first}-{last}"


def plus_minus(rows: Sequence[Row], metric: int) -> tuple[str, ...]:
    """Mean and half of the interval's width, row by row, with the same decimals."""
    found = [r.measures[metric].estimate for r in rows]
    n = decimals(found)
    return tuple(
        NONE if e is None else f"{fixed(e.value, n)} ±{fixed((e.high - e.low) / 2, n)}"
        for e in found
    )


def strength(found: Strength) -> str:
    """Percent against the baseline, and the interval."""
    low, high = found.interval
    return f"{found.value:.1f} [{low:.1f}, {high:.1f}]"


def gaps(task: TaskBoard) -> tuple[str, ...]:
    """Difference to the reference method and its interval, row by row."""
    found = [r.gap.estimate if r.gap else None for r in task.rows]
    n = decimals(found)
    return tuple(
        NONE if e is None else f"{signed(e.value, n)} [{signed(e.low, n)}, {signed(e.high, n)}]"
        for e in found
    )


def decimals(found: Sequence[Estimate | None]) -> int:
    """How many decimals a column of estimates has."""
    return places([e.standard_error for e in found if e is not None])
