"""The differences that a board tests, its two families of tests, and what would decide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from harness.board.candidates import Candidate, Values
from harness.board.contents import Gap, Pair, tested
from harness.contracts.task import Metric
from harness.stats.corrections import benjamini_hochberg, holm
from harness.stats.difference import Estimate, difference
from harness.stats.pooling import RunSpread, spread_of_differences, spread_of_means
from harness.stats.power import prompts_needed, seeds_needed

LEVEL = 0.05


@dataclass(frozen=True)
class Spreads:
    """What all complete rows of a task tell of the variance between runs.

    Attributes:
        trained: for the difference of two rows that were trained.
        fixed: for that of a trained row and one fixed policy.
    """

    trained: RunSpread | None
    fixed: RunSpread | None

    @classmethod
    def of(cls, complete: Sequence[Candidate], metric: str) -> Spreads:
        """Of rows that have the metric on the same seeds and prompts."""
        tables = [c.values(metric) for c in complete]
        tables = [table for table in tables if len(table) > 1]
        return cls(spread_of_differences(tables), spread_of_means(tables))


def matched(a: Candidate, b: Candidate, metric: str, spreads: Spreads) -> Estimate:
    """The difference of two complete rows, `a` minus `b`, its runs seen beside those of all rows.

    An untrained policy with one set of completions is one fixed policy, the same beside every
    seed: it is repeated, and the variance between seeds is that of the other row.
    """
    x, y = a.values(metric), b.values(metric)
    seeds = max(len(x), len(y))
    spread = spreads.trained if len(x) == len(y) else spreads.fixed
    return difference(_repeated(x, seeds), _repeated(y, seeds), spread=spread)


def remedy(gap: Estimate) -> str:
    """What it would take to find a difference of the size observed with 80 % power, in words."""
    if gap.value == 0 or gap.components is None or gap.components.run is None:
        return ""
    seeds = seeds_needed(gap.value, gap.components, prompts=gap.prompts)
    if seeds is not None:
        found = f"{seeds:,} seeds" if seeds > gap.seeds else ""
    else:
        prompts = prompts_needed(gap.value, gap.components, seeds=gap.seeds)
        found = f"{prompts:,} prompts" if prompts is not None else "more seeds and more prompts"
    return f"{found} would be needed to see the difference observed" if found else ""


def better(gap: Estimate, metric: Metric) -> bool:
    """Whether a difference `a` minus `b` speaks for `a`."""
    return gap.value > 0 if metric.better == "higher" else gap.value < 0


def all_pairs(complete: Sequence[Candidate], metric: Metric, *, claims: bool) -> tuple[Pair, ...]:
    """Every difference between two rows: one Benjamini-Hochberg family.

    Args:
        complete: rows, best first.
        metric: the primary one.
        claims: whether the board may say that one row is better than another.
    """
    spreads = Spreads.of(complete, metric.name)
    found = [(a, b, matched(a, b, metric.name, spreads)) for a, b in combinations(complete, 2)]
    adjusted = _adjusted(benjamini_hochberg, [gap for _, _, gap in found])
    return tuple(
        Pair(a.label, b.label, gap, p, _winner(a, b, gap, metric) if claims and _claim(p) else "")
        for (a, b, gap), p in zip(found, adjusted, strict=True)
    )


def _claim(p: float | None) -> bool:
    return p is not None and p < LEVEL


def _winner(a: Candidate, b: Candidate, gap: Estimate, metric: Metric) -> str:
    return a.label if better(gap, metric) else b.label


def _adjusted(
    correct: Callable[[Sequence[float]], list[float]], family: Sequence[Estimate]
) -> list[float | None]:
    """Adjusted p values of a family; None where a test covers prompts only."""
    known = [p for p in map(tested, family) if p is not None]
    return list(correct(known)) if len(known) == len(family) else [None] * len(family)


def to_reference(
    complete: Sequence[Candidate], reference: Candidate | None, metric: Metric
) -> dict[str, Gap]:
    """Differences to the reference method: one Holm family, the untrained policy included."""
    if reference is None:
        return {}
    others = [c for c in complete if c is not reference]
    spreads = Spreads.of(complete, metric.name)
    found = [matched(c, reference, metric.name, spreads) for c in others]
    adjusted = _adjusted(holm, found)
    return {
        c.label: Gap(gap, p, remedy(gap)) for c, gap, p in zip(others, found, adjusted, strict=True)
    }


def _repeated(values: Values, seeds: int) -> Values:
    return np.repeat(values, seeds, axis=0) if len(values) == 1 else values
