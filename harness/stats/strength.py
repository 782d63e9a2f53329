"""Bradley-Terry strengths of methods from judged games, as Arena-Hard reports them.

Source: Bradley and Terry 1952, Biometrika 39, 324-345; style control as in the second version of
Arena-Hard (Li et al. 2024, arXiv:2406.11939).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from harness.stats.logistic import Games, Numbers, Penalty, fit
from harness.stats.strength_rows import Table, played, tallies

CELLS = 2**20  # numbers of one temporary array
ALMOST_NONE = 1e-6  # a ridge that only bounds the strength of who won or lost every game


@dataclass(frozen=True)
class Strength:
    """How strong one method is.

    Attributes:
        value: chance in percent to win against the baseline; the baseline's own is 50.
        interval: percentiles of the bootstrap, in percent.
        standard_error: standard deviation of the bootstrap, in points.
        log_odds: of `value`; differences between two methods are log odds of one against the other.
        games: judged rows in which the method took part.
    """

    value: float
    interval: tuple[float, float]
    standard_error: float
    log_odds: float
    games: int


@dataclass(frozen=True)
class StyleEffect:
    """What one standard deviation more of a covariate does to the log odds of winning."""

    log_odds: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Strengths:
    """Strengths of several methods, strongest first.

    Attributes:
        methods: by name, the baseline among them.
        style: by covariate; empty without style control.
        warnings: sentences about strengths that the games cannot tell.
    """

    methods: Mapping[str, Strength]
    style: Mapping[str, StyleEffect]
    warnings: tuple[str, ...]


def strengths(
    frame: pd.DataFrame,
    *,
    baseline: str = "baseline",
    style: pd.DataFrame | None = None,
    centred: bool = False,
    draws: int = 1000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Strengths:
    """Strengths against a baseline, fitted to all games together.

    The interval is a bootstrap that draws prompts, refitted, because games on one prompt are not
    independent; Arena-Hard draws games, and its interval (90 %) is too narrow.

    Args:
        frame: columns `prompt_id`, `method` and `preference` (0 to 1, for the method), and where
            methods also met one another `opponent`; without it all games are against `baseline`.
            Rows without a preference are left out.
        baseline: the name that is held at 50 %.
        style: differences of style, method less opponent, one row for each of `frame` in its
            order, as `style_differences` makes them. Each is divided by its standard deviation
            over all games. The strength is then that of answers styled like the baseline's.
        centred: subtract each covariate's mean first, as Arena-Hard does. A strength is then one
            at the average difference of the games at hand: add a method, and all of them move.
        draws: of the bootstrap.
        level: coverage of the intervals.
        rng: draws the prompts.

    Raises:
        ValueError: a column is missing, a number is out of range, or no chain of games leads from
            a method to the baseline.
    """
    if draws < 2 or not 0.0 < level < 1.0:
        raise ValueError(f"draws must be at least 2 and level in (0, 1): {draws}, {level}")
    table = played(frame, baseline, style, centred=centred)
    everything = np.ones((1, table.prompts))
    found = _fit(table, everything, None)[0]
    drawn = _bootstrap(table, found, draws, rng)
    count, rounded = len(table.methods) - 1, table.count_games()
    methods = {
        name: _strength(found[i], drawn[:, i], level, rounded[name])
        for i, name in enumerate(table.methods[1:])
    }
    methods[baseline] = Strength(50.0, (50.0, 50.0), 0.0, 0.0, rounded[baseline])
    effects = {
        name: StyleEffect(float(found[i]), _percentiles(drawn[:, i], level))
        for i, name in enumerate(table.covariates, start=count)
    }
    order = sorted(methods, key=lambda name: -methods[name].log_odds)
    return Strengths(
        {name: methods[name] for name in order},
        effects,
        tuple(table.one_sided()),
    )


def style_differences(answers: pd.DataFrame, opponents: pd.DataFrame) -> pd.DataFrame:
    """Arena-Hard's covariates of style: columns `length`, `headers`, `lists` and `bold`.

    Length: (a - b) / (a + b), in words. Of the others, with densities a and b per word:
    (a - b) / (a + b + 1). An answer without words has density 0.

    Args:
        answers: counts of the methods' answers, columns `words`, `headers`, `lists` and `bold`.
        opponents: the same of the answers that they were judged against, in the same order.
    """
    if len(answers) != len(opponents):
        raise ValueError(f"{len(answers)} answers, but {len(opponents)} of opponents")
    words, others = (f["words"].to_numpy(dtype=np.float64) for f in (answers, opponents))
    columns = {"length": (words - others) / np.maximum(words + others, 1.0)}
    for name in ("headers", "lists", "bold"):
        a = answers[name].to_numpy(dtype=np.float64) / np.maximum(words, 1.0)
        b = opponents[name].to_numpy(dtype=np.float64) / np.maximum(others, 1.0)
        columns[name] = (a - b) / (a + b + 1.0)
    return pd.DataFrame(columns)


def _fit(table: Table, prompt_weights: Numbers, start: Numbers | None) -> Numbers:
    """Log odds of all methods but the baseline, then of the covariates, as [fits, coefficients]."""
    if table.covariates:
        games = Games(table.x[None], table.preference, prompt_weights[:, table.prompt])
    else:
        games = tallies(table, prompt_weights)
    return fit(games, Penalty(np.full(table.x.shape[1], ALMOST_NONE)), start)


def _bootstrap(table: Table, start: Numbers, draws: int, rng: np.random.Generator) -> Numbers:
    rows, size = table.x.shape
    at_once = max(1, CELLS // (rows * size if table.covariates else table.prompts))
    found = []
    for first in range(0, draws, at_once):
        now = min(at_once, draws - first)
        weights = rng.multinomial(table.prompts, np.full(table.prompts, 1 / table.prompts), now)
        found.append(_fit(table, weights.astype(np.float64), start))
    return np.concatenate(found)


def _strength(log_odds: float, drawn: Numbers, level: float, games: int) -> Strength:
    shares = 100.0 * np.asarray(special.expit(drawn), dtype=np.float64)
    return Strength(
        value=100.0 * float(special.expit(log_odds)),
        interval=_percentiles(shares, level),
        standard_error=float(shares.std(ddof=1)),
        log_odds=float(log_odds),
        games=games,
    )


def _percentiles(drawn: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1.0 - level) / 2, (1.0 + level) / 2])
    return float(low), float(high)
