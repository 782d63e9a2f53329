"""One difference between two rows: its size, how sure it is, and what it would take to see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.board.candidates import Candidate
from harness.board.columns import Column
from harness.board.completeness import checked
from harness.board.contents import Measure, tested
from harness.board.differences import LEVEL, Spreads, better, matched, remedy
from harness.board.numbers import fixed, p_phrase, places, signed
from harness.board.terminal import WIDTH, aligned, wrapped
from harness.board.verdict import amount
from harness.contracts.task import Metric
from harness.errors import RequestError, unknown
from harness.scores import Scores, TaskHeader
from harness.stats.difference import Estimate, estimate


@dataclass(frozen=True)
class Comparison:
    """Two rows of one task on its primary metric.

    Attributes:
        a: label of the first row.
        b: label of the second row.
        measures: of `a` and `b`; empty where one of them is not complete.
        gap: `a` minus `b`, paired by seed and prompt; None where one of them is not complete.
        remedy: what it would take to find a difference of the size observed, in words.
        problems: why there is no comparison; empty where there is one.
    """

    task: str
    metric: Metric
    a: str
    b: str
    measures: tuple[Measure, ...]
    gap: Estimate | None
    remedy: str
    problems: tuple[str, ...]


def compare(scores: Scores, a: str, b: str, task: str | None = None) -> tuple[Comparison, ...]:
    """Two rows, by method (`dpo`) or by label (`dpo (beta=0.1)`), in one task or in all with both.

    Raises:
        RequestError: no such task, or no task in which both rows are; one row twice; a method
            that has several settings.
        DataError: the table does not fit its header.
    """
    if a == b:
        raise RequestError(f"'{a}' is compared with itself: name two rows")
    known = {t.name: t for t in scores.header.tasks}
    if task is not None and task not in known:
        raise unknown("task", task, known)
    wanted = [known[task]] if task is not None else list(known.values())
    found = [(t, checked(scores, t)) for t in wanted]
    both = [(t, rows) for t, rows in found if {a, b} <= _names(rows)]
    if not both:
        names = set().union(*(_names(rows) for _, rows in found))
        missing = next((name for name in (a, b) if name not in names), None)
        if missing is not None:
            raise unknown("row", missing, names)
        raise RequestError(f"no task has both '{a}' and '{b}'")
    return tuple(
        _comparison(t, _one(rows, a), _one(rows, b), [r for r in rows if not r.reasons])
        for t, rows in both
    )


def render_comparison(comparisons: Sequence[Comparison], *, width: int = WIDTH) -> str:
    """Comparisons as plain text in at most `width` columns."""
    return "\n".join(line for c in comparisons for line in _lines(c, width)) + "\n"


def conclusion(comparison: Comparison) -> str:
    """What a comparison says, in one sentence."""
    gap, metric, a, b = comparison.gap, comparison.metric, comparison.a, comparison.b
    if gap is None:
        return f"No comparison: {'; '.join(comparison.problems)}."
    p = tested(gap)
    if p is None:
        size = amount(gap, metric)
        return f"{a} minus {b} is {size} on these runs; one seed says nothing about the methods."
    if p >= LEVEL:
        more = f"; {comparison.remedy}" if comparison.remedy else ""
        size = amount(gap, metric)
        return f"{a} and {b} cannot be told apart: difference {size}, {p_phrase(p)}{more}."
    if metric.better is None:
        return f"{a} and {b} differ by {amount(gap, metric)}, {p_phrase(p)}."
    first, second = (a, b) if better(gap, metric) else (b, a)
    size = amount(gap, metric, 1 if gap.value > 0 else -1)
    return f"{first} beats {second} by {size}, {p_phrase(p)}."


def _names(rows: Sequence[Candidate]) -> set[str]:
    return {name for row in rows for name in (row.label, row.method)}


def _one(rows: Sequence[Candidate], name: str) -> Candidate:
    found = [r for r in rows if r.label == name] or [r for r in rows if r.method == name]
    if len(found) > 1:
        labels = ", ".join(f"'{row.label}'" for row in found)
        raise RequestError(f"'{name}' has several settings: name one of {labels}")
    return found[0]


def _comparison(
    task: TaskHeader, a: Candidate, b: Candidate, complete: Sequence[Candidate]
) -> Comparison:
    metric = next(m for m in task.metrics if m.name == task.primary)
    problems = tuple(f"{r.label}: {'; '.join(r.reasons)}" for r in (a, b) if r.reasons)
    spreads = Spreads.of(complete, metric.name)
    gap = None if problems else matched(a, b, metric.name, spreads)
    measures = () if problems else tuple(_measure(row, metric.name) for row in (a, b))
    return Comparison(
        task.name, metric, a.label, b.label, measures, gap, remedy(gap) if gap else "", problems
    )


def _measure(row: Candidate, metric: str) -> Measure:
    return Measure(metric, estimate(row.values(metric)), row.seed_means(metric))


def _lines(comparison: Comparison, width: int) -> Iterator[str]:
    metric, gap = comparison.metric, comparison.gap
    better = f"{metric.better} is better" if metric.better else "no better direction"
    title = wrapped(f"{comparison.task}: {metric.name}, {better}", width, "")
    yield from title
    yield "=" * max(map(len, title))
    yield from wrapped(conclusion(comparison), width, "* ")
    yield ""
    if gap is None:
        return
    yield from aligned(_columns(comparison, gap), width)
    yield ""
    for fact in _facts(gap, metric):
        yield from wrapped(fact, width)
    yield ""


def _columns(comparison: Comparison, gap: Estimate) -> list[Column]:
    n = places([gap.standard_error])
    first, second = (dict(m.seeds) for m in comparison.measures)
    # An untrained policy has one set of completions, which stands beside every seed.
    seeds = max(first, second, key=len)
    x, y = (list(m.values()) * (1 if len(m) > 1 else len(seeds)) for m in (first, second))
    means = [m.estimate.value for m in comparison.measures if m.estimate is not None]
    return [
        Column("seed", (*(str(s) for s in seeds), "mean"), number=False),
        Column(comparison.a, tuple(fixed(v, n) for v in (*x, means[0]))),
        Column(comparison.b, tuple(fixed(v, n) for v in (*y, means[1]))),
        Column(
            "difference",
            (*(signed(v - w, n) for v, w in zip(x, y, strict=True)), signed(gap.value, n)),
        ),
    ]


def _facts(gap: Estimate, metric: Metric) -> Iterator[str]:
    n, unit, p = places([gap.standard_error]), metric.unit or metric.name, tested(gap)
    runs = "1 seed" if gap.seeds == 1 else f"{gap.seeds} seeds"
    spread = "" if gap.seed_sd is None else (
        f", standard deviation between pairs of runs {fixed(gap.seed_sd, n)}"
    )  # fmt: skip
    yield (
        f"95 % interval {signed(gap.low, n)} to {signed(gap.high, n)} {unit}, standard error "
        f"{fixed(gap.standard_error, n)} with {gap.df:.1f} degrees of freedom{spread}."
    )
    yield f"Paired over {runs} and {gap.prompts} prompts; the interval covers {gap.scope}."
    yield f"Minimum detectable effect at 80 % power: {fixed(gap.mde, n)} {unit}."
    if p is not None:
        yield "The p is that of one comparison chosen beforehand; a board corrects for all its own."
