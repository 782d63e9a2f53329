"""Tables with holes: what two methods have in common, and components where nothing is complete.

A board compares rows on the runs and prompts that they have in common, because then the test is
the one whose error rates are known, and a prompt that a judge failed on weighs in neither row.
Where hardly any prompt is complete, because runs were scored on different prompts, the components
are found from all cells instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.stats.components import Components, Table, as_table, calibrated
from harness.stats.power import t_quantile


@dataclass(frozen=True)
class Common:
    """Two methods on the seeds that both have and the prompts that are complete in all of them.

    Attributes:
        a: scores [seeds, prompts].
        b: likewise.
        dropped_seeds: that only one method has.
        dropped_prompts: that only one method has, or that lack a value.
    """

    a: Table
    b: Table
    dropped_seeds: int
    dropped_prompts: int


def in_common(a: pd.DataFrame, b: pd.DataFrame) -> Common:
    """The part of two tables, seeds down and prompts across, that `difference` can compare.

    Raises:
        ValueError: no seed in common, or fewer than two prompts.
    """
    seeds, prompts = a.index.intersection(b.index), a.columns.intersection(b.columns)
    if not len(seeds):
        raise ValueError("the two rows have no seed in common: nothing can be paired")
    x = as_table(a.loc[seeds, prompts].to_numpy(dtype=np.float64))
    y = as_table(b.loc[seeds, prompts].to_numpy(dtype=np.float64))
    kept = ~np.isnan(x - y).any(axis=0)
    if kept.sum() < 2:
        raise ValueError(
            f"{kept.sum()} prompts have a value in all {len(seeds)} seeds of both rows: "
            "a comparison takes at least 2"
        )
    return Common(
        np.ascontiguousarray(x[:, kept]),
        np.ascontiguousarray(y[:, kept]),
        dropped_seeds=len(a.index.union(b.index)) - len(seeds),
        dropped_prompts=len(a.columns.union(b.columns)) - int(kept.sum()),
    )


@dataclass(frozen=True)
class CellMean:
    """A mean over the cells that there are, with its t interval.

    Attributes:
        value: every cell weighs the same.
        cells: that have a value.
    """

    value: float
    low: float
    high: float
    standard_error: float
    df: float
    components: Components
    cells: int


def unbalanced_components(values: npt.ArrayLike) -> Components:
    """Components of values [runs, prompts] with holes (NaN), by Henderson's first method.

    Of a complete table they are those of the analysis of variance. Holes must not depend on the
    values that they hide.

    Raises:
        ValueError: fewer than two runs or prompts that have a value, or no run with two values.
    """
    return _components(_known(values))


def mean_of_cells(values: npt.ArrayLike, *, level: float = 0.95) -> CellMean:
    """The mean of values [runs, prompts] with holes, or of differences of two such tables.

    Raises:
        ValueError: as `unbalanced_components` does, or `level` outside (0, 1).
    """
    table = _known(values)
    parts = _components(table)
    there = ~np.isnan(table)
    cells = int(there.sum())
    by_run, by_prompt = there.sum(axis=1), there.sum(axis=0)
    run, residual = parts.run or 0.0, parts.residual
    between_runs = residual + run * float((by_run**2).sum()) / cells
    rest = parts.prompt * float((by_prompt**2).sum()) / cells
    total, df = calibrated(
        np.asarray(between_runs),
        np.asarray(rest + residual),
        np.asarray(residual),
        float(len(table) - 1),
        int((by_prompt > 0).sum()),
    )
    value, standard_error = float(np.nanmean(table)), math.sqrt(float(total) / cells)
    half = t_quantile(float(df), level) * standard_error
    return CellMean(value, value - half, value + half, standard_error, float(df), parts, cells)


def _known(values: npt.ArrayLike) -> Table:
    table = as_table(values)
    there = ~np.isnan(table)
    table = table[there.any(axis=1)][:, there.any(axis=0)]
    if min(table.shape) < 2 or (~np.isnan(table)).sum() <= sum(table.shape) - 1:
        raise ValueError(
            f"components need 2 runs and 2 prompts and more values than both together, got "
            f"{int((~np.isnan(table)).sum())} in {table.shape[0]} x {table.shape[1]}"
        )
    return table


def _components(table: Table) -> Components:
    """Sums of squares and their expectations, solved for the components."""
    there = ~np.isnan(table)
    y = np.where(there, table - np.nanmean(table), 0.0)
    cells, by_run, by_prompt = there.sum(), there.sum(axis=1), there.sum(axis=0)
    runs, prompts = table.shape
    squares = np.array(
        [
            (y**2).sum(),
            (y.sum(axis=1) ** 2 / by_run).sum(),
            (y.sum(axis=0) ** 2 / by_prompt).sum(),
        ]
    )
    # Columns: run, prompt, residual; less what the square of the grand mean expects.
    expected = np.array([[cells, cells, cells], [cells, runs, runs], [prompts, cells, prompts]])
    grand = [(by_run**2).sum() / cells, (by_prompt**2).sum() / cells, 1.0]
    run, prompt, residual = np.linalg.solve(expected - grand, squares)
    return Components(max(float(run), 0.0), max(float(prompt), 0.0), max(float(residual), 0.0))
