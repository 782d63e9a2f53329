"""Holm and Benjamini-Hochberg: known answers and laws."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from harness.stats.corrections import benjamini_hochberg, holm

CORRECTIONS = {"holm": holm, "fdr_bh": benjamini_hochberg}

# The 10 values of statsmodels' test_multi.py, whose adjusted values come from R's multtest.
P = [
    0.838541367553, 0.642193923795, 0.680845947633, 0.967833824309, 0.71626938238,
    0.177096952723, 5.23656777208e-005, 0.0202732688798, 0.00028140506198, 0.0149877310796,
]  # fmt: skip

several = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


def test_holm_is_that_of_r() -> None:
    found = sorted(holm(P))
    assert found[:3] == pytest.approx([5.2366e-4, 2.5326e-3, 0.1199], rel=1e-3)


def test_benjamini_hochberg_is_that_of_r() -> None:
    found = sorted(benjamini_hochberg(P))
    assert found[:3] == pytest.approx([5.2366e-4, 1.4070e-3, 0.04996], rel=1e-3)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_both_agree_with_statsmodels(name: str) -> None:
    rng = np.random.default_rng(4)
    cases = [P, *(list(rng.beta(0.4, 1.0, size)) for size in (1, 2, 5, 30))]
    cases.append([0.01, 0.01, 0.04, 0.04, 1.0, 0.0])
    for p in cases:
        assert CORRECTIONS[name](p) == pytest.approx(multipletests(p, method=name)[1], rel=1e-12)


@pytest.mark.parametrize("name", CORRECTIONS)
@given(several)
def test_adjusting_never_lowers_a_p_and_keeps_the_order(name: str, p: list[float]) -> None:
    adjusted = CORRECTIONS[name](p)
    assert all(raw <= new <= 1.0 for raw, new in zip(p, adjusted, strict=True))
    by_raw = [new for _, new in sorted(zip(p, adjusted, strict=True))]
    assert by_raw == sorted(by_raw)


@pytest.mark.parametrize("name", CORRECTIONS)
@given(several, st.randoms(use_true_random=False))
def test_each_p_keeps_its_own_answer_in_any_order(
    name: str, p: list[float], random: Random
) -> None:
    places = list(range(len(p)))
    random.shuffle(places)
    adjusted = CORRECTIONS[name](p)
    assert CORRECTIONS[name]([p[i] for i in places]) == [adjusted[i] for i in places]


@given(several)
def test_holm_is_never_more_lenient(p: list[float]) -> None:
    strict, lenient = holm(p), benjamini_hochberg(p)
    assert all(s >= b * (1 - 1e-12) for s, b in zip(strict, lenient, strict=True))


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_single_test_needs_no_correction_and_none_is_fine(name: str) -> None:
    assert CORRECTIONS[name]([0.03]) == [0.03]
    assert CORRECTIONS[name]([]) == []
    assert CORRECTIONS[name]([0.0, 0.0]) == [0.0, 0.0]


@pytest.mark.parametrize("name", CORRECTIONS)
@pytest.mark.parametrize("wrong", [math.nan, -0.01, 1.01, math.inf])
def test_what_is_no_p_is_refused_by_its_place(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=r"p value 1 is .*must lie in \[0, 1\]"):
        CORRECTIONS[name]([0.5, wrong])


@pytest.mark.parametrize("name", CORRECTIONS)
def test_plain_numbers_come_out(name: str) -> None:
    assert all(type(x) is float for x in CORRECTIONS[name](list(np.array(P))))
