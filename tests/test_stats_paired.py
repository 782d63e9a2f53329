"""Sign flips, McNemar and signed ranks: known answers, laws, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as oracle

from harness.stats.paired import mcnemar, sign_flip, signed_rank

# Darwin's maize, cross- less self-fertilised, eighths of an inch (Fisher 1935, section 17).
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_sign_flips_of_darwins_maize_are_fishers() -> None:
    found = sign_flip(DARWIN)
    assert found.p == 1726 / 32768
    assert found.exact
    assert found.statistic == pytest.approx(20.93, abs=0.005)


def test_signed_ranks_of_darwins_maize() -> None:
    found = signed_rank(DARWIN)
    assert (found.statistic, found.p, found.exact) == (24.0, 0.041259765625, True)


def test_signed_ranks_with_sizes_in_common_are_asymptotic() -> None:
    found = signed_rank([1.0, -1.0, 2.0, 3.0, 5.0, 5.0, 8.0, 0.0])
    assert not found.exact
    assert 0.0 < found.p < 1.0


@pytest.mark.parametrize(
    ("how", "statistic", "p"),
    [("corrected", 20.67222, 5.450095e-06), ("plain", 21.35556, 3.815136e-06)],
)
def test_mcnemar_of_r(how: str, statistic: float, p: float) -> None:
    found = mcnemar(121, 59, how=how)  # type: ignore[arg-type]
    assert found.statistic == pytest.approx(statistic, abs=5e-6)
    assert found.p == pytest.approx(p, rel=2e-7)


def test_exact_mcnemar_of_vassar() -> None:
    assert mcnemar(121, 59).p == pytest.approx(4e-6, abs=5e-7)
    assert mcnemar(30, 60).p == pytest.approx(0.00206, abs=5e-6)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels(b: int, c: int) -> None:
    table = [[7, b], [c, 11]]
    assert mcnemar(b, c).p == pytest.approx(oracle(table, exact=True).pvalue, abs=1e-12)
    assert mcnemar(b, c).p == mcnemar(c, b).p
    if b + c and b != c:
        for how, corrected in (("corrected", True), ("plain", False)):
            found = mcnemar(b, c, how=how)  # type: ignore[arg-type]
            wanted = oracle(table, exact=False, correction=corrected)
            assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)


def test_no_prompt_that_differs_says_nothing() -> None:
    assert mcnemar(0, 0).p == mcnemar(0, 0, how="corrected").p == 1.0
    assert sign_flip([0.0, 0.0]).p == 1.0


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=10))
def test_sign_flips_are_scipys(values: list[int]) -> None:
    def mean(x: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.mean(axis=axis)

    wanted = stats.permutation_test(
        (np.array(values, float),), mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(values).p == pytest.approx(wanted.pvalue, abs=1e-12)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), st.floats(0.1, 10))
def test_sign_flips_know_neither_unit_nor_side(values: list[float], unit: float) -> None:
    x = np.round(values, 3)
    p = sign_flip(x).p
    assert sign_flip(-x).p == p
    assert sign_flip(unit * x).p == pytest.approx(p, abs=1e-12)
    assert sign_flip([*x, 0.0, 0.0]).p == p


def test_drawn_signs_come_near_those_of_all() -> None:
    x = np.random.default_rng(2).normal(0.45, 1, 20)
    more = np.concatenate([x, [1e-12]])  # one more, that decides nothing
    drawn = sign_flip(more, np.random.default_rng(3), draws=40_000)
    assert not drawn.exact
    assert drawn.p == pytest.approx(sign_flip(x).p, abs=0.005)


def test_drawn_signs_are_those_of_the_generator_and_never_say_zero() -> None:
    x = np.random.default_rng(1).normal(3, 1, 50)
    once, again = (sign_flip(x, np.random.default_rng(9), draws=999) for _ in range(2))
    assert once == again
    assert once.p == 1 / 1000


def test_sign_flips_reject_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    p = [sign_flip(rng.standard_t(2, 12)).p for _ in range(2000)]
    assert 0.035 < np.mean(np.array(p) <= 0.05) < 0.065


def test_what_cannot_be_tested_is_refused() -> None:
    for values in ([], [1.0, np.nan], [np.inf]):
        with pytest.raises(ValueError, match="finite differences"):
            sign_flip(values)
    with pytest.raises(ValueError, match="21 differences have too many signs"):
        sign_flip(np.arange(1.0, 22.0))
    with pytest.raises(ValueError, match="not negative, got -1 and 3"):
        mcnemar(-1, 3)
    with pytest.raises(ValueError, match="other than 0"):
        signed_rank([0.0, 0.0])
