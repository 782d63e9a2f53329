"""A method's mean, and the difference of two methods, over seeds and prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from harness.stats.components import (
    Components,
    Table,
    as_table,
    mean_squares,
    median_squares,
    variance_components,
    variance_of_mean,
)
from harness.stats.pooling import RunSpread, moderated
from harness.stats.power import minimum_detectable_effect, t_quantile

Scope = Literal["seeds and prompts", "prompts only"]
ROUNDING = 8 * float(np.finfo(np.float64).eps)  # of the largest value: less is no variation


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and prompts, in the unit of the scores, with what is known about it.

    Attributes:
        value: mean over all seeds and prompts used.
        low: lower end of the t interval at the level asked for.
        high: upper end.
        standard_error: of `value`, over the population that `scope` names.
        df: degrees of freedom of `standard_error`, as `variance_of_mean` has them.
        seeds: runs used (pairs of runs, for a difference).
        prompts: prompts used.
        scope: what may differ on repetition. With one seed "prompts only": the interval is about
            these runs and says nothing about the methods that made them.
        seed_sd: standard deviation between runs (between pairs of runs, for a difference) beyond
            what their prompts explain, as far as a `spread` was given one that other rows had a
            say in; None with one seed.
        p: two-sided p of "the true value is 0"; None for the mean of one method, where 0 is no
            hypothesis.
        mde: minimum detectable effect at 80 % power; as often too small as too large.
        dropped_prompts: prompts left out because a value was missing in some run.
        components: the variances behind `standard_error`, for `seeds_needed`, `prompts_needed`.
    """

    value: float
    low: float
    high: float
    standard_error: float
    df: float
    seeds: int
    prompts: int
    scope: Scope
    seed_sd: float | None
    p: float | None
    mde: float
    dropped_prompts: int = 0
    components: Components | None = None


def estimate(values: npt.ArrayLike, *, level: float = 0.95) -> Estimate:
    """One method's mean over seeds and prompts.

    Prompts with a missing value (NaN) in any run are left out and counted.

    Args:
        values: scores [seeds, prompts].
        level: coverage of the interval.

    Raises:
        ValueError: not a table, no values, one that is infinite, fewer than 2 complete prompts, or
            `level` outside (0, 1).
    """
    table = as_table(values)
    return _estimate(table, _magnitude(table) * ROUNDING, level, is_difference=False)


def difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    level: float = 0.95,
    spread: RunSpread | None = None,
) -> Estimate:
    """The mean of `a - b` over pairs of runs and prompts, with the p of "there is no difference".

    Prompts crossed with pairs of runs, both random. Two runs of one seed share the order of their
    data, so they may go up and down together, and in their difference what they share cancels. The
    other form adds the seed variances of the two methods. It has twice the degrees of freedom, but
    counts what cancels as noise, and is the more conservative the more the runs of a seed share.

    To compare with one fixed policy that was not trained, repeat its row for every seed.

    Prompts with a missing value (NaN) in any run of either method are left out and counted.

    Args:
        a: scores of one method [seeds, prompts].
        b: scores of the other; row for row the same seed, column for column the same prompt.
        level: coverage of the interval.
        spread: what the other rows of a board tell of the variance between runs. With three seeds
            and a dozen rows it is what makes a small p believable: `docs/statistics.md`.

    Raises:
        ValueError: shapes that differ, not tables, no values, one that is infinite, fewer than 2
            complete prompts, or `level` outside (0, 1).
    """
    first, second = as_table(a), as_table(b)
    if first.shape != second.shape:
        raise ValueError(
            f"rows must be the same seeds and columns the same prompts: "
            f"got {first.shape[0]} x {first.shape[1]} and {second.shape[0]} x {second.shape[1]}"
        )
    rounding = ROUNDING * max(_magnitude(first), _magnitude(second))
    return _estimate(first - second, rounding, level, is_difference=True, spread=spread)


def _magnitude(table: Table) -> float:
    return float(np.abs(table).max(initial=0.0, where=~np.isnan(table)))


def _estimate(
    table: Table,
    rounding: float,
    level: float,
    *,
    is_difference: bool,
    spread: RunSpread | None = None,
) -> Estimate:
    complete = _complete_prompts(table)
    seeds, prompts = complete.shape
    value = float(complete.mean())
    low, high = float(complete.min()), float(complete.max())
    if high - low <= rounding:  # else rounding errors would be taken for the variance
        value = 0.0 if max(-low, high) <= rounding else (low + high) / 2
        found = _constant(seeds, prompts)
    else:
        found = _varied(complete, spread)
    standard_error, df = math.sqrt(found.variance), found.df
    half = t_quantile(df, level) * standard_error
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        standard_error=standard_error,
        df=df,
        seeds=seeds,
        prompts=prompts,
        scope="prompts only" if seeds == 1 else "seeds and prompts",
        seed_sd=None if found.components.run is None else math.sqrt(found.components.run),
        p=_p_of_zero(value, standard_error, df, prompts) if is_difference else None,
        mde=minimum_detectable_effect(math.sqrt(found.usual_variance), found.usual_df, level=level),
        dropped_prompts=table.shape[1] - prompts,
        components=found.components,
    )


def _complete_prompts(table: Table) -> Table:
    missing = np.isnan(table)
    empty = np.flatnonzero(missing.all(axis=1))
    if empty.size:
        raise ValueError(f"seed row {empty[0]} has no value at all: leave that run out")
    kept = ~missing.any(axis=0)
    if kept.sum() < 2:
        raise ValueError(
            f"{kept.sum()} of {kept.size} prompts have a value in all {len(table)} runs: "
            "a comparison takes at least 2"
        )
    return np.ascontiguousarray(table[:, kept])


@dataclass(frozen=True)
class _Spread:
    """What stands behind a standard error.

    Attributes:
        variance: of the mean.
        df: its degrees of freedom.
        usual_variance: what the same design would have in half of all repetitions or less: few
            runs mostly show too small a variance, and what they call detectable is not.
        usual_df: its degrees of freedom.
    """

    variance: float
    df: float
    usual_variance: float
    usual_df: float
    components: Components


def _constant(seeds: int, prompts: int) -> _Spread:
    """Of a table whose cells are all the same."""
    parts, df = Components(None if seeds == 1 else 0.0, 0.0, 0.0), float(prompts - 1)
    return _Spread(0.0, df, 0.0, df, parts)


def _varied(table: Table, spread: RunSpread | None) -> _Spread:
    """Of a complete table whose cells differ."""
    seeds, prompts = table.shape
    if seeds == 1:
        by_prompt = float(table.var(ddof=1))
        variance, df = by_prompt / prompts, float(prompts - 1)
        return _Spread(variance, df, variance, df, Components(None, by_prompt, 0.0))
    squares, runs_df = moderated(mean_squares(table), spread)
    return _Spread(
        *variance_of_mean(squares, runs_df),
        *variance_of_mean(median_squares(squares, runs_df), runs_df),
        variance_components(squares),
    )


def _p_of_zero(value: float, standard_error: float, df: float, prompts: int) -> float:
    if standard_error > 0.0:
        return 2.0 * float(special.stdtr(df, -abs(value) / standard_error))
    if value == 0.0:
        return 1.0
    # Every cell differs alike and a t test would say 0, even of two prompts. This is the least p
    # that any test can reach which flips the signs of prompts.
    return 2.0 ** (1 - prompts)
