"""The hierarchical bootstrap: means of tables whose runs and prompts are both drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.stats.components import Table, as_table

DRAWS = 10_000
AT_ONCE = 500  # draws whose weights are in memory together


@dataclass(frozen=True)
class Interval:
    """A value and the percentile interval around it, in the unit of the value."""

    value: float
    low: float
    high: float


def hierarchical_means(
    tables: Sequence[npt.ArrayLike], rng: np.random.Generator, *, draws: int = DRAWS
) -> Table:
    """Means [tables, draws] of tables [seeds, prompts]; one draw is the same for every table.

    Runs and prompts are drawn with replacement, independently of each other, and a cell counts as
    often as its run times its prompt. Because a draw is shared, the difference of two rows of the
    result is that of two paired methods.

    Raises:
        ValueError: no tables, shapes that differ, a missing value, or no draws.
    """
    found = [as_table(table) for table in tables]
    if not found or len({table.shape for table in found}) > 1:
        raise ValueError(f"a bootstrap needs tables of one shape, got {[t.shape for t in found]}")
    if draws < 1:
        raise ValueError(f"a bootstrap needs at least 1 draw, got {draws}")
    cells = np.stack(found)
    if np.isnan(cells).any():
        raise ValueError("a bootstrap needs complete tables: drop prompts with a missing value")
    parts = [_means(cells, min(AT_ONCE, draws - start), rng) for start in range(0, draws, AT_ONCE)]
    return np.concatenate(parts, axis=1)


def hierarchical_interval(
    values: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    level: float = 0.95,
) -> Interval:
    """The mean of values [seeds, prompts] with its percentile interval.

    With few runs it is too narrow where runs differ much, and too wide where all variance is the
    residual's, which runs, prompts and cells each count once: `docs/statistics.md` has figures.

    Raises:
        ValueError: as `hierarchical_means` does, or `level` outside (0, 1).
    """
    means = hierarchical_means([values], rng, draws=draws)[0]
    return percentile_interval(float(as_table(values).mean()), means, level)


def percentile_interval(value: float, draws: npt.ArrayLike, level: float = 0.95) -> Interval:
    """The interval that leaves out as many draws on either side.

    Raises:
        ValueError: `level` outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    low, high = np.quantile(np.asarray(draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _means(cells: npt.NDArray[np.float64], draws: int, rng: np.random.Generator) -> Table:
    _, seeds, prompts = cells.shape
    by_run = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    by_prompt = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=draws) / prompts
    runs = np.einsum("tsn,dn->tds", cells, by_prompt, optimize=True)
    means: Table = (runs * by_run).sum(axis=2)
    return means
