"""Whether p values and intervals hold what they say, on scores whose truth is known.

Scores are in points. Per-prompt differences of two runs have a standard deviation of 41.5, as that
of AlpacaEval annotations of models that win 30 to 100 % (a detectable effect of 4.1 points on 805
prompts), of which half the variance, or a stated share, belongs to the prompt and not to the cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from harness.stats.components import MeanSquares, variance_of_mean
from harness.stats.difference import Estimate, difference, estimate
from harness.stats.power import t_quantile

Values = npt.NDArray[np.float64]
TRUTH = 50.0


@dataclass(frozen=True)
class World:
    """Two methods of equal worth.

    Attributes:
        seed_sd: between the true means of runs of one method, in points.
        shared: correlation of the means of two runs of one seed.
        by_prompt: share of the variance of a cell's difference that belongs to its prompt.
        wins: scores are 0 or 100 and not normal.
    """

    seed_sd: float
    seeds: int
    prompts: int = 200
    shared: float = 0.0
    by_prompt: float = 0.5
    wins: bool = False
    spread: float = 41.5

    def draw(self, rng: np.random.Generator) -> tuple[Values, Values]:
        """The scores of both methods [seeds, prompts]."""
        s, n = self.seeds, self.prompts
        common = rng.normal(0, 1, (s, 1))
        difficulty = rng.normal(TRUTH, 20, n)
        return self._method(rng, difficulty, common), self._method(rng, difficulty, common)

    def _method(self, rng: np.random.Generator, difficulty: Values, common: Values) -> Values:
        s, n = self.seeds, self.prompts
        own = rng.normal(0, 1, (s, 1))
        run = self.seed_sd * (np.sqrt(self.shared) * common + np.sqrt(1 - self.shared) * own)
        if self.wins:  # the cell's own variance is that of the coin
            chance = np.clip(difficulty + rng.normal(0, 12, n) + run, 0, 100)
            return 100.0 * (rng.random((s, n)) * 100 < chance)
        half = self.spread / np.sqrt(2)
        liking = rng.normal(0, half * np.sqrt(self.by_prompt), n)
        return difficulty + liking + run + rng.normal(0, half * np.sqrt(1 - self.by_prompt), (s, n))


def rejections(world: World, repeats: int, seed: int = 0) -> float:
    """How often `difference` says 5 % where there is none."""
    rng = np.random.default_rng(seed)
    found = [difference(*world.draw(rng)).p for _ in range(repeats)]
    return float(np.mean([p is not None and p < 0.05 for p in found]))


def rejections_by_prompts_only(world: World, repeats: int, seed: int = 0) -> float:
    """How often the paired t test over prompts does, of scores averaged over seeds."""
    rng = np.random.default_rng(seed)
    d = [np.subtract(*world.draw(rng)).mean(axis=0) for _ in range(repeats)]
    return float((stats.ttest_1samp(np.array(d), 0.0, axis=1).pvalue < 0.05).mean())


def holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


DESIGNS = [(seed_sd, seeds) for seed_sd in (0.0, 1.0, 2.0) for seeds in (3, 5)]


@pytest.mark.parametrize(("seed_sd", "seeds"), DESIGNS)
def test_false_positives_stay_near_five_percent(seed_sd: float, seeds: int) -> None:
    assert 0.02 <= rejections(World(seed_sd, seeds), 1000) <= 0.08


def test_false_positives_stay_near_five_percent_where_runs_are_what_differs() -> None:
    """Where few runs carry the whole variance, and degrees of freedom decide the size."""
    assert 0.02 <= rejections(World(4.0, 5, prompts=805), 1000) <= 0.08
    assert 0.04 <= false_positives(20.0, 6.0, (5, 200), 10_000) <= 0.065
    assert 0.04 <= false_positives(100.0, 1.5, (3, 200), 10_000) <= 0.065


@pytest.mark.parametrize(("seed_sd", "seeds"), DESIGNS)
def test_the_interval_of_a_mean_holds_the_truth_19_times_in_20(seed_sd: float, seeds: int) -> None:
    rng = np.random.default_rng(1)
    world = World(seed_sd, seeds)
    held = [holds(estimate(world.draw(rng)[0]), TRUTH) for _ in range(1000)]
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_the_interval_of_a_difference_holds_a_true_gain(shared: float) -> None:
    rng = np.random.default_rng(2)
    world = World(2.0, 3, shared=shared)
    drawn = [world.draw(rng) for _ in range(1000)]
    held = [holds(difference(a + 4.0, b), 4.0) for a, b in drawn]
    assert 0.92 <= np.mean(held) <= 0.98


def test_prompts_alone_would_not_pass() -> None:
    for seeds in (3, 5):
        assert rejections_by_prompts_only(World(2.0, seeds), 4000) > 0.08
        assert rejections_by_prompts_only(World(2.0, seeds, prompts=805), 1000) > 0.16


def test_prompts_alone_would_pass_where_seeds_do_not_matter() -> None:
    assert 0.04 <= rejections_by_prompts_only(World(0.0, 3), 4000) <= 0.06


def test_one_seed_rejects_far_too_often_about_methods() -> None:
    """Which is why its scope is "prompts only"."""
    world = World(2.0, 1, prompts=805)
    assert rejections(world, 500) > 0.25
    assert difference(*world.draw(np.random.default_rng(3))).scope == "prompts only"


def test_the_detectable_effect_is_detected_four_times_in_five() -> None:
    world = World(1.0, 5)
    rng = np.random.default_rng(4)
    null = [difference(*world.draw(rng)) for _ in range(400)]
    gain = float(np.median([found.mde for found in null]))
    p = [difference(a + gain, b).p for a, b in (world.draw(rng) for _ in range(600))]
    assert 0.72 <= np.mean([x is not None and x < 0.05 for x in p]) <= 0.88


def false_positives(runs: float, prompts: float, shape: tuple[int, int], repeats: int) -> float:
    """The same rate from mean squares drawn straight from their distributions.

    Args:
        runs: expected mean square between runs, where that of the residual is 1.
        prompts: expected mean square between prompts.
        shape: seeds and prompts.
        repeats: number of tests.
    """
    rng = np.random.default_rng(5)
    s, n = shape
    between_runs = runs * rng.chisquare(s - 1, repeats) / (s - 1)
    between_prompts = prompts * rng.chisquare(n - 1, repeats) / (n - 1)
    residual = rng.chisquare((s - 1) * (n - 1), repeats) / ((s - 1) * (n - 1))
    mean = rng.normal(0, np.sqrt((runs + prompts - 1) / (s * n)), repeats)
    rejected = 0
    for r, p, e, value in zip(between_runs, between_prompts, residual, mean, strict=True):
        variance, df = variance_of_mean(MeanSquares(r, p, e, runs=s, prompts=n))
        rejected += bool(abs(value) > t_quantile(df, 0.95) * np.sqrt(variance))
    return rejected / repeats


EXTREMES = [
    (1 + ratio * (1 + s * split), 1 + s * split, s)
    for s in (2, 3, 5, 10)
    for split in (0.0, 1.0, 9.0)
    for ratio in (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
]


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "prompts", "seeds"), EXTREMES)
def test_no_mixture_of_variances_rejects_beyond_what_is_declared(
    runs: float, prompts: float, seeds: int
) -> None:
    """What `variance_of_mean` declares; the bounds leave 3 standard errors of the simulation."""
    rate = false_positives(runs, prompts, (seeds, 200), 20_000)
    assert rate <= {2: 0.09, 3: 0.08}.get(seeds, 0.065) + 0.005
    if seeds == 2 and runs - 1 <= 10 * prompts:
        assert rate <= 0.05 + 0.005


@pytest.mark.slow
@pytest.mark.parametrize(("seed_sd", "seeds"), DESIGNS)
def test_false_positives_are_five_percent_within_one_and_a_half(seed_sd: float, seeds: int) -> None:
    assert 0.035 <= rejections(World(seed_sd, seeds), 10_000) <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [200, 805])
@pytest.mark.parametrize(("seed_sd", "seeds"), DESIGNS)
def test_wins_are_tested_on_the_safe_side(seed_sd: float, seeds: int, prompts: int) -> None:
    """A coin in each cell is nearly all residual, where clipping makes the test conservative.

    It does not reach 3.5 %: measured 1.9 to 3.4 % with seed sds up to 1 point.
    """
    assert 0.015 <= rejections(World(seed_sd, seeds, prompts, wins=True), 4_000) <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_order_of_data_that_runs_share_does_not_spoil_the_test(
    seeds: int, shared: float
) -> None:
    """With three seeds of 2 points on 805 prompts it does not stay below 6.5 %: measured 6.9 %."""
    rate = rejections(World(2.0, seeds, 805, shared=shared), 4_000)
    assert 0.03 <= rate <= (0.08 if seeds == 3 else 0.065)
