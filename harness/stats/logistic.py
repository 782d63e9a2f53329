"""Logistic regressions with soft targets and a penalty, many weightings of one table at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Numbers = npt.NDArray[np.float64]

CLOSE = 1e-9  # the largest step that ends the search, in units of the coefficients
STEPS, HALVINGS, SWEEPS = 200, 40, 1000


@dataclass(frozen=True)
class Penalty:
    """What is added to the summed loss for coefficients b: sum(ridge * b**2) / 2 + lasso * sum|b|.

    Attributes:
        ridge: one for each coefficient.
        lasso: one for all.
    """

    ridge: Numbers
    lasso: float = 0.0


@dataclass(frozen=True)
class Games:
    """What is fitted: P(y = 1) = 1 / (1 + exp(-x b)).

    Attributes:
        x: covariates [1, rows, coefficients], or [fits, rows, coefficients] where each has its own.
        y: targets in [0, 1], as [rows]; one between the ends counts as that share of a 1.
        weights: of the rows' losses, as [fits, rows].
    """

    x: Numbers
    y: Numbers
    weights: Numbers

    def subset(self, fits: npt.NDArray[np.int_]) -> Games:
        """Some of the fits."""
        x = self.x if self.x.shape[0] == 1 else self.x[fits]
        return Games(x, self.y, self.weights[fits])


def fit(games: Games, penalty: Penalty, start: Numbers | None = None) -> Numbers:
    """The coefficients [fits, coefficients] of least penalised loss, to about 1e-9.

    Newton's steps, halved where they overshoot; with a lasso each step is found by coordinate
    descent, so that a coefficient is exactly 0 where it should be.

    Args:
        games: the rows and the weights of each fit.
        penalty: alike for all fits. Without it rows that can be separated have no answer.
        start: where the search begins, as [coefficients]; 0 unless given.

    Raises:
        RuntimeError: a fit did not settle.
    """
    fits, size = games.weights.shape[0], games.x.shape[2]
    found = np.zeros((fits, size)) if start is None else np.tile(start, (fits, 1))
    moving = np.arange(fits)
    for _ in range(STEPS):
        part = games.subset(moving)
        steps = _steps(part, found[moving], penalty)
        found[moving] += steps
        # A step far below the coefficients themselves is rounding.
        bound = CLOSE * np.maximum(1.0, np.abs(found[moving]).max(axis=1))
        moving = moving[np.abs(steps).max(axis=1) > bound]
        if not moving.size:
            return found
    raise RuntimeError(
        f"{moving.size} of {fits} logistic fits did not settle in {STEPS} steps: "
        "the rows can probably be separated and the penalty is too weak to bound the coefficients"
    )


def predicted(x: Numbers, coefficients: Numbers) -> Numbers:
    """P(y = 1) of every row and fit, as [fits, rows]."""
    return np.asarray(special.expit(_linear(x, coefficients)), dtype=np.float64)


def curvature(games: Games, coefficients: Numbers, penalty: Penalty) -> Numbers:
    """The Hessian of the penalised loss [fits, coefficients, coefficients], kinks left out."""
    p = predicted(games.x, coefficients)
    weighted = np.swapaxes(games.x, 1, 2) * (games.weights * p * (1.0 - p))[:, None, :]
    return np.asarray(weighted @ games.x + np.diag(penalty.ridge), dtype=np.float64)


def _linear(x: Numbers, coefficients: Numbers) -> Numbers:
    return np.asarray((x @ coefficients[:, :, None])[:, :, 0], dtype=np.float64)


def _steps(games: Games, at: Numbers, penalty: Penalty) -> Numbers:
    p = predicted(games.x, at)
    residual = games.weights * (p - games.y)
    gradient = (residual[:, None, :] @ games.x)[:, 0, :] + penalty.ridge * at
    hessian = curvature(games, at, penalty)
    if penalty.lasso:
        steps = _lasso_steps(at, gradient, hessian, penalty.lasso)
    else:
        newton = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        steps = np.asarray(-newton, dtype=np.float64)
    return _halved(games, at, steps, penalty)


def _lasso_steps(at: Numbers, gradient: Numbers, hessian: Numbers, lasso: float) -> Numbers:
    """The minimum of the quadratic model plus the lasso, by coordinate descent."""
    steps = np.zeros_like(at)
    for _ in range(SWEEPS):
        before = steps.copy()
        for j in range(at.shape[1]):
            own = np.maximum(hessian[:, j, j], 1e-300)
            others = gradient[:, j] + (hessian[:, j, :] * steps).sum(axis=1)
            free = own * (at[:, j] + steps[:, j]) - others
            shrunk = np.sign(free) * np.maximum(np.abs(free) - lasso, 0.0)
            steps[:, j] = shrunk / own - at[:, j]
        if np.abs(steps - before).max() < CLOSE / 10:
            break
    return steps


def _halved(games: Games, at: Numbers, steps: Numbers, penalty: Penalty) -> Numbers:
    """The steps, halved until none makes the penalised loss larger than rounding can."""
    before = _losses(games, at, penalty)
    for _ in range(HALVINGS):
        worse = _losses(games, at + steps, penalty) > before + 1e-12 * (1.0 + np.abs(before))
        if not worse.any():
            break
        steps = steps * np.where(worse, 0.5, 1.0)[:, None]
    return steps


def _losses(games: Games, at: Numbers, penalty: Penalty) -> Numbers:
    linear = _linear(games.x, at)
    # log(1 + exp(z)) - y z
    losses = np.maximum(linear, 0.0) + np.log1p(np.exp(-np.abs(linear))) - games.y * linear
    added = (penalty.ridge * at**2).sum(axis=1) / 2 + penalty.lasso * np.abs(at).sum(axis=1)
    return np.asarray((games.weights * losses).sum(axis=1) + added, dtype=np.float64)
