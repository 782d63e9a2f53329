"""What rows tell each other of the variance between runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.stats.components import MeanSquares, mean_squares
from harness.stats.difference import difference
from harness.stats.pooling import (
    RunSpread,
    moderated,
    spread_of_differences,
    spread_of_means,
)


def rows(
    rng: np.random.Generator, count: int, sds: float | list[float] = 2.0, shared: float = 0.0
) -> list[np.ndarray]:
    sizes = np.broadcast_to(sds, count)
    order = rng.normal(0, shared, (3, 1))
    return [order + rng.normal(0, sd, (3, 1)) + rng.normal(0, 5, (3, 40)) for sd in sizes]


def test_the_spread_of_differences_is_the_mean_over_all_pairs() -> None:
    drawn = rows(np.random.default_rng(1), 5, shared=9.0)
    pairs = [mean_squares(a - b).between_runs for i, a in enumerate(drawn) for b in drawn[i + 1 :]]
    found = spread_of_differences(drawn)
    assert found is not None
    assert found.between_runs == pytest.approx(np.mean(pairs))
    assert found.pooled_df == 4 * 2


def test_the_spread_of_means_is_the_mean_over_rows() -> None:
    drawn = rows(np.random.default_rng(2), 6)
    found = spread_of_means(drawn)
    assert found is not None
    assert found.between_runs == pytest.approx(
        np.mean([mean_squares(x).between_runs for x in drawn])
    )


def test_rows_whose_runs_move_together_tell_no_more_than_one() -> None:
    rng = np.random.default_rng(3)
    free, bound = spread_of_means(rows(rng, 8)), spread_of_means(rows(rng, 8, 0.01, shared=50.0))
    assert free is not None
    assert bound is not None
    assert free.pooled_df > 8
    assert bound.pooled_df == pytest.approx(2, rel=0.05)


def test_rows_that_share_a_part_are_worth_as_many_as_their_correlation_leaves() -> None:
    """Squares of two normal variables correlate as the square of their own correlation."""
    drawn = rows(np.random.default_rng(7), 5, shared=2.0)
    found = spread_of_means(drawn)
    table = mean_squares(np.array([x.mean(axis=1) for x in drawn]).T)  # seeds by rows
    both = table.between_runs + 4 * table.residual
    correlation = (table.between_runs - table.residual) / both
    assert 0.1 < correlation < 0.9
    assert found is not None
    assert found.pooled_df == pytest.approx(2 * 5 / (1 + 4 * correlation**2))


def test_rows_that_are_alike_are_believed_and_rows_that_are_not_are_not() -> None:
    rng = np.random.default_rng(4)
    alike = [spread_of_differences(rows(rng, 12)) for _ in range(60)]
    uneven = [spread_of_differences(rows(rng, 12, [0.1] * 6 + [30.0] * 6)) for _ in range(60)]
    assert np.median([found.prior_df for found in alike if found]) > 10
    assert np.median([found.prior_df for found in uneven if found]) < 4


def test_a_prior_of_three_rows_by_hand() -> None:
    squares = MeanSquares(9.0, 4.0, 1.0, runs=3, prompts=40)
    found, df = moderated(squares, RunSpread(3.0, prior_df=4.0, pooled_df=100.0))
    assert found == MeanSquares((4 * 3.0 + 2 * 9.0) / 6, 4.0, 1.0, runs=3, prompts=40)
    assert df == 6.0
    assert moderated(squares, RunSpread(3.0, 4.0, pooled_df=5.0))[1] == 5.0
    sure, df = moderated(squares, RunSpread(3.0, math.inf, pooled_df=22.0))
    assert (sure.between_runs, df) == (3.0, 22.0)
    assert moderated(squares, None) == (squares, 2.0)


def test_a_difference_beside_other_rows_has_their_degrees_of_freedom() -> None:
    drawn = rows(np.random.default_rng(8), 12)
    spread = spread_of_differences(drawn)
    alone = difference(drawn[0], drawn[1])
    together = difference(drawn[0], drawn[1], spread=spread)
    assert together.value == alone.value
    assert together.df > 2 * alone.df
    swapped = difference(drawn[1], drawn[0], spread=spread)
    assert (swapped.p, swapped.low) == (together.p, -together.high)


def test_where_there_is_nothing_to_pool_there_is_no_spread() -> None:
    rng = np.random.default_rng(5)
    for function in (spread_of_differences, spread_of_means):
        assert function(rows(rng, 2)) is None
        assert function([np.ones((1, 4))] * 5) is None
        assert function([np.full((3, 4), x) for x in (1.0, 2.0, 3.0)]) is None


def test_one_row_without_any_variance_does_not_end_in_a_logarithm_of_nothing() -> None:
    drawn = rows(np.random.default_rng(6), 4)
    still = [*drawn, np.ones((3, 40))]
    found = spread_of_means(still)
    assert found is not None
    assert 0 < found.prior_df < 10


def test_rows_of_other_shapes_or_with_holes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        spread_of_differences([np.ones((3, 4)), np.ones((3, 5)), np.ones((3, 4))])
    with pytest.raises(ValueError, match="complete tables"):
        spread_of_means([np.full((3, 4), np.nan)] * 3)
