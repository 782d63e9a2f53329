"""Interquartile mean, probability of improvement and their bootstrap over seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.stats.aggregates import (
    interquartile_mean,
    probability_of_improvement,
    with_interval,
)

# rliable's own tests: runs by tasks [[1, 2], [2, 2], [1, 1], [2, 1]] and [[1, 1], [2, 2], [3, 3]].
X = [[1, 2, 1, 2], [2, 2, 1, 1]]
Y = [[1, 2, 3], [1, 2, 3]]


def test_answers_of_rliable() -> None:
    assert interquartile_mean(X) == 1.5
    assert interquartile_mean(Y) == 2.0
    assert probability_of_improvement(X, Y) == pytest.approx(1 / 3)


def test_a_run_that_went_wrong_does_not_move_the_interquartile_mean() -> None:
    assert interquartile_mean([[1.0, 2.0, 3.0, 4.0]]) == 2.5
    assert interquartile_mean([[-900.0, 2.0, 3.0, 4.0]]) == 2.5
    assert interquartile_mean([[1.0, 2.0, 4.5]]) == 2.5  # of fewer than four none is left out


def test_the_probability_of_improvement_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, 7), rng.integers(0, 6, 5)
    u = stats.mannwhitneyu(a, b).statistic
    assert probability_of_improvement([a], [b]) == pytest.approx(u / 35)
    assert probability_of_improvement([b], [a]) == pytest.approx(1 - u / 35)
    assert probability_of_improvement([a, [1]], [b, [0]]) == pytest.approx((u / 35 + 1) / 2)


def test_intervals_are_those_of_the_generator() -> None:
    rows = [np.random.default_rng(4).normal(size=10), np.random.default_rng(5).normal(size=8)]
    one, again, other = (
        with_interval(interquartile_mean, rows, rng=np.random.default_rng(s), draws=200)
        for s in (7, 7, 8)
    )
    assert one == again != other
    assert one.low < one.value < one.high
    assert one.value == interquartile_mean(rows)


def test_runs_are_drawn_within_their_task() -> None:
    """Else a draw could hold more of the better task, and the mean would vary."""
    found = with_interval(
        lambda strata: float(np.mean([np.mean(s) for s in strata])),
        [[1.0, 1.0, 1.0], [9.0, 9.0]],
        rng=np.random.default_rng(0),
        draws=50,
    )
    assert (found.low, found.value, found.high) == (5.0, 5.0, 5.0)


def test_the_interval_of_the_interquartile_mean_holds_the_truth() -> None:
    rng = np.random.default_rng(11)
    held = []
    for _ in range(200):
        rows = rng.normal(3.0, 1.0, (3, 10))
        found = with_interval(interquartile_mean, list(rows), rng=rng, draws=200)
        held.append(found.low <= 3.0 <= found.high)
    assert 0.88 < np.mean(held) < 0.98


def test_an_interval_of_two_methods() -> None:
    rng = np.random.default_rng(3)
    a, b = [rng.normal(1.5, 1, 10)], [rng.normal(0.0, 1, 10)]
    found = with_interval(probability_of_improvement, a, b, rng=rng, draws=500)
    assert 0.5 < found.low < found.value < found.high <= 1.0


def test_what_is_missing_is_refused() -> None:
    for strata in ([], [[]], [[1.0, np.nan]]):
        with pytest.raises(ValueError, match="at least one run, and every run a finite mean"):
            interquartile_mean(strata)
    with pytest.raises(ValueError, match="same tasks, got 2 and 1"):
        probability_of_improvement(X, [[1.0]])
    with pytest.raises(ValueError, match="at least 1 draw"):
        with_interval(interquartile_mean, X, rng=np.random.default_rng(0), draws=0)
