"""Mean squares, variance components, and the variance of a mean made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.components import (
    Components,
    MeanSquares,
    as_table,
    expected_squares,
    mean_squares,
    variance_components,
    variance_of_mean,
)

# Shrout and Fleiss 1979, Psychological Bulletin 86, table 2: 6 targets by 4 judges.
TARGETS_BY_JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)


def test_mean_squares_of_shrout_and_fleiss() -> None:
    squares = mean_squares(TARGETS_BY_JUDGES.T)
    assert (squares.runs, squares.prompts) == (4, 6)
    assert squares.between_prompts == pytest.approx(11.24, abs=0.005)
    assert squares.between_runs == pytest.approx(32.49, abs=0.005)
    assert squares.residual == pytest.approx(1.02, abs=0.005)


def test_components_of_shrout_and_fleiss() -> None:
    parts = variance_components(mean_squares(TARGETS_BY_JUDGES.T))
    assert parts.prompt == pytest.approx(2.556, abs=0.0005)
    assert parts.run == pytest.approx(5.244, abs=0.0005)
    assert parts.residual == pytest.approx(1.019, abs=0.0005)


def test_variance_of_the_mean_of_shrout_and_fleiss_by_hand() -> None:
    # (MS_runs + MS_prompts - MS_residual) / 24; 3 degrees of freedom for runs and 5 for prompts.
    runs, prompts, residual = 32.486111, 11.241667, 1.019444
    variance, df = variance_of_mean(mean_squares(TARGETS_BY_JUDGES.T))
    rest = prompts - residual
    assert variance == pytest.approx((runs + rest) / 24, rel=1e-6)
    x = rest / runs
    of_runs = 3 * (1 + 3 * x**2 / (x + 7 / 3))
    share = rest / (runs + rest)
    assert df == pytest.approx(1 / (1 / of_runs + share**2 / 5), rel=1e-6)


LEAST_OF_TWO = 2 * -np.log(0.975) / 2  # of chi-squared with 2 degrees of freedom, over 2


@pytest.mark.parametrize(
    ("runs", "prompts", "sum_of_both"),
    [
        (0.5, 3.0, 2.5),  # fewer differences between runs than chance makes count as they are
        (5.0, 0.25, 5.0),  # prompts cannot take from the variance between runs
        (0.5, 0.25, 0.5),
        (0.001, 3.0, 2.0 + LEAST_OF_TWO),  # runs that agree by chance
        (0.0, 0.25, LEAST_OF_TWO),
    ],
)
def test_runs_have_a_floor_and_prompts_are_clipped(
    runs: float, prompts: float, sum_of_both: float
) -> None:
    found, df = variance_of_mean(MeanSquares(runs, prompts, 1.0, runs=3, prompts=4))
    assert found == pytest.approx(sum_of_both / 12)
    assert df >= 2.0


def test_runs_known_from_elsewhere_bring_their_own_degrees_of_freedom() -> None:
    squares = MeanSquares(4.0, 1.0, 1.0, runs=3, prompts=200)
    assert variance_of_mean(squares) == (pytest.approx(4.0 / 600), 2.0)
    assert variance_of_mean(squares, 22.0) == (pytest.approx(4.0 / 600), 22.0)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(3, 10), st.integers(2, 900))
def test_nothing_jumps_where_a_component_is_clipped(
    other: float, residual: float, runs: int, prompts: int
) -> None:
    def both(at: float) -> list[tuple[float, float]]:
        squares = [(at, other), (other, at)]
        return [variance_of_mean(MeanSquares(r, p, residual, runs, prompts)) for r, p in squares]

    below, above = both(residual * (1 - 1e-9)), both(residual * (1 + 1e-9))
    assert np.ravel(below) == pytest.approx(np.ravel(above), rel=1e-6)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0.01, 100), st.integers(2, 10))
def test_degrees_of_freedom_stay_between_those_of_the_runs_and_of_the_cells(
    between_runs: float, between_prompts: float, residual: float, runs: int
) -> None:
    squares = MeanSquares(between_runs, between_prompts, residual, runs, prompts=50)
    _, df = variance_of_mean(squares)
    assert runs - 1 <= df <= runs * 50


def test_two_runs_are_believed_less() -> None:
    squares = MeanSquares(1.0, 5.0, 1.0, runs=2, prompts=10**9)
    assert variance_of_mean(squares)[1] == pytest.approx(1 + 4**2 / (4 + 30))
    more = MeanSquares(1.0, 5.0, 1.0, runs=3, prompts=10**9)
    assert variance_of_mean(more)[1] == pytest.approx(2 * (1 + 3 * 4**2 / (4 + 3.5)))


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0, 50), st.integers(2, 9))
def test_components_are_found_again_in_the_squares_that_they_make(
    run: float, prompt: float, residual: float, runs: int
) -> None:
    found = variance_components(expected_squares(Components(run, prompt, residual), runs, 30))
    assert [found.run, found.prompt, found.residual] == pytest.approx(
        [run, prompt, residual], abs=1e-9
    )


def test_squares_are_those_of_the_components_on_average() -> None:
    rng = np.random.default_rng(20)
    run, prompt, residual = 2.0, 3.0, 5.0
    shape = (4, 12)
    found = []
    for _ in range(4000):
        table = (
            rng.normal(0, run, (4, 1)) + rng.normal(0, prompt, 12) + rng.normal(0, residual, shape)
        )
        squares = mean_squares(table)
        found.append((squares.between_runs, squares.between_prompts, squares.residual))
    wanted = expected_squares(Components(run**2, prompt**2, residual**2), *shape)
    assert np.mean(found, axis=0) == pytest.approx(
        [wanted.between_runs, wanted.between_prompts, wanted.residual], rel=0.03
    )


def test_one_run_tells_no_variance_between_runs() -> None:
    with pytest.raises(ValueError, match="at least two seeds"):
        expected_squares(Components(None, 1.0, 0.0), 3, 10)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[1.0, 2.0]], "2 runs and 2 prompts, got 1 x 2"),
        ([[1.0], [2.0]], "got 2 x 1"),
        ([[1.0, np.nan], [2.0, 3.0]], "complete table"),
        ([[1.0, np.inf], [2.0, 3.0]], "seed row 0, prompt column 1 holds inf"),
        ([1.0, 2.0], "got 1 axes"),
        (np.empty((3, 0)), "3 x 0 cells"),
    ],
)
def test_mean_squares_refuse_what_is_no_complete_table(values: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mean_squares(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("view", [np.asfortranarray, lambda x: x[::-1][::-1], np.ndarray.tolist])
def test_equal_values_give_equal_bits_however_they_lie_in_memory(
    view: Callable[[np.ndarray], np.ndarray],
) -> None:
    table = np.random.default_rng(3).normal(size=(5, 300))
    assert mean_squares(view(table)) == mean_squares(table)
    assert as_table(view(table)).flags.c_contiguous
