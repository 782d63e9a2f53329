"""Methods over many tasks: Friedman's test of their ranks, and how far ranks must lie apart.

A summary only: on three tasks hardly any difference of ranks can be told from chance.

Source: Demsar 2006, Journal of Machine Learning Research 7, 1-30.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Kind = Literal["nemenyi", "bonferroni-dunn"]


@dataclass(frozen=True)
class Friedman:
    """Friedman's test that no method ranks differently from any other.

    Attributes:
        mean_ranks: of each method over tasks, 1 being best; tied methods share their mean rank.
        chi_squared: without correction for ties, which leaves it on the safe side.
        p: of `chi_squared`.
        f: Iman and Davenport's statistic, which is less conservative; infinite where all tasks
            have one order.
        p_f: of `f`.
        tasks: rows that were ranked.
    """

    mean_ranks: tuple[float, ...]
    chi_squared: float
    p: float
    f: float
    p_f: float
    tasks: int


def friedman(scores: npt.ArrayLike, *, better: Literal["higher", "lower"]) -> Friedman:
    """The test of scores [tasks, methods].

    Raises:
        ValueError: fewer than two tasks or methods, or a score that is not finite.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"ranks need finite scores of 2 tasks and 2 methods at least, got {table.shape}"
        )
    tasks, methods = table.shape
    ranks = stats.rankdata(-table if better == "higher" else table, axis=1).mean(axis=0)
    spread = float(((ranks - (methods + 1) / 2) ** 2).sum())
    chi_squared = 12 * tasks / (methods * (methods + 1)) * spread
    left = tasks * (methods - 1) - chi_squared
    f = (tasks - 1) * chi_squared / left if left > 1e-12 * tasks * methods else math.inf
    return Friedman(
        mean_ranks=tuple(float(rank) for rank in ranks),
        chi_squared=chi_squared,
        p=float(special.chdtrc(methods - 1, chi_squared)),
        f=f,
        p_f=float(stats.f.sf(f, methods - 1, (methods - 1) * (tasks - 1))),
        tasks=tasks,
    )


def critical_difference(
    methods: int, tasks: int, *, kind: Kind = "nemenyi", level: float = 0.95
) -> float:
    """How far two mean ranks must lie apart to differ.

    Args:
        methods: that are ranked.
        tasks: over which ranks are averaged.
        kind: for all pairs, or for each method against one reference.
        level: one minus the probability of any false finding.

    Raises:
        ValueError: fewer than two methods, no task, or `level` outside (0, 1).
    """
    if methods < 2 or tasks < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"no critical difference of {methods} methods on {tasks} tasks at {level}")
    if kind == "nemenyi":
        q = float(stats.studentized_range.ppf(level, methods, np.inf)) / math.sqrt(2)
    else:
        q = float(special.ndtri(1 - (1 - level) / (2 * (methods - 1))))
    return q * _standard_error(methods, tasks)


def nemenyi(mean_ranks: Sequence[float], tasks: int) -> npt.NDArray[np.float64]:
    """Two-sided p [methods, methods] of every pair, corrected for all pairs.

    Raises:
        ValueError: fewer than two methods, or no task.
    """
    ranks = np.asarray(mean_ranks, dtype=np.float64)
    if ranks.size < 2 or tasks < 1:
        raise ValueError(f"no pairs of {ranks.size} methods on {tasks} tasks")
    apart = np.abs(ranks[:, None] - ranks[None, :]) / _standard_error(ranks.size, tasks)
    p = stats.studentized_range.sf(apart * math.sqrt(2), ranks.size, np.inf)
    return np.clip(np.asarray(p, dtype=np.float64), 0.0, 1.0)


def _standard_error(methods: int, tasks: int) -> float:
    return math.sqrt(methods * (methods + 1) / (6 * tasks))
