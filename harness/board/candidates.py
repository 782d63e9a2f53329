"""Rows before they are compared: the scores and the runs that each one has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.board.contents import Cost
from harness.errors import DataError
from harness.scores import COLUMNS, Run, Scores, TaskHeader
from harness.stats.components import LARGEST

Values = npt.NDArray[np.float64]
_KEY = list(COLUMNS[:6])


@dataclass(frozen=True)
class Candidate:
    """One row of a task as the scores have it.

    Attributes:
        runs: empty where the header names none, as for an untrained policy.
        tables: by metric, seeds down and prompts across, NaN where a value is missing or infinite.
        reasons: why the row is not ranked; empty where it is complete.
    """

    label: str
    method: str
    settings: str
    base: bool
    runs: tuple[Run, ...]
    tables: Mapping[str, pd.DataFrame]
    reasons: tuple[str, ...] = ()

    def values(self, metric: str) -> Values:
        """Finite values of a complete row, seeds down, prompts across."""
        values = _array(self.tables[metric])
        return np.ascontiguousarray(values[:, ~np.isnan(values).any(axis=0)])

    def seed_means(self, metric: str) -> tuple[tuple[int, float], ...]:
        """(seed, mean over the prompts that have a value) of each seed that has one."""
        table = self.tables[metric]
        rows = zip(table.index, _array(table), strict=True)
        known = ((int(seed), row[~np.isnan(row)]) for seed, row in rows)
        return tuple((seed, float(row.mean())) for seed, row in known if row.size)

    @property
    def cost(self) -> Cost | None:
        """What one run cost, on average over the seeds; None where nothing was trained."""
        if self.base or not self.runs:
            return None
        n = len(self.runs)
        totals = (sum(getattr(r, u) for r in self.runs) for u in Cost.__annotations__)
        return Cost(*(total / n for total in totals))


def gathered(scores: Scores, task: TaskHeader) -> list[Candidate]:
    """All rows of a task: in the order of the header's runs, then those that only have scores.

    Raises:
        DataError: a value is there twice, or the primary metric is not one of the task.
    """
    if task.primary not in {metric.name for metric in task.metrics}:
        raise DataError(f"task '{task.name}' ranks by '{task.primary}', which is not its metric")
    frame = scores.frame[scores.frame.task == task.name]
    twice = frame[frame.duplicated(_KEY)]
    if len(twice):
        where = ", ".join(f"{k}={twice.iloc[0][k]!r}" for k in _KEY)
        raise DataError(f"scores hold a value twice ({where}): score that run again")
    runs = [r for r in scores.header.runs if r.task == task.name]
    names = sorted(set(zip(frame.method, frame.settings, strict=True)))
    keys = dict.fromkeys([(r.method, r.settings) for r in runs] + names)
    several = Counter(method for method, _ in keys)
    here = Scores(scores.header, frame)
    return [
        Candidate(
            label=method if several[method] == 1 else f"{method} ({settings or 'defaults'})",
            method=method,
            settings=settings,
            base=method == scores.header.base,
            runs=tuple(r for r in runs if (r.method, r.settings) == (method, settings)),
            tables={
                m.name: _finite(here.matrix(task.name, m.name, method, settings))
                for m in task.metrics
            },
        )
        for method, settings in keys
    ]


def pick(rows: Sequence[Candidate], method: str) -> Candidate | None:
    """The row that stands for a method: of several settings, the one that ran first."""
    return next((row for row in rows if row.method == method), None)


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    return table.where(table.abs() <= LARGEST)


def _array(table: pd.DataFrame) -> Values:
    # The order of a sum must not depend on how pandas happens to lie in memory.
    return np.ascontiguousarray(table.to_numpy(dtype=np.float64))
