"""How strongly the coefficients of a length-controlled win rate are held back."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.stats.length_model import games
from harness.stats.length_rows import Rows
from harness.stats.logistic import Games, Penalty, fit, predicted

Regularisation = Literal["fixed", "cross-validated"] | float

FOLDS = 5
CANDIDATES = np.logspace(-4, 4, 10)  # AlpacaEval's

# The standard deviation of a normal prior on the coefficients of length and difficulty. Length
# enters as a tanh of standard deviations, where coefficients of published models lie between 0.9
# and 3. The bias has none to speak of: to hold it back would pull every win rate towards 50 %.
SCALE = 2.5
ALMOST_NONE = 1e-6  # bounds the bias where every preference is 1


def penalty_of(rows: Rows, regularisation: Regularisation, folds: npt.ArrayLike | None) -> Penalty:
    """The penalty that was asked for, C chosen where it is to be chosen.

    Raises:
        ValueError: an unknown name, a C that is not a positive number, or folds that do not fit.
    """
    if folds is not None and regularisation != "cross-validated":
        raise ValueError("folds are read only where regularisation is 'cross-validated'")
    if regularisation == "fixed":
        return fixed_penalty(len(rows.names))
    if regularisation == "cross-validated":
        return lasso_penalty(chosen_c(rows, folds), len(rows.names))
    if isinstance(regularisation, str) or not 0.0 < regularisation < np.inf:
        raise ValueError(
            f"regularisation is {regularisation!r}: expected 'fixed', 'cross-validated' or a "
            "positive number (AlpacaEval's C)"
        )
    return lasso_penalty(float(regularisation), len(rows.names))


def fixed_penalty(size: int) -> Penalty:
    """A ridge of 1 / 2.5**2 on all coefficients but the bias, however many rows there are."""
    ridge = np.full(size, SCALE**-2)
    ridge[0] = ALMOST_NONE
    return Penalty(ridge)


def lasso_penalty(c: float, size: int) -> Penalty:
    """AlpacaEval's objective, sum|b| + C * sum of losses, divided by C."""
    return Penalty(np.zeros(size), lasso=1.0 / c)


def chosen_c(rows: Rows, folds: npt.ArrayLike | None = None) -> float:
    """The C among AlpacaEval's ten with the least held-out loss, as the mean over five folds.

    AlpacaEval's own folds depend on a library's sorting of ties, and with them the win rate, by up
    to 0.15 points. Here prompts are dealt to the folds in the order of their ids.

    Args:
        rows: the judged answers.
        folds: the fold of every row, those of rewritten baselines first, then the frame's, each in
            the order given; dealt by id unless given.
    """
    table = games(rows, np.ones((1, len(rows.ids))))
    place = _dealt(rows) if folds is None else _given(rows, folds)
    names = np.unique(place)
    held_out = place == names[:, None]
    kept = np.where(held_out, 0.0, table.weights)
    losses = [
        _held_out_loss(Games(table.x, table.y, kept), table, held_out, float(c)) for c in CANDIDATES
    ]
    return float(CANDIDATES[int(np.argmin(losses))])


def _held_out_loss(kept: Games, table: Games, held_out: npt.NDArray[np.bool_], c: float) -> float:
    coefficients = fit(kept, lasso_penalty(c, kept.x.shape[2]))
    p = np.clip(predicted(kept.x, coefficients), 1e-15, 1.0 - 1e-15)
    losses = -table.weights * (table.y * np.log(p) + (1.0 - table.y) * np.log(1.0 - p))
    return float(((losses * held_out).sum(axis=1) / held_out.sum(axis=1)).mean())


def _dealt(rows: Rows) -> npt.NDArray[np.int_]:
    others = 0 if rows.baseline is None else rows.baseline.weight.size
    if len(rows.ids) < FOLDS:
        raise ValueError(f"{len(rows.ids)} prompts cannot be dealt to {FOLDS} folds")
    return np.concatenate([np.arange(others), rows.prompt]) % FOLDS


def _given(rows: Rows, folds: npt.ArrayLike) -> npt.NDArray[np.int_]:
    others = 0 if rows.baseline is None else rows.baseline.weight.size
    given = np.asarray(folds)
    expected = others + rows.prompt.size + rows.dropped
    if given.shape != (expected,):
        raise ValueError(
            f"folds have shape {given.shape}: expected one for each of the {expected} rows, those "
            "of baseline_rows first"
        )
    found = np.concatenate([given[:others], given[others:][rows.position]])
    apart = np.flatnonzero((np.diff(found[others:]) != 0) & (np.diff(rows.prompt) == 0))
    if apart.size:
        raise ValueError(f"prompt '{rows.ids[rows.prompt[apart[0]]]}' lies in two folds")
    if np.unique(found).size < 2:
        raise ValueError("folds: all rows lie in one, and nothing would be left to fit")
    return np.asarray(found, dtype=np.int_)
