"""Tables with holes, and what two methods have in common."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.stats.components import mean_squares, variance_components
from harness.stats.difference import estimate
from harness.stats.unbalanced import in_common, mean_of_cells, unbalanced_components


def complete(rng: np.random.Generator, seeds: int = 4, prompts: int = 60) -> np.ndarray:
    runs = rng.normal(0, 3, (seeds, 1))
    return 50 + runs + rng.normal(0, 6, prompts) + rng.normal(0, 5, (seeds, prompts))


def holed(table: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    return np.where(rng.random(table.shape) < share, np.nan, table)


def test_of_a_complete_table_it_is_the_analysis_of_variance() -> None:
    x = complete(np.random.default_rng(1))
    found, wanted = unbalanced_components(x), variance_components(mean_squares(x))
    assert [found.run, found.prompt, found.residual] == pytest.approx(
        [wanted.run, wanted.prompt, wanted.residual], rel=1e-9
    )
    cells, whole = mean_of_cells(x), estimate(x)
    assert (cells.value, cells.low, cells.high, cells.df) == pytest.approx(
        (whole.value, whole.low, whole.high, whole.df), rel=1e-9
    )
    assert cells.cells == x.size


def test_components_of_tables_with_holes_are_right_on_average() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(1500):
        parts = unbalanced_components(holed(complete(rng, seeds=6), rng, 0.4))
        found.append((parts.run, parts.prompt, parts.residual))
    assert np.mean(found, axis=0) == pytest.approx([9.0, 36.0, 25.0], rel=0.05)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_interval_of_cells_holds_the_truth(share: float) -> None:
    rng = np.random.default_rng(3)
    held = []
    for _ in range(1500):
        found = mean_of_cells(holed(complete(rng, seeds=5), rng, share))
        held.append(found.low <= 50 <= found.high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_runs_on_prompts_of_their_own_still_have_a_mean() -> None:
    x = np.full((3, 30), np.nan)
    for run in range(3):  # a third of the prompts is shared with the next run
        x[run, 10 * run : 10 * run + 10] = np.random.default_rng(run).normal(5, 1, 10)
        x[run, (10 * run + 10) % 30 : (10 * run + 13) % 30 or 30] = 5.0
    assert mean_of_cells(x).value == pytest.approx(np.nanmean(x))


@pytest.mark.parametrize(
    "values",
    [[[1.0, 2.0, np.nan]], [[1.0, np.nan], [np.nan, 2.0]], [[1.0, 2.0], [3.0, np.nan]]],
)
def test_too_few_cells_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="components need 2 runs and 2 prompts"):
        unbalanced_components(values)


def frame(seeds: list[int], prompts: str, base: float) -> pd.DataFrame:
    values = base + np.arange(len(seeds))[:, None] * 10 + np.arange(len(prompts))
    return pd.DataFrame(values.astype(float), index=seeds, columns=list(prompts))


def test_rows_are_compared_on_the_seeds_and_prompts_that_both_have() -> None:
    a, b = frame([0, 1, 2], "pqrs", 100.0), frame([2, 1], "srqpx", 0.0)
    b.loc[1, "q"] = np.nan
    found = in_common(a, b)
    assert found.a.tolist() == [[110.0, 112.0, 113.0], [120.0, 122.0, 123.0]]
    assert found.b.tolist() == [[13.0, 11.0, 10.0], [3.0, 1.0, 0.0]]
    assert (found.dropped_seeds, found.dropped_prompts) == (1, 2)


def test_rows_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(ValueError, match="no seed in common"):
        in_common(frame([0], "pq", 0.0), frame([1], "pq", 0.0))
    with pytest.raises(ValueError, match="1 prompts have a value in all 2 seeds"):
        in_common(frame([0, 1], "pq", 0.0), frame([0, 1], "qr", 0.0))
