"""The logistic model behind a length-controlled win rate, for many weightings of the prompts.

With d the length difference in characters, s its standard deviation over the rows of this model
(not centred: equal lengths are 0) and D the difficulty of the prompt, the chance that the model
wins is sigmoid(bias + length * tanh(d / s) + difficulty * D). The length-controlled win rate is
the mean over prompts of that chance at d = 0. In rows of rewritten baselines the bias is left out.

AlpacaEval writes the difference the other way round, so that its coefficient of length has the
opposite sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.stats.length_rows import Rows
from harness.stats.logistic import Games, Numbers, Penalty, curvature, fit, predicted

CELLS = 2**18  # numbers of one temporary array: few enough to stay in the cache


@dataclass(frozen=True)
class Fitted:
    """Fits of one set of rows.

    Attributes:
        values: length-controlled win rates in percent, as [fits].
        coefficients: as [fits, coefficients], in the order of `Rows.names`.
    """

    values: Numbers
    coefficients: Numbers


def games(rows: Rows, prompt_weights: Numbers) -> Games:
    """The table to be fitted: rows of rewritten baselines first, then the model's.

    Args:
        rows: the judged answers.
        prompt_weights: as [fits, prompts].
    """
    weights = prompt_weights[:, rows.prompt] * rows.share
    lengths = np.tanh(scaled(rows.difference, spread(rows.difference, weights)))
    own = _columns(lengths, rows.difficulty, bias=1.0)
    if rows.baseline is None:
        return Games(own, rows.preference, weights)
    given = rows.baseline
    scale = None if rows.difficulty is None else given.difficulty
    other = _columns(np.tanh(given.difference)[None], scale, bias=0.0)
    fits = len(weights)
    return Games(
        np.concatenate([np.broadcast_to(other, (fits, *other.shape[1:])), own], axis=1),
        np.concatenate([given.preference, rows.preference]),
        np.concatenate([np.broadcast_to(given.weight, (fits, given.weight.size)), weights], axis=1),
    )


def fit_values(
    rows: Rows, prompt_weights: Numbers, penalty: Penalty, start: Numbers | None = None
) -> Fitted:
    """The length-controlled win rate under every weighting of the prompts, refitted."""
    table = games(rows, prompt_weights)
    coefficients = fit(table, penalty, start)
    equal = predicted(at_equal_length(rows), coefficients)
    weights = table.weights[:, -rows.prompt.size :]
    values = 100.0 * (weights * equal).sum(axis=1) / weights.sum(axis=1)
    return Fitted(values, coefficients)


def bootstrap(
    rows: Rows, penalty: Penalty, start: Numbers, draws: int, rng: np.random.Generator
) -> Numbers:
    """Length-controlled win rates in percent of so many draws of prompts, each refitted."""
    count = len(rows.ids)
    at_once = max(1, CELLS // (rows.prompt.size * len(rows.names)))
    found = []
    for first in range(0, draws, at_once):
        now = min(at_once, draws - first)
        drawn = rng.integers(count, size=(now, count)) + count * np.arange(now)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=now * count).reshape(now, count)
        found.append(fit_values(rows, weights.astype(np.float64), penalty, start).values)
    return np.concatenate(found)


def pseudo_values(rows: Rows, penalty: Penalty, fitted: Fitted) -> Numbers:
    """One number in percent for each prompt, whose mean is the length-controlled win rate.

    It is value + n * influence, where the influence of a prompt is the derivative of the value
    with respect to the prompt's weight, at equal weights (the infinitesimal jackknife):

        d value / d w_i = (f_i - value) / n  +  (d value / d b) . (d b / d w_i)
        d b / d w_i = H^-1 (g_i + G ds / d w_i)

    f_i is the prompt's own fitted chance, g_i its gradient of the log-likelihood, H the curvature
    of the whole penalised loss, G the derivative of the summed gradient with respect to the
    standard deviation s by which lengths are divided. Influences are centred, because draws of
    prompts keep the sum of the weights, on which a penalised fit depends.

    Under a lasso a coefficient that is 0 stays there.
    """
    count = len(rows.ids)
    table = games(rows, np.ones((1, count)))
    x, b = table.x[0, -rows.prompt.size :], fitted.coefficients[0]
    p = predicted(table.x, fitted.coefficients)[0, -rows.prompt.size :]
    hessian = curvature(table, fitted.coefficients, penalty)[0]
    moved, slope = _of_spread(rows, x, p, b)
    gradient = by_prompt(rows, x * (rows.preference - p)[:, None]) + slope[:, None] * moved
    free = b != 0.0 if penalty.lasso else np.ones(b.size, dtype=bool)
    change = np.zeros_like(gradient)
    change[:, free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[:, free].T).T
    flat = at_equal_length(rows)
    equal = predicted(flat, fitted.coefficients)[0]
    direction = by_prompt(rows, flat[0] * (equal * (1.0 - equal))[:, None]).sum(axis=0) / count
    influence = (by_prompt(rows, equal[:, None])[:, 0] - equal @ rows.share / count) / count
    influence += change @ direction
    centred = influence - influence.mean()
    return np.asarray(fitted.values[0] + 100.0 * count * centred, dtype=np.float64)


def _of_spread(rows: Rows, x: Numbers, p: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """G, as [coefficients], and ds / dw of every prompt: what rescaling the lengths does."""
    deviation = spread(rows.difference, rows.share[None])[0]
    slope = np.zeros(len(rows.ids))
    if deviation == 0.0:
        return np.zeros(b.size), slope
    change = -(1.0 - x[:, 1] ** 2) * rows.difference / deviation**2
    moved = -x * (p * (1.0 - p) * b[1] * change)[:, None]
    moved[:, 1] += change * (rows.preference - p)
    centre = rows.share @ rows.difference / rows.share.sum()
    square = by_prompt(rows, (rows.difference - centre)[:, None] ** 2)[:, 0]
    slope = (square - deviation**2) / (2.0 * deviation * (len(rows.ids) - 1))
    return rows.share @ moved, slope


def by_prompt(rows: Rows, values: Numbers) -> Numbers:
    """Means over each prompt's rows, as [prompts, columns]."""
    found = np.zeros((len(rows.ids), values.shape[1]))
    np.add.at(found, rows.prompt, values * rows.share[:, None])
    return found


def at_equal_length(rows: Rows) -> Numbers:
    """The covariates [1, rows, coefficients] of answers exactly as long as the baseline's."""
    return _columns(np.zeros((1, rows.prompt.size)), rows.difficulty, bias=1.0)


def spread(difference: Numbers, weights: Numbers) -> Numbers:
    """Standard deviations in characters, as [fits]; 0 where all differences are equal."""
    total = weights.sum(axis=1)
    centred = difference - (weights @ difference / total)[:, None]
    deviation = np.sqrt((weights * centred**2).sum(axis=1) / (total - 1.0))
    rounding = 1e-12 * np.abs(difference).max()
    return np.where(deviation > rounding, deviation, np.float64(0.0))


def scaled(difference: Numbers, deviation: Numbers) -> Numbers:
    """Differences in standard deviations, as [fits, rows]; 0 where all are equal."""
    safe = np.where(deviation > 0.0, deviation, np.inf)
    return np.asarray(difference / safe[:, None], dtype=np.float64)


def _columns(lengths: Numbers, difficulty: Numbers | None, bias: float) -> Numbers:
    columns = [np.full_like(lengths, bias), lengths]
    if difficulty is not None:
        columns.append(np.broadcast_to(difficulty, lengths.shape))
    return np.stack(columns, axis=2)
