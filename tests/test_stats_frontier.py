"""Reward at an equal KL and the area below a frontier: by hand, by derivatives, by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats.difference import difference, estimate
from harness.stats.frontier import Points, area, common_range, reward_at


def flat(kl: list[float], reward: list[float], shape: tuple[int, int] = (2, 3)) -> Points:
    """Settings whose cells are all alike."""
    return Points.of([np.full(shape, x) for x in kl], [np.full(shape, x) for x in reward])


def random(seed: int, settings: int = 4, seeds: int = 3, prompts: int = 50) -> Points:
    rng = np.random.default_rng(seed)
    beta = np.sort(rng.uniform(1, 20, settings))
    shape = (seeds, prompts)
    kl = [b + rng.normal(0, 0.05 * b, (seeds, 1)) + rng.normal(0, 0.3 * b, shape) for b in beta]
    level = 2 * np.sqrt(beta)
    reward = [r + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 1, shape) for r in level]
    return Points.of(kl, reward)


def test_between_two_settings_by_hand() -> None:
    points = flat([4.0, 1.0, 2.0], [5.0, 1.0, 3.0])
    assert reward_at(points, 1.5).mean() == pytest.approx(2.0)
    assert reward_at(points, 3.0).mean() == pytest.approx(4.0)
    for kl, reward in ((1.0, 1.0), (2.0, 3.0), (4.0, 5.0)):
        assert reward_at(points, kl).mean() == pytest.approx(reward)


def test_areas_by_hand() -> None:
    points = flat([4.0, 1.0, 2.0], [5.0, 1.0, 3.0])
    assert area(points, 1.0, 4.0).mean() == pytest.approx(2.0 + 8.0)
    assert area(points, 1.5, 3.0).mean() == pytest.approx(0.5 * 2.5 + 3.5)
    assert area(points, 2.5, 3.5).mean() == pytest.approx(4.0)


def test_settings_of_one_kl_are_one_point() -> None:
    points = flat([1.0, 2.0, 2.0], [1.0, 3.0, 5.0])
    assert reward_at(points, 2.0).mean() == pytest.approx(4.0)
    assert reward_at(points, 1.5).mean() == pytest.approx(2.5)


@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=40)
def test_influences_are_derivatives(seed: int, where: float) -> None:
    """To first order the figure is the mean of influences whose points stay where they were."""
    points = random(seed, seeds=2, prompts=3)
    low, high = points.range
    kl = low + where * (high - low)
    rng = np.random.default_rng(seed)
    weights = 1 + 1e-6 * rng.normal(size=points.kl.shape[1:])  # cells drawn a little more or less
    weights /= weights.mean()
    again = Points(points.kl * weights, points.reward * weights)
    for figure in (
        lambda p: reward_at(p, kl),
        lambda p: area(p, low + 0.2 * (kl - low), kl),
    ):
        change = float(figure(again).mean() - figure(points).mean())
        assert change == pytest.approx(float((figure(points) * (weights - 1)).mean()), abs=1e-9)


def test_an_area_is_the_integral_of_the_reward() -> None:
    points = random(3)
    low, high = points.range
    grid = np.linspace(low, high, 4001)
    rewards = [reward_at(points, float(k)).mean() for k in grid]
    assert area(points, low, high).mean() == pytest.approx(np.trapezoid(rewards, grid), rel=1e-6)


def test_a_better_method_is_better_at_every_kl_and_in_area() -> None:
    points = random(4)
    better = Points(points.kl, points.reward + 1.0)
    low, high = common_range([points, better])
    found = difference(area(better, low, high), area(points, low, high))
    assert found.value == pytest.approx(high - low)
    middle = (low + high) / 2
    assert difference(reward_at(better, middle), reward_at(points, middle)).value == pytest.approx(
        1
    )


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_at_a_kl_hold_the_truth(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    beta, shape = np.array([2.0, 5.0, 9.0, 14.0]), (seeds, 100)
    held = {"at": [], "area": []}
    for _ in range(1000):
        kl = [b + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 1, shape) for b in beta]
        reward = [3 * b + rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 2, shape) for b in beta]
        points = Points.of(kl, reward)
        at, below = estimate(reward_at(points, 7.0)), estimate(area(points, 4.0, 10.0))
        held["at"].append(at.low <= 21.0 <= at.high)
        held["area"].append(below.low <= 3 * (100 - 16) / 2 <= below.high)
    assert 0.93 <= np.mean(held["at"]) <= 0.97
    assert 0.93 <= np.mean(held["area"]) <= 0.97


def test_nothing_is_said_beyond_the_settings() -> None:
    points = flat([1.0, 4.0], [1.0, 2.0])
    for kl in (0.99, 4.01):
        with pytest.raises(ValueError, match="nothing is extrapolated"):
            reward_at(points, kl)
    with pytest.raises(ValueError, match="nothing is extrapolated"):
        area(points, 2.0, 5.0)
    with pytest.raises(ValueError, match="a range of KL, got 3"):
        area(points, 3.0, 3.0)


def test_frontiers_without_a_common_kl_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="one begins at 5, one ends at 4 nats"):
        common_range([flat([1.0, 4.0], [1.0, 2.0]), flat([5.0, 9.0], [1.0, 2.0])])


def test_what_is_no_frontier_is_refused() -> None:
    one = np.ones((2, 3))
    with pytest.raises(ValueError, match="2 settings, all of one shape"):
        Points.of([one], [one])
    with pytest.raises(ValueError, match="2 settings, all of one shape"):
        Points.of([one, one[:1]], [one, one])
    with pytest.raises(ValueError, match="complete tables"):
        Points.of([one, one * np.nan], [one, one])
    with pytest.raises(ValueError, match="one KL"):
        reward_at(flat([2.0, 2.0], [1.0, 3.0]), 2.0)
