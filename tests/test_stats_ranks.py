"""Friedman, Nemenyi, Bonferroni-Dunn and critical differences: Demsar's answers and laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.ranks import critical_difference, friedman, nemenyi

# Demsar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets. In the row "voting"
# the paper ranks before it rounds: .9751, not .975.
DEMSAR = [
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
]  # fmt: skip


def test_friedman_of_demsar() -> None:
    found = friedman(DEMSAR, better="higher")
    assert found.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=0.0005)
    assert found.chi_squared == pytest.approx(9.28, abs=0.005)
    assert found.f == pytest.approx(3.69, abs=0.005)
    assert found.p_f < 0.05  # 3.69 is beyond the paper's critical 2.85 of F(3, 39)
    assert stats.f.ppf(0.95, 3, 39) == pytest.approx(2.85, abs=0.005)


def test_critical_differences_of_demsar() -> None:
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, level=0.90) == pytest.approx(1.12, abs=0.005)
    dunn = critical_difference(4, 14, kind="bonferroni-dunn")
    assert math.floor(100 * dunn) == 116  # the paper cuts 1.168 off


Q_05 = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
Q_05_DUNN = [1.960, 2.241, 2.394, 2.498, 2.576, 2.638, 2.690, 2.724, 2.773]


@pytest.mark.parametrize("methods", range(2, 11))
def test_critical_values_of_demsars_table_5(methods: int) -> None:
    unit = math.sqrt(methods * (methods + 1) / 6)
    # The paper divides a rounded studentised range by the root of 2: one unit of the third place.
    assert critical_difference(methods, 1) / unit == pytest.approx(Q_05[methods - 2], abs=0.0011)
    dunn = critical_difference(methods, 1, kind="bonferroni-dunn") / unit
    if methods != 9:  # the paper has 2.724 where the normal quantile is 2.734
        assert dunn == pytest.approx(Q_05_DUNN[methods - 2], abs=0.0006)


def test_nemenyi_and_the_critical_difference_are_one_test() -> None:
    far = critical_difference(4, 14)
    p = nemenyi([1.5, 1.5 + far, 2.0, 3.0], 14)
    assert p[0, 1] == pytest.approx(0.05, abs=1e-6)
    assert p == pytest.approx(p.T)
    assert np.diag(p) == pytest.approx(1.0)


def test_the_first_and_last_of_demsar_are_not_apart_after_nemenyi() -> None:
    found = friedman(DEMSAR, better="higher")
    assert nemenyi(found.mean_ranks, found.tasks).min() > 0.05


def test_friedman_without_ties_is_scipys() -> None:
    scores = np.random.default_rng(3).normal(size=(6, 5))
    found = friedman(scores, better="lower")
    oracle = stats.friedmanchisquare(*scores.T)
    assert found.chi_squared == pytest.approx(oracle.statistic)
    assert found.p == pytest.approx(oracle.pvalue)


def test_the_better_side_turns_the_ranks_round() -> None:
    scores = np.random.default_rng(4).normal(size=(5, 4))
    up, down = friedman(scores, better="higher"), friedman(scores, better="lower")
    assert [u + d for u, d in zip(up.mean_ranks, down.mean_ranks, strict=True)] == [5.0] * 4
    assert up.p == pytest.approx(down.p)
    assert friedman(scores[:, ::-1], better="higher").mean_ranks == up.mean_ranks[::-1]


def test_one_order_on_all_tasks_is_as_sure_as_can_be() -> None:
    found = friedman([[3.0, 2.0, 1.0]] * 4, better="higher")
    assert found.mean_ranks == (1.0, 2.0, 3.0)
    assert found.f == math.inf
    assert found.p_f == 0.0


def test_three_tasks_can_hardly_tell_four_methods_apart() -> None:
    """The sentence of the board: with three tasks mean ranks must differ by 2.7 of at most 3."""
    assert 2.6 < critical_difference(4, 3) < 3.0
    assert critical_difference(5, 2) > 4.0  # more than any two ranks can


@pytest.mark.parametrize("scores", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [1.0, 2.0]]])
def test_what_cannot_be_ranked_is_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="finite scores of 2 tasks and 2 methods"):
        friedman(scores, better="higher")


def test_a_critical_difference_needs_methods_and_tasks() -> None:
    with pytest.raises(ValueError, match="1 methods on 3 tasks"):
        critical_difference(1, 3)
    with pytest.raises(ValueError, match="2 methods on 0 tasks"):
        nemenyi([1.0, 2.0], 0)
