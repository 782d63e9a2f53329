"""Published answers that no other file of tests has: power, sample size, proportions, clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint, proportion_effectsize

from harness.stats.agreement import clustered_mean
from harness.stats.components import mean_squares, variance_components
from harness.stats.corrections import benjamini_yekutieli
from harness.stats.power import minimum_detectable_effect, power_of_t_test
from harness.stats.proportions import cohens_h, wilson_interval


@pytest.mark.parametrize(("size", "n", "power"), [(0.2, 20, 0.1359563), (1.0, 30, 0.9995636)])
def test_power_of_the_t_test_is_that_of_rs_pwr(size: float, n: int, power: float) -> None:
    """One sample, or pairs, two-sided at 5 %."""
    assert power_of_t_test(size * math.sqrt(n), n - 1) == pytest.approx(power, abs=5e-8)


def test_two_groups_of_64_find_half_a_standard_deviation() -> None:
    n = 63.76561  # R's pwr: 80 % power
    found = minimum_detectable_effect(math.sqrt(2 / n), 2 * n - 2)
    assert found == pytest.approx(0.5, abs=5e-7)


def test_millers_sample_size() -> None:
    """Variance of paired differences 1/9, effect 0.03: 969 questions (formula 968.997)."""
    assert minimum_detectable_effect(math.sqrt(1 / 9 / 968.997), 1e12) == pytest.approx(
        0.03, abs=5e-7
    )


def test_millers_standard_error_of_a_share() -> None:
    """65.5 % of 5,000 questions: 0.7 %."""
    right = np.repeat([1.0, 0.0], [3275, 1725])
    found = clustered_mean(list(right))
    assert found is not None
    assert found.value == 0.655
    assert found.standard_error == pytest.approx(0.007, abs=0.0005)
    assert found.standard_error == pytest.approx(math.sqrt(0.655 * 0.345 / 4999), rel=1e-9)


def test_millers_clustered_standard_error() -> None:
    """Equation 4: the usual variance, plus the products of other members of a cluster."""
    rng = np.random.default_rng(1)
    x, clusters = rng.normal(size=30), [str(i // 4) for i in range(30)]
    d = x - x.mean()
    same = np.equal.outer(clusters, clusters) & ~np.eye(30, dtype=bool)
    identity = (d**2).sum() / 30**2 + (np.outer(d, d)[same]).sum() / 30**2
    found = clustered_mean(list(x), clusters)
    assert found is not None
    assert found.standard_error is not None
    alone = found.standard_error * math.sqrt(7 / 8)  # of 8 clusters; Miller has no such factor
    assert alone**2 == pytest.approx(identity)
    groups = np.unique(clusters, return_inverse=True)[1]
    fit = OLS(x, np.ones(30)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    assert alone == pytest.approx(fit.bse[0])


def test_wilsons_interval() -> None:
    found = wilson_interval(19, 38)
    assert found == pytest.approx((0.348499283643951, 0.651500716356049), rel=1e-12)
    assert wilson_interval(0, 20) == pytest.approx(
        proportion_confint(0, 20, method="wilson"), abs=1e-12
    )
    assert wilson_interval(3, 20, level=0.9) == pytest.approx(
        proportion_confint(3, 20, alpha=0.1, method="wilson")
    )


def test_cohens_h() -> None:
    assert cohens_h(0.5, 0.4) == pytest.approx(0.2013579207903309, rel=1e-12)
    assert cohens_h(0.9, 0.2) == pytest.approx(proportion_effectsize(0.9, 0.2))


def test_benjamini_yekutieli_of_r() -> None:
    p = [0.838541367553, 0.642193923795, 0.680845947633, 0.967833824309, 0.71626938238,
         0.177096952723, 5.23656777208e-005, 0.0202732688798, 0.00028140506198,
         0.0149877310796]  # fmt: skip
    assert min(benjamini_yekutieli(p)) == pytest.approx(1.5338e-3, rel=5e-5)


def test_intraclass_correlations_of_shrout_and_fleiss() -> None:
    """ICC(1), ICC(2,1) and ICC(3,1): .17, .29, .71."""
    judged = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    squares = mean_squares(np.array(judged).T)
    parts = variance_components(squares)
    assert parts.run is not None
    within = (3 * squares.between_runs + 15 * squares.residual) / 18
    one_way = (squares.between_prompts - within) / (squares.between_prompts + 3 * within)
    random = parts.prompt / (parts.prompt + parts.run + parts.residual)
    fixed = parts.prompt / (parts.prompt + parts.residual)
    assert [one_way, random, fixed] == pytest.approx([0.17, 0.29, 0.71], abs=0.006)


def test_shares_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="got 5 of 4"):
        wilson_interval(5, 4)
    with pytest.raises(ValueError, match="got 0 of 0"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        cohens_h(1.5, 0.2)
