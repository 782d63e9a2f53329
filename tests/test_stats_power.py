"""Power, detectable effects, and how many seeds or prompts they take."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from harness.stats.components import Components
from harness.stats.difference import difference
from harness.stats.power import (
    design,
    minimum_detectable_effect,
    power_of_t_test,
    prompts_needed,
    seeds_needed,
)


@pytest.mark.parametrize(("d", "n", "power"), [(0.2, 20, 0.1359563), (1.0, 30, 0.9995636)])
def test_power_is_that_of_r(d: float, n: int, power: float) -> None:
    assert power_of_t_test(d * math.sqrt(n), n - 1) == pytest.approx(power, abs=5e-8)


@pytest.mark.parametrize("n", [10, 200, 805])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_detectable_effect_is_that_of_statsmodels(n: int, power: float, level: float) -> None:
    sd = 12.0
    found = minimum_detectable_effect(sd / math.sqrt(n), n - 1, power=power, level=level)
    back = TTestPower().power(found / sd, n, 1 - level, alternative="two-sided")
    assert back == pytest.approx(power, abs=1e-8)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("df", [1.0, 1.3, 2.0, 4.7, 100.0])
def test_power_is_that_of_a_normal_over_its_own_spread(df: float, level: float) -> None:
    # Where statsmodels gives NaN: integrated over the spread, not over the normal.
    critical = stats.t.ppf(0.5 + level / 2, df)
    for shift in (0.5, 2.8, 8.9, 9.1, 16.0, 80.0):

        def given_spread(u: float, shift: float = shift) -> float:
            edge = critical * math.sqrt(stats.chi2.ppf(u, df) / df)
            return float(stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift))

        power = integrate.quad(given_spread, 0, 1, limit=500, epsabs=1e-8)[0]
        assert power_of_t_test(shift, df, level=level) == pytest.approx(power, abs=1e-5)


@pytest.mark.parametrize("shift", [0.0, 7.9, 8.1, 16.0, 50.0, 1000.0])
@pytest.mark.parametrize("df", [1.0, 1.7, 30.0, 1e8])
def test_power_is_a_probability_at_every_distance(shift: float, df: float) -> None:
    power = power_of_t_test(shift, df)
    assert 0.05 - 1e-9 <= power <= 1.0
    assert power == power_of_t_test(-shift, df)
    assert power_of_t_test(0.0, df) == pytest.approx(0.05)


def test_detectable_effect_with_many_degrees_of_freedom_is_the_familiar_2_8() -> None:
    assert minimum_detectable_effect(1.0, 1e7) == pytest.approx(1.959964 + 0.841621, abs=1e-4)
    assert minimum_detectable_effect(0.0, 3.0) == 0.0
    assert minimum_detectable_effect(1.0, 3.0, power=0.04) == 0.0


@pytest.mark.parametrize(
    ("standard_error", "df", "power", "level", "words"),
    [
        (-1.0, 3.0, 0.8, 0.95, "not negative"),
        (math.nan, 3.0, 0.8, 0.95, "finite"),
        (1.0, 0.0, 0.8, 0.95, "degrees of freedom"),
        (1.0, math.nan, 0.8, 0.95, "degrees of freedom"),
        (1.0, 3.0, 1.0, 0.95, "power must lie"),
        (1.0, 3.0, 0.0, 0.95, "power must lie"),
        (1.0, 3.0, 0.8, 1.0, "level must lie"),
    ],
)
def test_what_has_no_detectable_effect_is_refused(
    standard_error: float, df: float, power: float, level: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        minimum_detectable_effect(standard_error, df, power=power, level=level)


def test_prompts_needed_with_one_seed_is_statsmodels_sample_size() -> None:
    # Miller 2024 (arXiv:2411.00640): variance 1/9, effect 0.03, 969 by the normal formula.
    components = Components(run=None, prompt=1 / 9, residual=0.0)
    found = prompts_needed(0.03, components, seeds=1)
    wanted = TTestPower().solve_power(0.03 / math.sqrt(1 / 9), power=0.8, alpha=0.05)
    assert found == math.ceil(wanted)
    assert found is not None
    assert 0 <= found - 969 <= 3


def test_a_design_of_many_seeds_by_hand() -> None:
    components = Components(run=2.0, prompt=900.0, residual=800.0)
    standard_error, df = design(components, 4, 200)
    assert standard_error**2 == pytest.approx(2 / 4 + 900 / 200 + 800 / 800)
    runs, prompts = 800 + 200 * 2, 800 + 4 * 900
    x = (prompts - 800) / runs
    of_runs, share = 3 * (1 + 3 * x**2 / (x + 7 / 3)), x / (1 + x)
    assert df == pytest.approx(1 / (1 / of_runs + share**2 / 199))


def test_a_design_of_one_seed_covers_prompts_only() -> None:
    standard_error, df = design(Components(run=2.0, prompt=900.0, residual=800.0), 1, 200)
    assert standard_error**2 == pytest.approx(1700 / 200)
    assert df == 199.0


@given(
    st.floats(0.0, 9.0),
    st.floats(0.0, 2000.0),
    st.floats(1.0, 2000.0),
    st.floats(0.5, 20.0),
    st.sampled_from([50, 200, 805]),
)
@settings(deadline=None, max_examples=60)
def test_seeds_needed_are_enough_and_one_less_is_not(
    run: float, prompt: float, residual: float, effect: float, prompts: int
) -> None:
    components = Components(run, prompt, residual)

    def seen(seeds: int) -> float:
        return minimum_detectable_effect(*design(components, seeds, prompts))

    found = seeds_needed(effect, components, prompts=prompts)
    if found is None:
        assert seen(10**7) > effect * 0.999
    else:
        assert seen(found) <= effect
        assert found == 2 or seen(found - 1) > effect


@given(
    st.floats(0.0, 9.0),
    st.floats(0.0, 2000.0),
    st.floats(1.0, 2000.0),
    st.floats(0.5, 20.0),
    st.sampled_from([1, 2, 3, 5]),
)
@settings(deadline=None, max_examples=60)
def test_prompts_needed_are_enough_and_one_less_is_not(
    run: float, prompt: float, residual: float, effect: float, seeds: int
) -> None:
    components = Components(run, prompt, residual)

    def seen(prompts: int) -> float:
        return minimum_detectable_effect(*design(components, seeds, prompts))

    found = prompts_needed(effect, components, seeds=seeds)
    if found is None:
        assert seen(10**7) > effect * 0.999
    else:
        assert seen(found) <= effect
        assert found == 2 or seen(found - 1) > effect


@pytest.mark.parametrize("seeds", range(2, 40))
@pytest.mark.parametrize("run", [0.0, 0.5, 8.0])
def test_another_seed_never_hides_an_effect(seeds: int, run: float) -> None:
    components = Components(run, 300.0, 900.0)
    now, more = design(components, seeds, 200), design(components, seeds + 1, 200)
    assert minimum_detectable_effect(*more) < minimum_detectable_effect(*now)


def test_more_seeds_do_not_help_where_prompts_are_the_limit() -> None:
    components = Components(run=1.0, prompt=900.0, residual=400.0)
    assert seeds_needed(1.0, components, prompts=100) is None
    assert prompts_needed(1.0, components, seeds=3) is None
    assert prompts_needed(1.0, Components(0.01, 900.0, 400.0), seeds=5) is not None


def test_the_needs_of_an_estimate_follow_from_its_own_components() -> None:
    rng = np.random.default_rng(11)
    d = rng.normal(0, 4, (4, 1)) + rng.normal(0, 10, 200) + rng.normal(0, 30, (4, 200))
    found = difference(d, np.zeros_like(d))
    assert found.components is not None
    assert seeds_needed(found.mde * 1.02, found.components, prompts=200) == 4
    more = seeds_needed(found.mde * 0.8, found.components, prompts=200)
    assert more is not None
    assert more > 4


@pytest.mark.parametrize("effect", [0.0, math.inf, math.nan])
def test_no_effect_needs_nothing(effect: float) -> None:
    with pytest.raises(ValueError, match="finite and not 0"):
        seeds_needed(effect, Components(1.0, 1.0, 1.0), prompts=10)


def test_one_run_cannot_say_how_many_seeds_are_needed() -> None:
    with pytest.raises(ValueError, match="at least two seeds"):
        seeds_needed(1.0, Components(None, 1.0, 0.0), prompts=10)


@pytest.mark.parametrize(("seeds", "prompts"), [(0, 10), (3, 1)])
def test_a_design_without_seeds_or_prompts_is_refused(seeds: int, prompts: int) -> None:
    with pytest.raises(ValueError, match="at least 1 seed and 2 prompts"):
        design(Components(1.0, 1.0, 1.0), seeds, prompts)
