"""Variance components of a table of runs by prompts, one value in each cell.

The model is `value[s, i] = mean + run[s] + prompt[i] + residual[s, i]` with all three parts random
and independent, because a claim about a method is one about new runs and new prompts. With one
value in a cell the interaction of run and prompt is part of the residual.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

Table = npt.NDArray[np.float64]
LEAST = 0.025  # probability below which a small mean square between runs is not believed
LARGEST = 1e150  # squares of anything larger leave the range of a float64


@dataclass(frozen=True)
class MeanSquares:
    """The two-way analysis of variance of a complete table, in squared units of its values.

    Attributes:
        between_runs: with `runs - 1` degrees of freedom.
        between_prompts: with `prompts - 1` degrees of freedom.
        residual: with `(runs - 1) * (prompts - 1)` degrees of freedom.
        runs: rows of the table.
        prompts: columns of the table.
    """

    between_runs: float
    between_prompts: float
    residual: float
    runs: int
    prompts: int


@dataclass(frozen=True)
class Components:
    """Variances, in squared units of the values, none below zero.

    Attributes:
        run: of a run's mean over all prompts there are; None where there was only one run, which
            cannot tell it.
        prompt: of a prompt's mean over all runs there are. With one run it holds the residual too.
        residual: of one cell around the sum of the two.
    """

    run: float | None
    prompt: float
    residual: float


def as_table(values: npt.ArrayLike) -> Table:
    """The values as float64 [runs, prompts], contiguous, so that equal values give equal bits.

    Raises:
        ValueError: not two axes, no values, or one that is infinite or beyond 1e150.
    """
    table = np.ascontiguousarray(values, dtype=np.float64)
    if np.ndim(values) != 2:
        raise ValueError(f"expected values as [seeds, prompts], got {np.ndim(values)} axes")
    if table.size == 0:
        raise ValueError(f"no values: the table has {table.shape[0]} x {table.shape[1]} cells")
    if (np.abs(table) > LARGEST).any():
        row, column = np.argwhere(np.abs(table) > LARGEST)[0]
        raise ValueError(
            f"seed row {row}, prompt column {column} holds {table[row, column]}: "
            "values must be finite, and NaN where one is missing"
        )
    return table


def mean_squares(values: npt.ArrayLike) -> MeanSquares:
    """The mean squares of complete values [runs, prompts].

    Raises:
        ValueError: fewer than two runs or prompts, or a value that is missing or infinite.
    """
    table = as_table(values)
    runs, prompts = table.shape
    if min(runs, prompts) < 2:
        raise ValueError(f"mean squares need 2 runs and 2 prompts, got {runs} x {prompts}")
    if np.isnan(table).any():
        raise ValueError("mean squares need a complete table: drop prompts with a missing value")
    centred = table - table.mean()
    run = centred.mean(axis=1, keepdims=True)
    prompt = centred.mean(axis=0, keepdims=True)
    residual = centred - run - prompt
    return MeanSquares(
        between_runs=prompts * float((run**2).sum()) / (runs - 1),
        between_prompts=runs * float((prompt**2).sum()) / (prompts - 1),
        residual=float((residual**2).sum()) / ((runs - 1) * (prompts - 1)),
        runs=runs,
        prompts=prompts,
    )


def variance_components(squares: MeanSquares) -> Components:
    """The components whose expectations the mean squares are, each clipped at zero.

    E[between_runs] = residual + prompts * run; E[between_prompts] = residual + runs * prompt.
    """
    return Components(
        run=max(squares.between_runs - squares.residual, 0.0) / squares.prompts,
        prompt=max(squares.between_prompts - squares.residual, 0.0) / squares.runs,
        residual=squares.residual,
    )


def expected_squares(components: Components, runs: int, prompts: int) -> MeanSquares:
    """The mean squares that a table of this size would have on average.

    Raises:
        ValueError: the component between runs is not known.
    """
    if components.run is None:
        raise ValueError("the variance between runs is not known: it takes at least two seeds")
    return MeanSquares(
        between_runs=components.residual + prompts * components.run,
        between_prompts=components.residual + runs * components.prompt,
        residual=components.residual,
        runs=runs,
        prompts=prompts,
    )


def variance_of_mean(squares: MeanSquares, runs_df: float | None = None) -> tuple[float, float]:
    """Variance of the grand mean, and the degrees of freedom of a t test that uses it.

    The variance is (between_runs + prompts' part) / (runs * prompts); the prompts' part is
    between_prompts - residual, or 0 where that is negative. In this sum the residual stands once:
    to add the variance of prompt means to that of run means would count it twice. The run's part
    is not clipped at the residual, which would make a test reject as few as 1.8 % of true nulls
    (residual alone, 3 runs). It only has a floor: what chance leaves it above 39 times in 40.

    Few runs decide the degrees of freedom. With `k` for those of between_runs and `x` for the
    prompts' part over between_runs, they are k * (1 + 3 x^2 / (x + 7 / k)). Satterthwaite's are
    k * (1 + x)^2, nearly the same where k is large; where it is small, they believe an x that is
    large because between_runs is small by chance, and reject up to 7.8 % of true nulls with
    3 runs (12.8 % with 2; and of those that should be 0.5 % up to 2.7 %). This form rejects 4.1 to
    5.0 % from 3 runs on, whatever the mixture of variances; with 2 runs, where it is
    k * (1 + x^2 / (x + 30)), 2.6 to 4.9 %. `docs/statistics.md` has the integral.

    Args:
        squares: of the table.
        runs_df: degrees of freedom of `between_runs` where they are not `runs - 1`, because other
            tables tell of it too (`harness.stats.pooling`).
    """
    own = float(squares.runs - 1) if runs_df is None else runs_df
    cells = squares.runs * squares.prompts
    total, df = calibrated(
        np.asarray(squares.between_runs),
        np.asarray(squares.between_prompts),
        np.asarray(squares.residual),
        own,
        squares.prompts,
    )
    return float(total) / cells, float(df)


def median_squares(squares: MeanSquares, runs_df: float) -> MeanSquares:
    """The mean squares with that between runs made larger, to be too small in half of all tables.

    Of few runs it is mostly too small: with three in 63 tables of 100, and in 10 by a factor of 10.
    """
    median = float(special.chdtri(runs_df, 0.5)) / runs_df
    return replace(squares, between_runs=squares.between_runs / median)


def calibrated(
    between_runs: Table,
    between_prompts: Table,
    residual: Table,
    runs_df: float,
    prompts: int,
) -> tuple[Table, Table]:
    """The sum and the degrees of freedom of `variance_of_mean`, of one table or of many at once.

    Args:
        between_runs: mean squares, one of each table.
        between_prompts: likewise.
        residual: likewise.
        runs_df: degrees of freedom of `between_runs`.
        prompts: columns of each table.
    """
    floor = special.chdtri(runs_df, 1 - LEAST) / runs_df * residual
    runs, rest = np.maximum(between_runs, floor), np.maximum(between_prompts - residual, 0.0)
    total = runs + rest
    few = runs_df < 2
    slope, bend = (1.0, 30.0) if few else (3.0, 7.0 / runs_df)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = rest / runs
        of_runs = runs_df * (1.0 + slope * x / (1.0 + bend / x))
        df = 1.0 / (1.0 / of_runs + (rest / total) ** 2 / (prompts - 1))
    df = np.where(rest > 0.0, df, runs_df)  # 0 / 0 above
    df = np.where(total > 0.0, df, float(prompts - 1))
    return total, np.maximum(df, min(runs_df, float(prompts - 1)))
