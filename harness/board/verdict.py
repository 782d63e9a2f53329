"""What a board says, in sentences: who beats the reference method, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.board.contents import Gap, Pair, Row, TaskBoard
from harness.board.differences import LEVEL, better
from harness.board.numbers import fixed, p_phrase, places
from harness.contracts.task import Metric
from harness.stats.difference import Estimate

_FEW = 4
_OUTCOMES = {1: "beat", -1: "fall short of", 0: "are not shown to differ from"}


def verdict(task: TaskBoard) -> tuple[str, ...]:
    """The sentences above a task's table, the most important one first."""
    out = listed([row.label for row in task.unranked])
    missing = f"Not ranked, for the reasons below: {out}." if out else ""
    return tuple(filter(None, (*_sentences(task), missing)))


def amount(estimate: Estimate, metric: Metric, sign: int = 1) -> str:
    """A size with its interval, turned round where `sign` is -1: `0.31 reward (0.12 to 0.50)`."""
    n = places([estimate.standard_error])
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    size = f"{fixed(sign * estimate.value, n)} {metric.unit or metric.name}"
    return f"{size} ({fixed(low, n)} to {fixed(high, n)})"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _sentences(task: TaskBoard) -> Iterator[str]:
    if not task.rows:
        yield "No row is complete, so nothing is ranked."
        return
    yield task.no_order or _leaders(task)
    if task.no_order:
        return
    tested = [(row, row.gap) for row in task.rows if row.gap is not None]
    for outcome, many in _OUTCOMES.items():
        group = [(r, g) for r, g in tested if _outcome(r, g, task) == outcome]
        yield from _group(group, task, many)
    yield _untrained(task)


def _group(group: Sequence[tuple[Row, Gap]], task: TaskBoard, many: str) -> Iterator[str]:
    """A sentence for each of a few rows; for many rows one, the sizes being in the table."""
    if len(group) > _FEW:
        yield f"{listed([row.label for row, _ in group])} {many} {task.reference}."
    else:
        yield from (_compared(row, gap, task) for row, gap in group)


def _leaders(task: TaskBoard) -> str:
    first = [row.label for row in task.rows if row.ranks and row.ranks[0] == 1]
    if len(first) > 1:
        return f"First place is open: no row is shown to be better than {listed(first)}."
    others = len(task.rows) - 1
    if not others:
        return f"{first[0]} is the only complete row."
    last = task.rows[0].ranks == (1, 1)
    better = "better than every other row" if last else "no row is shown to be better"
    return f"{first[0]} is first of {others + 1} rows: {better}."


def _outcome(row: Row, gap: Gap, task: TaskBoard) -> int:
    """1 where the row beats the reference, -1 where it falls short, 0 else.

    Both families must say so. Two families are two chances: on a board of equal rows one of them
    finds something in up to 8 % of experiments, all pairs' alone in no more than 5 %.
    """
    pair = _pair(task, row.label)
    if gap.p_holm is None or gap.p_holm >= LEVEL or pair is None or not pair.better:
        return 0
    return 1 if better(gap.estimate, task.primary) else -1


def _compared(row: Row, gap: Gap, task: TaskBoard) -> str:
    other, metric, outcome = task.reference, task.primary, _outcome(row, gap, task)
    name = f"the untrained {row.label}" if row.base else row.label
    after = f"{p_phrase(gap.p_holm)} after Holm" if gap.p_holm is not None else "not tested"
    if outcome:
        winner, loser = (name, other) if outcome > 0 else (other, name)
        verb = "falls short of" if outcome < 0 and not row.base else "beats"
        first, second = (loser, winner) if verb == "falls short of" else (winner, loser)
        size = amount(gap.estimate, metric, 1 if gap.estimate.value > 0 else -1)
        return f"{first} {verb} {second} by {size}, {after}."
    size = amount(gap.estimate, metric)
    pair = _pair(task, row.label)
    if pair is not None and pair.better:
        place = "ahead of" if pair.better == row.label else "behind"
        return f"{name} is {place} {other} in the ranking, yet not after Holm: {size}, {after}."
    more = f"; {gap.remedy}" if gap.remedy else ""
    return f"{name} and {other} cannot be told apart: difference {size}, {after}{more}."


def _pair(task: TaskBoard, label: str) -> Pair | None:
    both = {label, task.reference}
    return next((p for p in task.pairs if {p.a, p.b} == both), None)


def _untrained(task: TaskBoard) -> str:
    """Methods that the board cannot tell from no training at all, or that made it worse."""
    base = next((row.label for row in task.rows if row.base), None)
    against = {p.a if p.b == base else p.b: p for p in task.pairs if base in (p.a, p.b)}
    doubtful = [
        row.label
        for row in task.rows
        if row.label in against and against[row.label].better != row.label
    ]
    if not doubtful:
        return ""
    return f"Not shown to be better than the untrained {base}: {listed(doubtful)}."
