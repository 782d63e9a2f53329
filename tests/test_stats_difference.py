"""One method's mean and the difference of two: known answers, laws, corners, refusals."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from harness.stats.components import mean_squares, variance_of_mean
from harness.stats.difference import Estimate, difference, estimate
from harness.stats.power import minimum_detectable_effect, power_of_t_test

Values = npt.NDArray[np.float64]

# Darwin's maize, cross- less self-fertilised, eighths of an inch (Fisher 1935, section 17).
DARWIN = np.array([[49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]], dtype=float)


def numbers(found: Estimate) -> list[float]:
    """All but the seed sd: a root magnifies rounding, and its square is among the components."""
    return [
        x
        for part in (replace(found, seed_sd=None), found.components)
        if part is not None
        for x in astuple(part)
        if isinstance(x, float)
    ]


def example(seeds: int = 3, prompts: int = 40, seed: int = 7) -> tuple[Values, Values]:
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(50, 25, prompts)

    def runs(gain: float) -> Values:
        parts = rng.normal(gain, 3, (seeds, 1)), rng.normal(0, 10, prompts)
        return difficulty + parts[0] + parts[1] + rng.normal(0, 12, (seeds, prompts))

    return runs(3.0), runs(0.0)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Values, Values]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(2, 12)))
    cells = st.floats(-100, 100, allow_subnormal=False) | st.integers(0, 1).map(float)
    return draw(hnp.arrays(float, shape, elements=cells)), draw(
        hnp.arrays(float, shape, elements=cells)
    )


def test_one_seed_is_the_paired_t_test_of_darwins_maize() -> None:
    found = difference(DARWIN, np.zeros_like(DARWIN))
    assert found.value / found.standard_error == pytest.approx(2.148, abs=0.0005)
    assert found.p == pytest.approx(0.0497, abs=0.00005)
    oracle = stats.ttest_1samp(DARWIN[0], 0.0)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval()), rel=1e-12)
    assert (found.df, found.seeds, found.prompts) == (14.0, 1, 15)


def test_one_seed_speaks_of_prompts_only() -> None:
    found = difference(DARWIN, np.zeros_like(DARWIN))
    assert found.scope == "prompts only"
    assert found.seed_sd is None
    assert found.components is not None
    assert found.components.run is None
    assert difference(*example(seeds=2)).scope == "seeds and prompts"


def test_three_seeds_by_hand() -> None:
    # Runs -1, 0, 4 around their mean 1 on prompts 0, 2; no residual. MS_runs = 2 * 14 / 2 = 14;
    # MS_prompts = 3 * 2 / 1 = 6; variance (14 + 6) / 6. With x = 6 / 14 runs have
    # 2 (1 + 3 x^2 / (x + 3.5)) degrees of freedom, and prompts have 1.
    d = np.array([[-1.0], [0.0], [4.0]]) + np.array([-1.0, 1.0])
    found = difference(d, np.zeros_like(d))
    assert found.value == pytest.approx(1.0)
    assert found.standard_error == pytest.approx(math.sqrt(20 / 6))
    x = 6 / 14
    df = 1 / (1 / (2 * (1 + 3 * x**2 / (x + 3.5))) + (6 / 20) ** 2)
    assert found.df == pytest.approx(df)
    assert found.seed_sd == pytest.approx(math.sqrt(7))
    t = stats.t(df=df)
    assert found.p == pytest.approx(2 * t.sf(1 / math.sqrt(20 / 6)))
    assert found.high - found.value == pytest.approx(t.ppf(0.975) * math.sqrt(20 / 6))


def test_where_prompts_do_not_matter_it_is_the_t_test_over_runs() -> None:
    by_run = np.array([1.0, 2.5, 0.5, 3.0, 2.0])
    found = difference(np.tile(by_run[:, None], 60), np.zeros((5, 60)))
    oracle = stats.ttest_1samp(by_run, 0.0)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert found.df == pytest.approx(4.0)


def test_where_runs_do_not_matter_it_is_the_t_test_over_prompts() -> None:
    found = difference(np.tile(DARWIN, (4, 1)), np.zeros((4, 15)))
    oracle = stats.ttest_1samp(DARWIN[0], 0.0)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert found.seed_sd == pytest.approx(0.0, abs=1e-9)


def test_the_interval_is_wider_at_a_higher_level_and_p_is_the_same() -> None:
    a, b = example()
    at_90, at_99 = difference(a, b, level=0.90), difference(a, b, level=0.99)
    assert at_99.low < at_90.low < at_90.high < at_99.high
    assert at_99.p == at_90.p
    assert at_99.mde > at_90.mde


def test_the_interval_at_one_less_p_just_touches_zero() -> None:
    a, b = example()
    p = difference(a, b).p
    assert p is not None
    found = difference(a, b, level=1 - p)
    assert min(abs(found.low), abs(found.high)) == pytest.approx(0.0, abs=1e-9)


def test_mde_is_that_of_runs_that_differ_as_much_as_their_median_says() -> None:
    a, b = example()
    squares = mean_squares(a - b)
    usual = replace(squares, between_runs=squares.between_runs / (stats.chi2(2).median() / 2))
    variance, df = variance_of_mean(usual)
    found = difference(a, b)
    assert found.mde == pytest.approx(minimum_detectable_effect(math.sqrt(variance), df), rel=1e-9)
    assert found.mde > minimum_detectable_effect(found.standard_error, found.df)


def test_mde_of_one_seed_is_the_effect_that_is_found_four_times_in_five() -> None:
    found = difference(DARWIN, np.zeros_like(DARWIN))
    assert power_of_t_test(found.mde / found.standard_error, found.df) == pytest.approx(0.8)


def test_a_mean_has_an_interval_and_no_p() -> None:
    found = estimate(example()[0])
    assert found.p is None
    assert found.low < found.value < found.high


def test_the_difference_is_sharper_than_the_two_means() -> None:
    a, b = example()
    apart = math.hypot(estimate(a).standard_error, estimate(b).standard_error)
    assert difference(a, b).standard_error < 0.8 * apart


def test_what_two_runs_of_one_seed_share_cancels() -> None:
    a, b = example()
    shared = np.array([[40.0], [-25.0], [3.0]])
    assert numbers(difference(a + shared, b + shared)) == pytest.approx(numbers(difference(a, b)))
    assert difference(a + shared, b).standard_error > 5 * difference(a, b).standard_error


@given(pairs())
@settings(deadline=None)
def test_swapping_turns_the_sign_and_nothing_else(both: tuple[Values, Values]) -> None:
    a, b = both
    there, back = difference(a, b), difference(b, a)
    assert there.value == -back.value
    assert (there.low, there.high) == (-back.high, -back.low)
    assert (there.p, there.df, there.mde) == (back.p, back.df, back.mde)


@given(pairs())
@settings(deadline=None)
def test_p_and_interval_agree_and_all_is_finite(both: tuple[Values, Values]) -> None:
    found = difference(*both)
    assert all(math.isfinite(x) for x in numbers(found))
    assert found.p is not None
    assert 0.0 <= found.p <= 1.0
    assert found.low <= found.value <= found.high
    if found.standard_error > 0.0:
        assert (found.p < 0.05) == (found.low > 0.0 or found.high < 0.0)


@given(pairs(), st.floats(-50, 50), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_a_common_shift_and_any_order_of_seeds_or_prompts_change_nothing(
    both: tuple[Values, Values], shift: float, seed: int
) -> None:
    a, b = (np.round(x, 3) for x in both)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(a.shape[0]), rng.permutation(a.shape[1])
    was, now = difference(a, b), difference(a + shift, b + shift)
    assert numbers(now) == pytest.approx(numbers(was), rel=1e-6, abs=1e-9)
    moved = difference(a[rows][:, columns], b[rows][:, columns])
    assert numbers(moved) == pytest.approx(numbers(was), rel=1e-9, abs=1e-12)


def test_order_changes_nothing_beyond_the_twelfth_digit() -> None:
    a, b = example(seeds=5, prompts=200)
    was = difference(a, b)
    moved = difference(a[::-1, ::-1], b[::-1, ::-1])
    assert numbers(moved) == pytest.approx(numbers(was), rel=1e-12)


@given(pairs(), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_another_unit_scales_the_estimate_and_keeps_p(
    both: tuple[Values, Values], unit: float
) -> None:
    a, b = (np.round(x, 3) for x in both)
    was, now = difference(a, b), difference(a * unit, b * unit)
    assert now.p == pytest.approx(was.p, rel=1e-6, abs=1e-12)
    assert now.standard_error == pytest.approx(was.standard_error * unit, rel=1e-6, abs=1e-9)
    assert now.mde == pytest.approx(was.mde * unit, rel=1e-6, abs=1e-9)


def test_equal_inputs_give_equal_bits_and_stay_as_they_were() -> None:
    a, b = example(seeds=5, prompts=805)
    kept = a.copy(), b.copy()
    assert difference(a, b) == difference(np.asfortranarray(a), b.T.copy().T)
    assert np.array_equal(a, kept[0])
    assert np.array_equal(b, kept[1])


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_identical_runs_do_not_differ(seeds: int) -> None:
    a, _ = example(seeds=seeds)
    found = difference(a, a.copy())
    assert (found.value, found.low, found.high, found.standard_error) == (0.0, 0.0, 0.0, 0.0)
    assert (found.p, found.mde) == (1.0, 0.0)


def test_rounding_is_not_taken_for_a_difference() -> None:
    a = np.full((3, 10), 0.1) + np.full((3, 10), 0.2)
    found = difference(a, np.full((3, 10), 0.3))
    assert (found.value, found.p) == (0.0, 1.0)


def test_a_difference_that_never_varies_is_as_sure_as_its_prompts_are_many() -> None:
    found = difference(np.full((2, 4), 0.75), np.full((2, 4), 0.25))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.p == 2.0**-3
    assert difference(np.ones((3, 200)), np.zeros((3, 200))).p == pytest.approx(0.0, abs=1e-50)


def test_rounding_is_not_taken_for_variance() -> None:
    b = np.random.default_rng(0).random((2, 4))
    a = b + 0.1
    assert np.ptp(a - b) > 0.0
    found = difference(a, b)
    assert found.value == pytest.approx(0.1)
    assert (found.standard_error, found.p) == (0.0, 2.0**-3)


def test_a_prompt_missing_in_any_run_is_dropped_and_counted() -> None:
    a, b = example(seeds=3, prompts=40)
    a[1, 4] = b[2, 9] = b[0, 9] = np.nan
    found = difference(a, b)
    kept = [i for i in range(40) if i not in (4, 9)]
    assert (found.prompts, found.dropped_prompts) == (38, 2)
    assert numbers(found) == numbers(difference(a[:, kept], b[:, kept]))
    assert estimate(b).dropped_prompts == 1


def test_one_unbroken_prompt_is_refused() -> None:
    a, b = example(seeds=2, prompts=3)
    a[0, 0] = b[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 3 prompts have a value in all 2 runs"):
        difference(a, b)


def test_a_run_without_values_is_named() -> None:
    a, b = example()
    a[1] = np.nan
    with pytest.raises(ValueError, match="seed row 1 has no value at all"):
        difference(a, b)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.zeros((2, 3)), np.zeros((3, 3)), "2 x 3 and 3 x 3"),
        (np.zeros((2, 3)), np.zeros((2, 4)), "2 x 3 and 2 x 4"),
        (np.zeros((1, 3)), np.zeros((2, 3)), "the same seeds"),
        (np.zeros(3), np.zeros(3), "1 axes"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "no values"),
        (np.zeros((3, 0)), np.zeros((3, 0)), "no values"),
        (np.zeros((3, 1)), np.zeros((3, 1)), "at least 2"),
        (np.full((2, 3), -np.inf), np.zeros((2, 3)), "seed row 0, prompt column 0 holds -inf"),
        (np.zeros((2, 3)), np.full((2, 3), 1e200), "must be finite"),
    ],
)
def test_what_is_no_pair_of_tables_is_refused(a: Values, b: Values, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        difference(a, b)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_a_level_outside_its_range_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        estimate(np.eye(3), level=level)


def test_wins_as_truth_values_are_numbers_too() -> None:
    wins = np.random.default_rng(5).random((3, 30)) < 0.6
    assert estimate(wins) == estimate(wins.astype(float))
