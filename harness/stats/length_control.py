"""Win rates against a baseline, corrected for what length alone does to the judge.

Source: Dubois et al. 2024, arXiv:2404.04475. `harness.stats.length_model` has the formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from harness.stats.length_diagnostics import Diagnostics, diagnose
from harness.stats.length_model import bootstrap, by_prompt, fit_values, pseudo_values
from harness.stats.length_penalty import Regularisation, penalty_of
from harness.stats.length_rows import Difficulty, checked_rows
from harness.stats.logistic import Numbers
from harness.stats.power import t_quantile


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate, all figures in percent unless said otherwise.

    Attributes:
        value: mean over prompts of the fitted chance to win with an answer exactly as long as the
            baseline's.
        interval: at the level asked for; percentiles of the bootstrap. It covers prompts, not
            repetitions of training.
        standard_error: standard deviation of the bootstrap.
        raw: mean over prompts of the preference.
        raw_standard_error: of `raw`, over prompts.
        coefficients: `bias`, `length` (above 0 where the judge likes longer answers) and, where it
            was used, `difficulty`; in logits.
        per_prompt: by prompt id, the value's pseudo-values: their mean is `value`, and paired
            tests of them are tests of length-controlled win rates. They may leave 0 to 100.
        diagnostics: what to know before believing it.
    """

    value: float
    interval: tuple[float, float]
    standard_error: float
    raw: float
    raw_standard_error: float
    coefficients: Mapping[str, float]
    per_prompt: Mapping[object, float]
    diagnostics: Diagnostics


def length_controlled_win_rate(
    frame: pd.DataFrame,
    *,
    difficulty: Difficulty | None = None,
    regularisation: Regularisation = "fixed",
    baseline_rows: pd.DataFrame | None = None,
    folds: npt.ArrayLike | None = None,
    draws: int = 1000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> LengthControlled:
    """The win rate in percent that answers as long as the baseline's would have.

    "fixed" is our form: a ridge of 1 / 2.5**2 on the coefficients of length and difficulty. A
    ridge, because it leaves the figure a smooth function of the data, which the bootstrap and the
    pseudo-values rely on, and a lasso does not; on these coefficients alone, because where data
    cannot tell the effect of length the figure then falls back on the raw win rate, while a penalty
    on the bias would pull it to 50; fixed, because a choice among ten by cross-validation moves
    the figure by chance. AlpacaEval's form is a C or "cross-validated", with its `baseline_rows`
    and difficulties.

    Args:
        frame: columns `prompt_id`, `preference` (0 to 1, for the model), `length` and
            `baseline_length` (characters). Several rows of a prompt (samples, temperatures) count
            as one prompt, each alike or by a column `weight` (above 0). Rows without a preference
            are left out and counted.
        difficulty: of every prompt, joined by id: a mapping, a series, or a frame with columns
            `prompt_id` and `difficulty` (or AlpacaEval's `index` and `instruction_difficulty`).
            Without it the chance depends on length alone. AlpacaEval itself joins by row, so that
            of a model with missing answers it publishes another figure.
        regularisation: "fixed", "cross-validated" (C out of AlpacaEval's ten; chosen once, not
            in every draw of the bootstrap) or AlpacaEval's C.
        baseline_rows: judged rewrites of the baseline's own answers, with columns `preference`,
            `weight`, `length` and `baseline_length` (or `standardised_difference`), `prompt_id`
            or `difficulty` if difficulties are used, `model` if there are several rewrites; or
            AlpacaEval's own table, `df_gamed.csv`.
        folds: of the cross-validation; see `harness.stats.length_penalty.chosen_c`.
        draws: of the bootstrap over prompts, each refitted. With 0 the standard error and a t
            interval come from the pseudo-values, in a hundredth of the time.
        level: coverage of the interval.
        rng: draws the prompts.

    Raises:
        ValueError: a column, a difficulty or a number is missing or out of range.
    """
    if draws < 0 or draws == 1 or not 0.0 < level < 1.0:
        raise ValueError(f"draws must be 0 or at least 2 and level in (0, 1): {draws}, {level}")
    rows = checked_rows(frame, difficulty, baseline_rows)
    penalty = penalty_of(rows, regularisation, folds)
    fitted = fit_values(rows, np.ones((1, len(rows.ids))), penalty)
    value, coefficients = float(fitted.values[0]), fitted.coefficients[0]
    pseudo = pseudo_values(rows, penalty, fitted)
    if draws:
        drawn = bootstrap(rows, penalty, coefficients, draws, rng)
        error, interval = float(drawn.std(ddof=1)), _percentiles(drawn, level)
    else:
        error, interval = _t_interval(pseudo, value, level)
    c = 1.0 / penalty.lasso if penalty.lasso else None
    raw = 100.0 * by_prompt(rows, rows.preference[:, None])[:, 0]
    return LengthControlled(
        value=value,
        interval=interval,
        standard_error=error,
        raw=float(raw.mean()),
        raw_standard_error=_standard_error(raw),
        coefficients=dict(zip(rows.names, map(float, coefficients), strict=True)),
        per_prompt=dict(zip(rows.ids, map(float, pseudo), strict=True)),
        diagnostics=diagnose(rows, value, float(raw.mean()), c),
    )


def win_rate_at_equal_length(
    coefficients: Mapping[str, float], difficulties: Iterable[float] = (0.0,)
) -> float:
    """The win rate in percent that coefficients say, over prompts of these difficulties.

    The model is transitive: the difference of two models' coefficients against one baseline gives
    the win rate of the one against the other.
    """
    slope = coefficients.get("difficulty", 0.0)
    linear = coefficients["bias"] + slope * np.fromiter(difficulties, dtype=np.float64)
    return 100.0 * float(special.expit(linear).mean())


def _percentiles(drawn: Numbers, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1.0 - level) / 2, (1.0 + level) / 2])
    return float(low), float(high)


def _t_interval(pseudo: Numbers, value: float, level: float) -> tuple[float, tuple[float, float]]:
    error = _standard_error(pseudo)
    half = t_quantile(pseudo.size - 1, level) * error
    return error, (max(0.0, value - half), min(100.0, value + half))


def _standard_error(values: Numbers) -> float:
    return float(values.std(ddof=1)) / math.sqrt(values.size)
