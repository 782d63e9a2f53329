"""Aggregates of run means over tasks that outliers do not move, with intervals over seeds.

Source: Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice,
whose definitions these are. A stratum is a task: runs are compared and drawn within it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.stats.bootstrap import DRAWS, Interval, percentile_interval

Strata = Sequence[npt.ArrayLike]  # means of runs, task by task
Arrays = list[npt.NDArray[np.float64]]


def interquartile_mean(strata: Strata) -> float:
    """Mean of the middle half of all runs' means, all tasks together.

    A quarter of the runs, rounded down, is left out at either end.

    Raises:
        ValueError: no runs, or a mean that is not finite.
    """
    return float(stats.trim_mean(np.concatenate(_checked(strata)), 0.25))


def probability_of_improvement(a: Strata, b: Strata) -> float:
    """How probably a run of `a` has the higher mean than one of `b`, on average over tasks.

    Within a task every run of one is compared with every run of the other, equal means counting
    one half.

    Raises:
        ValueError: other tasks in `b` than in `a`, no runs, or a mean that is not finite.
    """
    first, second = _checked(a), _checked(b)
    if len(first) != len(second):
        raise ValueError(f"expected the same tasks, got {len(first)} and {len(second)}")
    signs = (np.sign(x[:, None] - y[None, :]).mean() for x, y in zip(first, second, strict=True))
    return float(np.mean([(1.0 + sign) / 2.0 for sign in signs]))


def with_interval(
    statistic: Callable[..., float],
    *methods: Strata,
    rng: np.random.Generator,
    draws: int = DRAWS,
    level: float = 0.95,
) -> Interval:
    """A statistic of one method or of two, with its stratified percentile bootstrap interval.

    Runs are drawn with replacement within each task, each method's on their own. With three runs a
    task has ten different draws only, and the interval is too narrow.

    Args:
        statistic: `interquartile_mean`, `probability_of_improvement`, or another of such strata.
        methods: what the statistic takes.
        rng: where the draws come from.
        draws: of the bootstrap.
        level: coverage of the interval.

    Raises:
        ValueError: as the statistic does, no draws, or `level` outside (0, 1).
    """
    if draws < 1:
        raise ValueError(f"a bootstrap needs at least 1 draw, got {draws}")
    found = [_checked(strata) for strata in methods]
    again = [statistic(*(_drawn(strata, rng) for strata in found)) for _ in range(draws)]
    return percentile_interval(statistic(*found), again, level)


def _drawn(strata: Arrays, rng: np.random.Generator) -> Arrays:
    return [runs[rng.integers(0, runs.size, runs.size)] for runs in strata]


def _checked(strata: Strata) -> Arrays:
    found = [np.asarray(runs, dtype=np.float64).ravel() for runs in strata]
    if not found or any(not runs.size or not np.isfinite(runs).all() for runs in found):
        raise ValueError("every task needs at least one run, and every run a finite mean")
    return found
