"""Variance components of a table of runs by prompts, one value in each cell.

The model is `value[s, i] = mean + run[s] + prompt[i] + residual[s, i]` with all three parts random
and independent, because a claim about a method is one about new runs and new prompts. With one
value in a cell the interaction of run and prompt is part of the residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]
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


def variance_of_mean(squares: MeanSquares) -> tuple[float, float]:
    """Variance of the grand mean and its Satterthwaite degrees of freedom.

    Var = run / runs + prompt / prompts + residual / (runs * prompts), in which the residual stands
    once: adding the variance of prompt means to that of run means would count it twice. Where no
    component is clipped this is (between_runs + between_prompts - residual) / (runs * prompts).

    The degrees of freedom are those of that sum whether a component is clipped or not. To leave
    out the mean square of a clipped component is the usual form; it makes the degrees of freedom
    jump where between_runs passes the residual, and rejects slightly more often.

    Of true nulls a test at 5 % rejects 4 to 6.5 % from four runs on, and 4 to 8 % with three; as
    few as 1 % where runs and prompts add nothing to the residual, because clipping then leaves the
    variance too large on average. Two runs are a case of their own: a variance with one degree of
    freedom is often far too small by chance, Satterthwaite's formula then believes it, and up to
    13 % are rejected. With the degrees of freedom held at 2 at most 9 % are, and less than 5 %
    where runs add up to ten times the variance that prompts and residual add.
    """
    cells = squares.runs * squares.prompts
    parts = variance_components(squares)
    total = squares.prompts * (parts.run or 0.0) + squares.runs * parts.prompt + squares.residual
    if total == 0.0:
        return 0.0, float(squares.prompts - 1)
    runs, prompts = squares.runs - 1, squares.prompts - 1
    df = 1.0 / (
        (squares.between_runs / total) ** 2 / runs
        + (squares.between_prompts / total) ** 2 / prompts
        + (squares.residual / total) ** 2 / (runs * prompts)
    )
    df = max(df, float(min(runs, prompts)))
    return total / cells, min(df, 2.0) if squares.runs == 2 else df
