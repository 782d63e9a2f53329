"""The reward-KL frontier of a method: reward at an equal KL, and the area below it.

A method is trained at several settings, such as values of beta, each with the same seeds on the
same prompts. A setting is one point: its mean KL and its mean reward over seeds and prompts. In
order of their KL the points are joined by straight lines; settings of one KL are one point. Nothing
is said outside the least and the greatest KL.

Both figures are smooth functions of the points, so to first order they are means over seeds and
prompts of the cells' influence, a table like any other: `estimate` of it has the interval,
`difference` of two methods' tables the paired test. A percentile bootstrap over three seeds would
be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.stats.components import Table, as_table

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """What a method's settings reached, KL in nats.

    Attributes:
        kl: [settings, seeds, prompts].
        reward: likewise.
    """

    kl: Values
    reward: Values

    @classmethod
    def of(cls, kl: Sequence[npt.ArrayLike], reward: Sequence[npt.ArrayLike]) -> Points:
        """Of one table [seeds, prompts] for each setting.

        Raises:
            ValueError: fewer than two settings, shapes that differ, or a missing value.
        """
        tables = [as_table(table) for table in (*kl, *reward)]
        if len(kl) < 2 or len(kl) != len(reward) or len({t.shape for t in tables}) > 1:
            raise ValueError("a frontier needs KL and reward of 2 settings, all of one shape")
        if any(np.isnan(table).any() for table in tables):
            raise ValueError("a frontier needs complete tables: drop prompts with a missing value")
        return cls(np.stack(tables[: len(kl)]), np.stack(tables[len(kl) :]))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest KL of a setting's mean, nats."""
        kl = self.kl.mean(axis=(1, 2))
        return float(kl.min()), float(kl.max())


def common_range(methods: Sequence[Points]) -> tuple[float, float]:
    """The KL, nats, over which all frontiers reach.

    Raises:
        ValueError: there is none.
    """
    low = max(points.range[0] for points in methods)
    high = min(points.range[1] for points in methods)
    if low >= high:
        raise ValueError(
            f"the frontiers have no KL in common: one begins at {low:.4g}, one ends at {high:.4g} "
            "nats; train more settings"
        )
    return low, high


def reward_at(points: Points, kl: float) -> Table:
    """Influences [seeds, prompts] whose mean is the reward at this KL.

    Raises:
        ValueError: a KL outside the range of the settings.
    """
    _inside(points, kl, kl)
    knots, rewards, groups = _knots(points)
    last = len(knots) - 2
    at = min(int(np.searchsorted(knots, kl, side="right")) - 1, last)
    t = (kl - knots[at]) / (knots[at + 1] - knots[at])
    left, right = np.zeros(last + 1), np.zeros(last + 1)
    left[at], right[at] = 1.0 - t, t
    return _influence(points, (knots, rewards, groups), left, right)


def area(points: Points, low: float, high: float) -> Table:
    """Influences [seeds, prompts] whose mean is the area below the frontier, reward times nats.

    Divided by `high - low` it is the mean reward at a KL between the two.

    Raises:
        ValueError: no range, or one that goes beyond the settings.
    """
    if not low < high:
        raise ValueError(f"an area needs a range of KL, got {low} to {high}")
    _inside(points, low, high)
    knots, rewards, groups = _knots(points)
    start, width = knots[:-1], np.diff(knots)
    u = np.clip((low - start) / width, 0.0, 1.0)
    v = np.clip((high - start) / width, 0.0, 1.0)
    right = width * (v**2 - u**2) / 2
    left = width * (v - u) - right
    return _influence(points, (knots, rewards, groups), left, right)


def _inside(points: Points, low: float, high: float) -> None:
    least, greatest = points.range
    if low < least or high > greatest:
        raise ValueError(
            f"KL {low:.4g} to {high:.4g} goes beyond the settings, which reach from {least:.4g} to "
            f"{greatest:.4g} nats: nothing is extrapolated"
        )


def _knots(points: Points) -> tuple[Values, Values, npt.NDArray[np.intp]]:
    """KL and reward of the points in order of KL, and the point that each setting belongs to."""
    kl, reward = points.kl.mean(axis=(1, 2)), points.reward.mean(axis=(1, 2))
    knots, groups = np.unique(kl, return_inverse=True)
    if knots.size < 2:
        raise ValueError("all settings have one KL: there is no frontier")
    rewards = np.bincount(groups, weights=reward) / np.bincount(groups)
    return knots, rewards, groups


def _influence(
    points: Points,
    frontier: tuple[Values, Values, npt.NDArray[np.intp]],
    left: Values,
    right: Values,
) -> Table:
    """The value plus every cell's first-order share in its error.

    Args:
        points: the settings.
        frontier: as `_knots` has it.
        left: what the reward of each line's left end weighs in the value.
        right: likewise of its right end.
    """
    knots, rewards, groups = frontier
    slope = np.diff(rewards) / np.diff(knots)
    by_reward, by_kl = np.zeros(knots.size), np.zeros(knots.size)
    by_reward[:-1] += left
    by_reward[1:] += right
    by_kl[:-1] -= slope * left
    by_kl[1:] -= slope * right
    size = np.bincount(groups)
    of_reward: Table = np.tensordot((by_reward / size)[groups], points.reward, axes=1)
    of_kl: Table = np.tensordot((by_kl / size)[groups], points.kl, axes=1)
    change: Table = of_reward + of_kl
    return change + (float(by_reward @ rewards) - float(change.mean()))
