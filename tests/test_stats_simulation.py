"""Whether p values and intervals hold what they say, on scores whose truth is known.

Scores are in points. Per-prompt differences of two runs have a standard deviation of 41.5, as that
of AlpacaEval annotations of models that win 30 to 100 % (a detectable effect of 4.1 points on 805
prompts), of which half the variance, or a stated share, belongs to the prompt and not to the cell.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special, stats

from harness.stats.components import calibrated
from harness.stats.difference import Estimate, difference, estimate
from harness.stats.pooling import spread_of_differences

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


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_detectable_effect_is_detected_four_times_in_five(seeds: int) -> None:
    world = World(1.0, seeds)
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
    total, df = calibrated(between_runs, between_prompts, residual, s - 1.0, n)
    critical = -special.stdtrit(df, 0.025) * np.sqrt(total / (s * n))
    return float(np.mean(np.abs(mean) > critical))


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
    assert rate + 0.005 >= 0.02
    assert rate <= 0.05 + 0.005


@pytest.mark.slow
@pytest.mark.parametrize(("seed_sd", "seeds"), DESIGNS)
def test_false_positives_are_five_percent_within_one_and_a_half(seed_sd: float, seeds: int) -> None:
    assert 0.035 <= rejections(World(seed_sd, seeds), 10_000) <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [200, 805])
@pytest.mark.parametrize(("seed_sd", "seeds"), DESIGNS)
def test_wins_are_tested_as_well_as_normal_values(seed_sd: float, seeds: int, prompts: int) -> None:
    """A coin in each cell is nearly all residual, and seeds add little to it."""
    assert 0.035 <= rejections(World(seed_sd, seeds, prompts, wins=True), 4_000) <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_order_of_data_that_runs_share_does_not_spoil_the_test(
    seeds: int, shared: float
) -> None:
    assert 0.035 <= rejections(World(2.0, seeds, 805, shared=shared), 4_000) <= 0.065


@pytest.fixture
def null_boards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's boards, which are no part of the distribution."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return importlib.import_module("benchmarks.null_boards")


def test_the_benchmark_tests_what_boards_test(null_boards: Any) -> None:
    """Its squares of all pairs at once are those that `difference` finds pair by pair."""
    world = null_boards.World("even", 4, 3, 50, 2.0)
    tables = world.draw(np.random.default_rng(0))
    squares, first = null_boards.squares_of_pairs(tables)
    drawn, df = null_boards.beside_others(squares, tables)
    alone, board = null_boards.tested(squares, world, 2.0), null_boards.tested(drawn, world, df)
    spread = spread_of_differences(list(tables))
    for at, (i, j) in enumerate(combinations(range(4), 2)):
        own = difference(tables[i], tables[j])
        beside = difference(tables[i], tables[j], spread=spread)
        assert alone.p()[at] == pytest.approx(own.p)
        assert board.p()[at] == pytest.approx(beside.p)
        assert board.errors[at] == pytest.approx(beside.standard_error)
    mde = difference(tables[0], tables[1], spread=spread).mde
    assert null_boards.detectable(drawn, world, df) == pytest.approx(mde)
    one = null_boards.tested(first, world, 2.0)
    mean = estimate(tables[0])
    assert (one.gaps[0], one.errors[0], one.df[0]) == pytest.approx(
        (mean.value, mean.standard_error, mean.df)
    )


@pytest.mark.usefixtures("null_boards")
def test_the_benchmark_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("benchmarks.error_rates").main
    main(["--quick", "--repeats", "5", "--processes", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("| even |", "| wins |")) for line in lines) == 16
    ends = [line.split("|")[1:3] for line in lines[-4:]]
    assert [[int(x) for x in pair] for pair in ends] == [[2, 3], [2, 5], [12, 3], [12, 5]]


@pytest.mark.usefixtures("null_boards")
def test_the_benchmark_says_what_other_tests_would_have_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = importlib.import_module("benchmarks.error_rates")
    module.main(["--others", "--repeats", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3 * 2 * 3
    world = module.World("even", 2, 3, 805, 2.0)
    prompts_only, _, _, ours = module.other_tests(world, 150, 0)
    assert prompts_only > 2 * ours


def test_twelve_rows_tested_pair_by_pair_would_claim_far_too_often(null_boards: Any) -> None:
    world, rng = null_boards.World("even", 12, 3, 805, 2.0), np.random.default_rng(6)
    alone = beside = 0
    for _ in range(150):
        tables = world.draw(rng)
        squares, _ = null_boards.squares_of_pairs(tables)
        drawn, df = null_boards.beside_others(squares, tables)
        alone += null_boards.any_claim(null_boards.tested(squares, world, 2.0).p(), 12)[1]
        beside += null_boards.any_claim(null_boards.tested(drawn, world, df).p(), 12)[1]
    assert alone > 0.13 * 150  # about a fifth
    assert beside < 0.09 * 150


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["even", "wins"])
@pytest.mark.parametrize(
    ("seeds", "prompts", "seed_sd"), [(3, 805, 2.0), (3, 200, 0.5), (5, 805, 2.0)]
)
def test_a_board_of_twelve_equal_rows_claims_nothing_19_times_in_20(
    null_boards: Any, kind: str, seeds: int, prompts: int, seed_sd: float
) -> None:
    """The bound of any claim leaves three standard errors of 1,000 boards above 5 %."""
    rates = null_boards.measured(null_boards.World(kind, 12, seeds, prompts, seed_sd), 1000, 1)
    assert rates.pairs_bh <= 7.0
    assert 3.5 <= rates.pair_on_board <= 6.5
    assert 93.0 <= rates.mean_held <= 97.0
    assert 75.0 <= rates.power_on_board <= 85.0
