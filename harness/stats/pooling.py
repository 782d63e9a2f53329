"""What many rows tell together of the variance between runs, of which three seeds tell little.

A variance of two degrees of freedom is below a tenth of the truth once in ten times. Of the 66
pairs of 12 rows some will be, and a correction for many tests, which asks of p values how small
they are, takes them for findings. So every pair's mean square between runs is drawn towards that
of all, the more so the more alike the rows are. That is Smyth's moderated t test.

Source: Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3, article 3. The
centre is the arithmetic mean and not, as there, made of logarithms: it is larger, hence on the
safe side where rows differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from harness.stats.components import MeanSquares, Table, as_table

FEWEST = 3  # rows: of two there is one difference, which has nothing beside it
TINY = 1e-5  # of the mean: a smaller variance counts as this, so that its logarithm is finite


@dataclass(frozen=True)
class RunSpread:
    """The mean square between runs that rows of one kind have, and how much to believe it.

    Attributes:
        between_runs: in squared units of the values, times prompts as in `MeanSquares`.
        prior_df: how many degrees of freedom it is worth beside a pair's own; infinite where rows
            differ no more than chance makes them.
        pooled_df: degrees of freedom that all rows have together, which is the most there can be.
    """

    between_runs: float
    prior_df: float
    pooled_df: float


def spread_of_differences(rows: Sequence[npt.ArrayLike]) -> RunSpread | None:
    """For the difference of any two of these rows, each [seeds, prompts], all of one shape.

    None where nothing is gained: fewer than 3 rows, one seed, or runs that do not differ at all.

    Raises:
        ValueError: shapes that differ, or what is no complete table.
    """
    deviations = _deviations(rows)
    if deviations is None:
        return None
    n, df = len(deviations), deviations.shape[1] - 1
    apart = deviations - deviations.mean(axis=0)  # what the runs of a seed share cancels
    squares = _prompts(rows) * (apart**2).sum(axis=1) / (df * (n - 1) / n)
    return _spread(squares, 2.0, df, (n - 1.0) * df)


def spread_of_means(rows: Sequence[npt.ArrayLike]) -> RunSpread | None:
    """For the difference of any of these rows and one fixed policy, which does not vary by seed.

    What the runs of a seed share does not cancel here, so that rows tell less together than as
    many independent ones.

    Raises:
        ValueError: shapes that differ, or what is no complete table.
    """
    deviations = _deviations(rows)
    if deviations is None:
        return None
    n, df = len(deviations), deviations.shape[1] - 1
    common = deviations.mean(axis=0)
    shared = n * float((common**2).sum()) / df
    apart = float(((deviations - common) ** 2).sum()) / (df * (n - 1))
    both = shared + (n - 1) * apart
    correlation = max(shared - apart, 0.0) / both if both > 0.0 else 0.0
    worth = n / (1.0 + (n - 1) * correlation**2)
    squares = _prompts(rows) * (deviations**2).sum(axis=1) / df
    return _spread(squares, 1.0, df, worth * df)


def moderated(squares: MeanSquares, spread: RunSpread | None) -> tuple[MeanSquares, float]:
    """The mean squares with that between runs drawn towards `spread`, and its df."""
    own = float(squares.runs - 1)
    if spread is None:
        return squares, own
    if math.isinf(spread.prior_df):
        found = spread.between_runs
    else:
        weighted = spread.prior_df * spread.between_runs + own * squares.between_runs
        found = weighted / (spread.prior_df + own)
    df = max(own, min(own + spread.prior_df, spread.pooled_df))
    return replace(squares, between_runs=found), df


def _prompts(rows: Sequence[npt.ArrayLike]) -> int:
    return int(np.shape(rows[0])[1])


def _deviations(rows: Sequence[npt.ArrayLike]) -> Table | None:
    """Means of runs less the mean of their row [rows, seeds]; None where too few tell nothing."""
    tables = [as_table(row) for row in rows]
    shapes = {table.shape for table in tables}
    if len(shapes) > 1:
        raise ValueError(f"rows of one spread have one shape, got {sorted(shapes)}")
    if any(np.isnan(table).any() for table in tables):
        raise ValueError("a spread needs complete tables: drop prompts with a missing value")
    if len(tables) < FEWEST or tables[0].shape[0] < 2:
        return None
    means: Table = np.array([table.mean(axis=1) for table in tables])
    centre: Table = means.mean(axis=1, keepdims=True)
    return means - centre


def _spread(variances: Table, terms: float, df: int, pooled_df: float) -> RunSpread | None:
    """Of rows' own mean squares, `terms` of which make that of a difference."""
    mean = float(variances.mean())
    if mean == 0.0:
        return None
    return RunSpread(terms * mean, _prior_df(variances / mean, df), pooled_df)


def _prior_df(variances: Table, df: int) -> float:
    """Degrees of freedom of the distribution that the rows' own variances come from."""
    logs = np.log(np.maximum(variances, TINY))
    beyond_chance = float(logs.var(ddof=1) - special.polygamma(1, df / 2))
    if beyond_chance <= 0.0:
        return math.inf
    return 2.0 * _inverse_trigamma(beyond_chance)


def _inverse_trigamma(value: float) -> float:
    low, high = 1e-4, 1e8  # trigamma is about 1 / x^2 near 0 and 1 / x far out
    if value <= float(special.polygamma(1, high)):
        return high
    return float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - value, low, high))
