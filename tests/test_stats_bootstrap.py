"""The hierarchical bootstrap: what it draws, and what it is paired on."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.bootstrap import (
    AT_ONCE,
    hierarchical_interval,
    hierarchical_means,
    percentile_interval,
)
from harness.stats.components import mean_squares


def table(seed: int = 0, seeds: int = 5, prompts: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    runs = rng.normal(0, 2, (seeds, 1))
    return runs + rng.normal(0, 9, prompts) + rng.normal(0, 9, (seeds, prompts))


def test_a_draw_is_the_same_for_all_tables() -> None:
    a, b = table(1), table(2)
    rng = np.random.default_rng
    both = hierarchical_means([a, b], rng(3), draws=50)
    apart = hierarchical_means([a - b], rng(3), draws=50)
    assert both[0] - both[1] == pytest.approx(apart[0])


def test_equal_seeds_give_equal_draws_and_others_do_not() -> None:
    draws = AT_ONCE + 7
    one, again, other = (
        hierarchical_means([table()], np.random.default_rng(s), draws=draws) for s in (1, 1, 2)
    )
    assert one.shape == (1, draws)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_runs_and_prompts_are_both_drawn() -> None:
    rng = np.random.default_rng(0)
    by_run = np.tile([[0.0], [1.0], [5.0]], (1, 40))
    drawn = {round(x, 9) for x in hierarchical_means([by_run], rng, draws=500)[0]}
    sums = {round((a + b + c) / 3, 9) for a in (0, 1, 5) for b in (0, 1, 5) for c in (0, 1, 5)}
    assert drawn == sums
    by_prompt = np.tile([0.0, 2.0], (6, 1))
    drawn = {round(x, 9) for x in hierarchical_means([by_prompt], rng, draws=100)[0]}
    assert drawn == {0.0, 1.0, 2.0}


def test_the_variance_of_draws_is_that_of_runs_and_prompts_with_their_own_divisors() -> None:
    """To first order: sums of squares of run means over S^2, of prompt means over n^2."""
    x = table(5)
    found = hierarchical_means([x], np.random.default_rng(6), draws=20_000)[0].var()
    squares, (s, n) = mean_squares(x), x.shape
    third = squares.residual * (s - 1) * (n - 1) / (s * n) ** 2
    wanted = (squares.between_runs * (s - 1) / s + squares.between_prompts * (n - 1) / n) / (s * n)
    assert found == pytest.approx(wanted + third, rel=0.04)


def test_an_interval_lies_around_its_mean() -> None:
    x = table(8)
    found = hierarchical_interval(x, np.random.default_rng(1), draws=2000)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(x.mean())
    narrow = hierarchical_interval(x, np.random.default_rng(1), draws=2000, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_percentiles_leave_out_as_many_on_either_side() -> None:
    found = percentile_interval(50.0, np.arange(101.0), 0.90)
    assert (found.low, found.high) == pytest.approx((5.0, 95.0))


def test_what_cannot_be_drawn_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one shape"):
        hierarchical_means([np.ones((2, 3)), np.ones((3, 2))], rng)
    with pytest.raises(ValueError, match="one shape"):
        hierarchical_means([], rng)
    with pytest.raises(ValueError, match="complete tables"):
        hierarchical_means([[[1.0, np.nan]]], rng)
    with pytest.raises(ValueError, match="at least 1 draw"):
        hierarchical_means([np.ones((2, 3))], rng, draws=0)
    with pytest.raises(ValueError, match="level must lie between"):
        hierarchical_interval(np.ones((2, 3)), rng, level=95)
