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
    assert min(sizes) > 0.041
    assert max(sizes) < 0.05


def test_two_runs_are_on_the_safe_side() -> None:
    sizes = [rejected(0.05, 1, ratio) for ratio in RATIOS]
    assert min(sizes) > 0.025
    assert max(sizes) < 0.05


@pytest.mark.parametrize(("df", "most"), [(4, 0.0066), (9, 0.005), (22, 0.005)])
def test_small_p_values_hold_where_runs_are_not_few(df: int, most: float) -> None:
    assert max(rejected(0.005, df, ratio) for ratio in RATIOS) < most


def test_small_p_values_do_not_hold_with_three_runs_alone() -> None:
    """Which is why a board draws on all its rows: `harness.stats.pooling`."""
    assert max(rejected(0.005, 2, ratio) for ratio in RATIOS) > 0.014


@pytest.mark.parametrize("df", [2, 4, 9])
@pytest.mark.parametrize("between_prompts", [0.01, 0.3, 3.0])
def test_the_floor_under_runs_costs_little(df: int, between_prompts: float) -> None:
    """Where runs add nothing to the residual, so that their mean square is the residual's."""
    residual = 1 / between_prompts
    assert 0.035 < rejected(0.05, df, residual, residual) < 0.05


def usual_form(level: float, df: int, runs: float, prompts: float) -> float:
    """The same share where variances are clipped at 0 and degrees of freedom are Satterthwaite's.

    Args:
        level: size that the test claims.
        df: degrees of freedom between runs.
        runs: expected mean square between runs, that of the residual being 1.
        prompts: the prompts' part.
    """
    found = runs * special.chdtri(df, 1 - QUANTILES) / df
    total = np.maximum(found, 1.0) + prompts
    by_satterthwaite = np.maximum(df * (total / found) ** 2, df)
    critical = -special.stdtrit(by_satterthwaite, level / 2) * np.sqrt(total)
    return float(np.mean(2 * special.ndtr(-critical / np.sqrt(runs + prompts))))


@pytest.mark.parametrize(
    ("df", "least", "most", "least_small", "most_small"),
    [
        (1, 0.021, 0.128, 0.0016, 0.0725),
        (2, 0.018, 0.078, 0.0011, 0.027),
        (4, 0.018, 0.058, 0.0009, 0.011),
        (9, 0.025, 0.052, 0.0010, 0.0063),
    ],
)
def test_the_usual_form_is_off_by_what_the_page_says(
    df: int, least: float, most: float, least_small: float, most_small: float
) -> None:
    grid = [(r, c) for r in 10.0 ** np.linspace(0, 3, 25) for c in (0, 0.1, 0.3, 1, 3, 10, 30)]
    sizes = [usual_form(0.05, df, r, c) for r, c in grid]
    assert (min(sizes), max(sizes)) == pytest.approx((least, most), abs=0.001)
    small = [usual_form(0.005, df, r, c) for r, c in grid]
    assert (min(small), max(small)) == pytest.approx((least_small, most_small), abs=0.0005)
