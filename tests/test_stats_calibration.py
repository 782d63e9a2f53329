"""How often a test of `calibrated` rejects a true null, by integration: no chance is involved.

On many prompts the mean is normal, the prompts' part of its variance is known, and the mean square
between runs is a multiple of chi-squared; what a test rejects is then an integral over that.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from harness.stats.components import calibrated

QUANTILES = (np.arange(4000) + 0.5) / 4000
RATIOS = 10.0 ** np.linspace(-2, 3, 41)  # mean square between runs over the prompts' part
MANY = 10**9


def rejected(level: float, df: int, ratio: float, residual: float = 0.0) -> float:
    """The share of true nulls that a test at `level` rejects.

    Args:
        level: size that the test claims.
        df: degrees of freedom between runs.
        ratio: expected mean square between runs over the prompts' part.
        residual: the residual's mean square, likewise over the prompts' part.
    """
    runs = ratio * special.chdtri(df, 1 - QUANTILES) / df
    one = np.ones_like(runs)
    total, found = calibrated(runs, one + residual, residual * one, float(df), MANY)
    critical = -special.stdtrit(found, level / 2) * np.sqrt(total)
    return float(np.mean(2 * special.ndtr(-critical / np.sqrt(ratio + 1))))


@pytest.mark.parametrize("df", [2, 3, 4, 5, 7, 9, 14, 22, 50])
def test_true_nulls_are_rejected_in_four_to_five_of_a_hundred(df: int) -> None:
    sizes = [rejected(0.05, df, ratio) for ratio in RATIOS]
    assert min(sizes) > 0.042
    assert max(sizes) < (0.0515 if df == 2 else 0.0505)


def test_two_runs_are_on_the_safe_side() -> None:
    sizes = [rejected(0.05, 1, ratio) for ratio in RATIOS]
    assert min(sizes) > 0.025
    assert max(sizes) < 0.05


@pytest.mark.parametrize(("df", "most"), [(4, 0.0068), (9, 0.00505), (22, 0.00505)])
def test_small_p_values_hold_where_runs_are_not_few(df: int, most: float) -> None:
    assert max(rejected(0.005, df, ratio) for ratio in RATIOS) < most


def test_small_p_values_do_not_hold_with_three_runs_alone() -> None:
    """Which is why a board draws on all its rows: `harness.stats.pooling`."""
    assert max(rejected(0.005, 2, ratio) for ratio in RATIOS) > 0.015


@pytest.mark.parametrize("df", [2, 4, 9])
@pytest.mark.parametrize("between_prompts", [0.01, 0.3, 3.0])
def test_the_floor_under_runs_costs_little(df: int, between_prompts: float) -> None:
    """Where runs add nothing to the residual, so that their mean square is the residual's."""
    residual = 1 / between_prompts
    assert 0.035 < rejected(0.05, df, residual, residual) < 0.0515
