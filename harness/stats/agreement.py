"""How far raters agree beyond chance, with intervals that know which rows share a prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.stats.power import t_quantile

Floats = npt.NDArray[np.float64]
Label = Hashable | None


@dataclass(frozen=True)
class Measured:
    """A figure with its interval over prompts.

    Attributes:
        value: of all rows.
        low: lower end of the t interval; None with fewer than two clusters, which tell nothing of
            how much they differ.
        high: upper end.
        standard_error: over clusters.
        rows: that the figure is made of.
        clusters: groups of rows that share a prompt, and so are no independent evidence.
    """

    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    rows: int
    clusters: int


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, level: float = 0.95
) -> Measured | None:
    """The mean, with the sandwich standard error of clustered rows; None without rows.

    With c clusters the squared standard error is c / (c - 1) * sum over clusters of (sum of
    residuals)^2 / rows^2, which is var / rows where every row is its own cluster.
    """
    if not len(values):
        return None
    rows = np.asarray(values, dtype=np.float64)
    groups = _groups(clusters, len(rows))
    mean = float(rows.mean())
    sums = np.bincount(groups, rows - mean)
    count = len(sums)
    if count < 2:
        return Measured(mean, None, None, None, len(rows), count)
    error = math.sqrt(count / (count - 1) * float(sums @ sums)) / len(rows)
    return _measured(mean, error, len(rows), count, level)


def clustered_share(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, level: float = 0.95
) -> Measured | None:
    """The mean of values from 0 to 1, with an interval that stays there; None without rows.

    Wilson's interval with the number of independent rows that would have as large a standard error
    (that of clusters where nothing varies: a hundred of a hundred is not certainty), and the
    quantile of t in place of the normal one's.
    """
    found = clustered_mean(values, clusters, level=level)
    if found is None or found.standard_error is None:
        return found
    count = found.clusters
    square = found.standard_error**2 * (count - 1) / count  # as Wilson has it, divided by n
    p = min(max(found.value, 0.0), 1.0)
    rows = p * (1.0 - p) / square if square > 0.0 and 0.0 < p < 1.0 else float(count)
    t = t_quantile(count - 1, level)
    middle = (p + t**2 / (2.0 * rows)) / (1.0 + t**2 / rows)
    half = t / (1.0 + t**2 / rows) * math.sqrt(p * (1.0 - p) / rows + (t / (2.0 * rows)) ** 2)
    low, high = max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))
    return replace(found, low=low, high=high)


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
) -> Measured | None:
    """Cohen's kappa of two raters who both rated every row, unweighted.

    (observed - expected) / (1 - expected) agreement, where two raters who ignore the rows and keep
    their own shares of every label would agree as `expected` says. The interval is that of the
    jackknife over clusters.

    Returns:
        None where both gave one and the same label throughout: there is no chance to correct for.
    """
    assert len(first) == len(second), "two ratings of each row"
    codes = _codes([*first, *second])
    tables = np.zeros((len(first), max(codes, default=0) + 1, max(codes, default=0) + 1))
    tables[np.arange(len(first)), codes[: len(first)], codes[len(first) :]] = 1.0
    return _jackknife(_kappa, tables, _groups(clusters, len(first)), level)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Label]],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
) -> Measured | None:
    """Krippendorff's alpha for nominal labels: 1 - observed / expected disagreement.

    Args:
        ratings: for each row what each rater said; None where a rater said nothing. A row with
            fewer than two labels has nothing to compare and counts for nothing.
        clusters: of the rows.
        level: coverage of the interval, which is that of the jackknife over clusters.

    Returns:
        None where no two labels differ, or none can be compared.
    """
    kept = [i for i, row in enumerate(ratings) if sum(label is not None for label in row) > 1]
    labels = [[label for label in ratings[i] if label is not None] for i in kept]
    codes = iter(_codes([label for row in labels for label in row]))
    coded = [[next(codes) for _ in row] for row in labels]
    size = max((code for row in coded for code in row), default=0) + 1
    tables = np.array([_coincidences(row, size) for row in coded]).reshape(-1, size, size)
    mine = None if clusters is None else [clusters[i] for i in kept]
    return _jackknife(_alpha, tables, _groups(mine, len(kept)), level)


def _coincidences(labels: Sequence[int], size: int) -> Floats:
    """Ordered pairs of labels by different raters of one row, each weighing 1 / (raters - 1)."""
    counts = np.bincount(labels, minlength=size).astype(np.float64)
    pairs: Floats = (np.outer(counts, counts) - np.diag(counts)) / (len(labels) - 1)
    return pairs


def _kappa(tables: Floats) -> Floats:
    """Of tables [..., k, k]; NaN where chance alone explains everything."""
    total = tables.sum(axis=(-1, -2))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / total
        expected = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / total**2
        return np.asarray((observed - expected) / (1.0 - expected))


def _alpha(tables: Floats) -> Floats:
    """Of coincidences [..., k, k]; NaN where no two labels differ."""
    each = tables.sum(axis=-1)
    total = each.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (total - np.trace(tables, axis1=-2, axis2=-1)) / total
        expected = (total**2 - (each**2).sum(axis=-1)) / (total * (total - 1.0))
        return np.asarray(1.0 - observed / expected)


def _jackknife(
    statistic: Callable[[Floats], Floats],
    tables: Floats,
    groups: npt.NDArray[np.intp],
    level: float,
) -> Measured | None:
    """A statistic of a sum of tables, and what it varies by when one cluster is left out."""
    total = tables.sum(axis=0)
    value = float(statistic(total)) if len(tables) else math.nan
    if not math.isfinite(value):
        return None
    count = int(groups.max()) + 1
    parts = np.zeros((count, *total.shape))
    np.add.at(parts, groups, tables)
    without = statistic(total - parts)
    without = without[np.isfinite(without)]  # one cluster held all that differed
    if len(without) < 2:
        return Measured(value, None, None, None, len(tables), count)
    spread = without - without.mean()
    error = math.sqrt((len(without) - 1) / len(without) * float(spread @ spread))
    return _measured(value, error, len(tables), count, level)


def _measured(value: float, error: float, rows: int, clusters: int, level: float) -> Measured:
    half = t_quantile(clusters - 1, level) * error
    return Measured(value, value - half, value + half, error, rows, clusters)


def _groups(clusters: Sequence[Hashable] | None, rows: int) -> npt.NDArray[np.intp]:
    """A number for each row's cluster, from 0."""
    if clusters is None:
        return np.arange(rows, dtype=np.intp)
    assert len(clusters) == rows, "one cluster for each row"
    return np.asarray(_codes(clusters), dtype=np.intp)


def _codes(labels: Sequence[Hashable]) -> list[int]:
    """Labels as numbers from 0, in the order of their first appearance."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]
