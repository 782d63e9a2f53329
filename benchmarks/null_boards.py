"""Boards of methods that are all of one worth, and how often tests find a difference on them.

Scores are in points, per prompt. Of two runs' difference on one prompt the standard deviation is
41.5, as AlpacaEval's annotations have it for models that win 30 to 100 %. Of that variance a half
belongs to the prompt (`even`), or a tenth (`noisy`); `clumped` values lie near 0 and 100, as those
of a sure judge do; `wins` are 0 or 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from harness.stats.components import (
    MeanSquares,
    calibrated,
    median_squares,
    variance_of_mean,
)
from harness.stats.corrections import benjamini_hochberg, holm
from harness.stats.pooling import moderated, spread_of_differences
from harness.stats.power import minimum_detectable_effect

Values = npt.NDArray[np.float64]
Kind = Literal["even", "noisy", "clumped", "wins"]
LEVEL = 0.05
TRUTH = 50.0
SPREAD = 41.5
DIFFICULTY = 20.0
MORE = 4  # times as many boards where they hold one pair only
FOOTERS = 1000  # boards whose minimum detectable effect is computed


@dataclass(frozen=True)
class World:
    """Methods that are all of one worth.

    Attributes:
        kind: the shape of the values.
        methods: rows of the board, the first being the reference method.
        seeds: runs of each.
        prompts: of each run.
        seed_sd: between the true means of a method's runs, points.
        uneven: one method's runs differ three times as much.
    """

    kind: Kind
    methods: int
    seeds: int
    prompts: int
    seed_sd: float
    uneven: bool = False

    def draw(self, rng: np.random.Generator) -> Values:
        """Scores [methods, seeds, prompts]."""
        k, s, n = self.methods, self.seeds, self.prompts
        sd = np.full((k, 1, 1), self.seed_sd)
        sd[-1] *= 3.0 if self.uneven else 1.0
        run = sd * rng.standard_normal((k, s, 1))
        difficulty = DIFFICULTY * rng.standard_normal(n)
        cell = SPREAD / 2**0.5
        if self.kind == "wins":  # the cell's own variance is that of the coin
            chance = TRUTH + difficulty + 12 * rng.standard_normal((k, 1, n)) + run
            return np.where(100 * rng.random((k, s, n)) < chance, 100.0, 0.0)
        share = 0.1 if self.kind == "noisy" else 0.5
        liking = cell * share**0.5 * rng.standard_normal((k, 1, n))
        noise = cell * (1 - share) ** 0.5 * rng.standard_normal((k, s, n))
        if self.kind == "clumped":
            found: Values = 100.0 * special.expit(0.12 * (difficulty + liking + noise)) + run
            return found
        return np.asarray(TRUTH + difficulty + liking + run + noise)


@dataclass
class Rates:
    """Shares of repeats, per cent, but for the last, which is in points."""

    pair: float = 0.0
    pair_on_board: float = 0.0
    holm: float = 0.0
    pairs_bh: float = 0.0
    either: float = 0.0
    mean_held: float = 0.0
    power: float = 0.0
    power_on_board: float = 0.0
    mde: float = 0.0


@dataclass(frozen=True)
class Squares:
    """What a board's tests need: mean squares of all pairs of rows, or of one row's own values."""

    runs: Values
    prompts: Values
    residual: Values
    means: Values


def squares_of_pairs(tables: Values) -> tuple[Squares, Squares]:
    """Those of `mean_squares(tables[i] - tables[j])` for all pairs at once; and of `tables[0]`."""
    k, s, n = tables.shape
    means = tables.mean(axis=(1, 2))
    centred = tables - means[:, None, None]
    runs, prompts = centred.mean(axis=2), centred.mean(axis=1)
    flat = centred.reshape(k, -1)
    i, j = np.triu_indices(k, 1)
    pairs, first = [], []
    for g in (n * runs @ runs.T, s * prompts @ prompts.T, flat @ flat.T):
        pairs.append(g[i, i] + g[j, j] - 2 * g[i, j])
        first.append(g[:1, 0])

    def of(parts: list[Values], gaps: Values) -> Squares:
        left = np.maximum(parts[2] - parts[0] - parts[1], 0.0)
        return Squares(parts[0] / (s - 1), parts[1] / (n - 1), left / ((s - 1) * (n - 1)), gaps)

    return of(pairs, means[i] - means[j]), of(first, means[:1])


@dataclass(frozen=True)
class Tests:
    """Differences, their standard errors and degrees of freedom."""

    gaps: Values
    errors: Values
    df: Values

    def p(self, gain: float = 0.0) -> Values:
        """Two-sided p values, had all differences been larger by a gain."""
        found: Values = 2 * special.stdtr(self.df, -np.abs(self.gaps + gain) / self.errors)
        return found


def tested(squares: Squares, world: World, runs_df: float) -> Tests:
    """Of every pair."""
    n, cells = world.prompts, world.seeds * world.prompts
    total, df = calibrated(squares.runs, squares.prompts, squares.residual, runs_df, n)
    return Tests(squares.means, np.sqrt(total / cells), df)


def beside_others(squares: Squares, tables: Values) -> tuple[Squares, float]:
    """The mean squares between runs as a board has them, and their degrees of freedom."""
    _, s, n = tables.shape
    spread, runs_df, found = spread_of_differences(list(tables)), s - 1.0, []
    for own in squares.runs:
        drawn, runs_df = moderated(MeanSquares(float(own), 0.0, 0.0, s, n), spread)
        found.append(drawn.between_runs)
    return replace(squares, runs=np.array(found)), runs_df


def detectable(squares: Squares, world: World, runs_df: float) -> float:
    """The footer's effect for the first pair, as `difference` has it."""
    runs, prompts, left = squares.runs[0], squares.prompts[0], squares.residual[0]
    first = MeanSquares(float(runs), float(prompts), float(left), world.seeds, world.prompts)
    usual = median_squares(first, runs_df)
    variance, df = variance_of_mean(usual, runs_df)
    return minimum_detectable_effect(variance**0.5, df)


def any_claim(p: Values, methods: int) -> tuple[bool, bool]:
    """Whether Holm finds a difference to the first row, and Benjamini-Hochberg one of a pair."""
    to_first = list(p[: methods - 1])  # the first row's pairs come first
    return min(holm(to_first)) < LEVEL, min(benjamini_hochberg(list(p))) < LEVEL


def measured(world: World, repeats: int, seed: int) -> Rates:
    """The rates of a world, of so many boards."""
    rng = np.random.default_rng([seed, repeats, *map(ord, repr(world))])
    own: list[tuple[Squares, float]] = []
    board: list[tuple[Squares, float]] = []
    firsts: list[Squares] = []
    for _ in range(repeats):
        tables = world.draw(rng)
        pairs, first = squares_of_pairs(tables)
        firsts.append(first)
        own.append((pairs, world.seeds - 1.0))
        board.append(beside_others(pairs, tables) if world.methods > 2 else own[-1])
    rates = Rates()
    tests = [tested(squares, world, df) for squares, df in board]
    claims = np.array([any_claim(test.p(), world.methods) for test in tests])
    rates.holm, rates.pairs_bh = map(float, 100 * claims.mean(axis=0))
    rates.either = 100 * float(claims.any(axis=1).mean())
    rates.pair_on_board = 100 * float(np.mean([test.p() < LEVEL for test in tests]))
    rates.mde, rates.power_on_board = _power(board, tests, world)
    alone = [tested(squares, world, df) for squares, df in own]
    rates.pair = 100 * float(np.mean([test.p() < LEVEL for test in alone]))
    rates.power = _power(own, alone, world)[1]
    means = [tested(squares, world, world.seeds - 1.0) for squares in firsts]
    rates.mean_held = 100 * float(np.mean([mean.p(-TRUTH) >= LEVEL for mean in means]))
    return rates


def _power(
    boards: Sequence[tuple[Squares, float]], tests: Sequence[Tests], world: World
) -> tuple[float, float]:
    """The median footer's detectable effect, and in how many of 100 tests it is found."""
    gain = float(np.median([detectable(s, world, df) for s, df in boards[:FOOTERS]]))
    return gain, 100 * float(np.mean([test.p(gain) < LEVEL for test in tests]))
