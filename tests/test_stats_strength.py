"""Bradley-Terry strengths: textbook tables, known truths, laws, refusals."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special

from harness.stats.strength import Strengths, strengths, style_differences

# Wins of the row's player over the column's: Wikipedia, "Bradley-Terry model", worked example.
WIKIPEDIA = {
    ("A", "B"): 2, ("A", "D"): 1, ("B", "A"): 3, ("B", "C"): 5,
    ("C", "B"): 3, ("C", "D"): 1, ("D", "A"): 4, ("D", "C"): 3,
}  # fmt: skip

# Citations of the row's journal by the column's (Stigler 1994, after Agresti and BradleyTerry2).
CITATIONS = {
    ("Biometrika", "Comm Statist"): 730, ("Biometrika", "JASA"): 498,
    ("Biometrika", "JRSS-B"): 221, ("Comm Statist", "Biometrika"): 33,
    ("Comm Statist", "JASA"): 68, ("Comm Statist", "JRSS-B"): 17,
    ("JASA", "Biometrika"): 320, ("JASA", "Comm Statist"): 813, ("JASA", "JRSS-B"): 142,
    ("JRSS-B", "Biometrika"): 284, ("JRSS-B", "Comm Statist"): 276, ("JRSS-B", "JASA"): 325,
}  # fmt: skip


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def games(wins: Mapping[tuple[str, str], int], prompts: int = 10) -> pd.DataFrame:
    rows = [pair for pair, count in wins.items() for _ in range(count)]
    frame = pd.DataFrame(rows, columns=["method", "opponent"]).assign(preference=1.0)
    return frame.assign(prompt_id=[f"p{i % prompts}" for i in range(len(rows))])


def against_baseline(
    rng: np.random.Generator, truth: Mapping[str, float], prompts: int = 300
) -> pd.DataFrame:
    """Soft preferences that share a prompt's mood."""
    mood = rng.normal(0.0, 0.7, prompts)
    parts = []
    for name, log_odds in truth.items():
        chance = special.expit(log_odds + mood + rng.normal(0.0, 0.7, prompts))
        won = rng.random(prompts) < chance
        parts.append(pd.DataFrame({"method": name, "preference": won.astype(float)}))
        parts[-1]["prompt_id"] = np.arange(prompts)
    return pd.concat(parts, ignore_index=True)


def log_odds(found: Strengths) -> dict[str, float]:
    return {name: strength.log_odds for name, strength in found.methods.items()}


def test_wikipedias_worked_example() -> None:
    found = log_odds(strengths(games(WIKIPEDIA), baseline="A", draws=2, rng=generator()))
    scale = np.exp(np.mean(list(found.values())))
    printed = {"A": 0.640, "B": 1.043, "C": 0.660, "D": 2.270}
    assert {k: np.exp(v) / scale for k, v in found.items()} == pytest.approx(printed, abs=6e-4)


def test_the_abilities_of_four_journals() -> None:
    found = strengths(games(CITATIONS), baseline="Biometrika", draws=2, rng=generator())
    printed = {"Biometrika": 0.0, "Comm Statist": -2.94907, "JASA": -0.47957, "JRSS-B": 0.26895}
    assert log_odds(found) == pytest.approx(printed, abs=6e-6)
    assert list(found.methods) == ["JRSS-B", "Biometrika", "JASA", "Comm Statist"]
    assert found.methods["JASA"].games == 498 + 68 + 320 + 813 + 142 + 325


def test_against_a_common_baseline_the_strength_is_the_mean_preference() -> None:
    rng = generator(1)
    frame = against_baseline(rng, {"a": 0.5, "b": -1.0})
    frame["preference"] = rng.random(len(frame))
    found = strengths(frame, draws=2000, rng=rng)
    for name, part in frame.groupby("method"):
        shares = 100.0 * part["preference"]
        strength = found.methods[str(name)]
        assert strength.value == pytest.approx(shares.mean(), abs=1e-5)
        assert strength.log_odds == pytest.approx(special.logit(shares.mean() / 100), abs=1e-6)
        error = shares.std() / np.sqrt(len(shares))
        assert strength.standard_error == pytest.approx(error, rel=0.06)
        assert np.ptp(strength.interval) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.methods["baseline"].interval == (50.0, 50.0)


def test_one_game_seen_from_the_other_side_is_the_same_game() -> None:
    frame = games(WIKIPEDIA)
    other = frame.rename(columns={"method": "opponent", "opponent": "method"})
    other["preference"] = 0.0
    found = [log_odds(strengths(x, baseline="B", draws=2, rng=generator())) for x in (frame, other)]
    assert found[0] == pytest.approx(found[1], abs=1e-7)


def test_games_repeated_on_the_same_prompts_do_not_narrow_the_interval() -> None:
    frame = against_baseline(generator(2), {"a": 0.3})
    once = strengths(frame, draws=500, rng=generator())
    four = strengths(pd.concat([frame] * 4, ignore_index=True), draws=500, rng=generator())
    assert four.methods["a"].interval == pytest.approx(once.methods["a"].interval, abs=1e-5)
    assert four.methods["a"].games == 4 * once.methods["a"].games


def test_games_between_methods_say_something_of_both() -> None:
    frame = games({("a", "baseline"): 30, ("baseline", "a"): 10, ("b", "a"): 30, ("a", "b"): 10})
    found = log_odds(strengths(frame, draws=2, rng=generator()))
    expected = {"a": np.log(3.0), "b": np.log(9.0), "baseline": 0.0}
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_row_without_a_preference_is_left_out() -> None:
    frame = games(WIKIPEDIA)
    hole = frame.iloc[[0]].assign(preference=np.nan)
    found = strengths(pd.concat([frame, hole]), baseline="A", draws=2, rng=generator())
    again = strengths(frame, baseline="A", draws=2, rng=generator())
    assert found.methods == again.methods


def test_who_won_every_game_stands_at_the_end_and_it_is_said() -> None:
    frame = games({("a", "baseline"): 20, ("b", "baseline"): 5, ("baseline", "b"): 5})
    found = strengths(frame, draws=50, rng=generator())
    assert found.methods["a"].value == pytest.approx(100.0, abs=1e-3)
    assert len(found.warnings) == 1
    assert "'a' won every one of its 20 games" in found.warnings[0]


def test_what_was_found_goes_through_another_process() -> None:
    found = strengths(games(WIKIPEDIA), baseline="A", draws=2, rng=generator())
    assert pickle.loads(pickle.dumps(found)) == found
    assert asdict(found)


# ---- style control


def counts(rng: np.random.Generator, size: int, words: float, marks: float) -> pd.DataFrame:
    length = 20 + rng.poisson(words, size)
    marked = {name: rng.poisson(marks, size) for name in ("headers", "lists", "bold")}
    return pd.DataFrame({"words": length, **marked})


def styled(seed: int, prompts: int = 800) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Games of a plain good method and an ornate bad one before a judge who likes ornament."""
    rng = generator(seed)
    truth, words = {"plain": 0.5, "ornate": -0.5}, {"plain": 150.0, "ornate": 350.0}
    answers = pd.concat([counts(rng, prompts, words[m], words[m] / 40) for m in truth])
    opponents = pd.concat([counts(rng, prompts, 220.0, 5.0)] * 2)
    covariates = style_differences(answers, opponents)
    method = np.repeat(list(truth), prompts)
    liking = 1.0 * covariates["length"] / covariates["length"].std()
    chance = special.expit(np.array([truth[m] for m in method]) + liking)
    frame = pd.DataFrame(
        {
            "prompt_id": np.tile(np.arange(prompts), 2),
            "method": method,
            "preference": (rng.random(2 * prompts) < chance).astype(float),
        }
    )
    return frame, covariates, truth


def test_style_control_finds_the_order_that_ornament_hid() -> None:
    frame, covariates, truth = styled(3)
    plain = strengths(frame, draws=50, rng=generator())
    found = strengths(frame, style=covariates, draws=300, rng=generator())
    assert list(plain.methods) == ["ornate", "baseline", "plain"]
    assert list(found.methods) == ["plain", "baseline", "ornate"]
    for name, value in truth.items():
        low, high = found.methods[name].interval
        assert low < 100.0 * special.expit(value) < high
    low, high = found.style["length"].interval
    assert low < 1.0 < high
    assert set(found.style) == {"length", "headers", "lists", "bold"}


@pytest.mark.parametrize("centred", [False, True])
def test_style_control_is_a_logistic_regression(centred: bool) -> None:
    frame, covariates, _ = styled(4)
    found = strengths(frame, style=covariates, centred=centred, draws=2, rng=generator())
    z = (covariates - covariates.mean() * centred) / covariates.std()
    signs = [(frame["method"] == m).to_numpy(dtype=float) for m in ("ornate", "plain")]
    oracle = sm.Logit(frame["preference"], np.column_stack([*signs, z])).fit(disp=False)
    names = ["ornate", "plain", *covariates]
    told = {**log_odds(found), **{k: v.log_odds for k, v in found.style.items()}}
    assert [told[name] for name in names] == pytest.approx(list(oracle.params), abs=1e-5)


def test_an_added_method_moves_centred_strengths_by_its_style_alone() -> None:
    frame, covariates, _ = styled(5)
    # Its preferences are what the others' fit predicts, so that only its style is news.
    fitted = strengths(frame, style=covariates, draws=2, rng=generator())
    new = pd.DataFrame({"prompt_id": range(800), "method": "huge"})
    far = covariates.iloc[:800] * 0.2 + [0.9, 0.0, 0.0, 0.0]
    spread = covariates.std()
    effect = sum(fitted.style[name].log_odds / spread[name] * far[name] for name in far)
    new["preference"] = np.asarray(special.expit(0.1 + effect))
    both = pd.concat([frame, new], ignore_index=True)
    wide = pd.concat([covariates, far], ignore_index=True)

    def moved(centred: bool) -> float:
        before = strengths(frame, style=covariates, centred=centred, draws=2, rng=generator())
        after = strengths(both, style=wide, centred=centred, draws=2, rng=generator())
        return abs(after.methods["plain"].log_odds - before.methods["plain"].log_odds)

    assert moved(False) < 1e-4
    assert moved(True) > 0.3


def test_differences_of_style_are_arena_hards() -> None:
    answers = pd.DataFrame({"words": [300, 0], "headers": [3, 0], "lists": [0, 0], "bold": [6, 0]})
    others = pd.DataFrame({"words": [100, 0], "headers": [2, 0], "lists": [1, 0], "bold": [0, 0]})
    found = style_differences(answers, others)
    assert list(found) == ["length", "headers", "lists", "bold"]
    assert list(found.iloc[0]) == pytest.approx([0.5, -0.01 / 1.03, -0.01 / 1.01, 0.02 / 1.02])
    assert list(found.iloc[1]) == [0.0, 0.0, 0.0, 0.0]


def test_a_covariate_that_never_varies_has_no_effect() -> None:
    frame, covariates, _ = styled(6)
    flat = covariates.assign(bold=0.1)
    with_it = strengths(frame, style=flat, draws=2, rng=generator())
    without = strengths(frame, style=flat.drop(columns="bold"), draws=2, rng=generator())
    assert with_it.style["bold"].log_odds == 0.0
    assert log_odds(with_it) == pytest.approx(log_odds(without), abs=1e-8)


def test_style_of_a_row_without_a_preference_is_left_out_too() -> None:
    frame, covariates, _ = styled(8)
    holes = frame.assign(preference=frame["preference"].where(frame.index % 5 != 0))
    there = holes["preference"].notna().to_numpy()
    found = strengths(holes, style=covariates, draws=2, rng=generator())
    kept = strengths(frame[there], style=covariates[there], draws=2, rng=generator())
    assert found == kept


# ---- refusals


def refusals() -> Iterator[tuple[str, pd.DataFrame, dict[str, object], str]]:
    frame = games(WIKIPEDIA)
    yield "column", frame.drop(columns="prompt_id"), {}, "no column 'prompt_id'"
    yield "no id", frame.assign(prompt_id=None), {}, "22 games have no prompt_id"
    yield "no opponent", frame.assign(opponent=None), {}, "22 games have no opponent"
    yield "range", frame.assign(preference=2.0), {}, "prompt 'p0' has preference 2.0"
    yield "itself", frame.assign(opponent="B"), {}, "'B' plays against itself"
    apart = pd.concat([frame, games({("E", "F"): 3})])
    yield "apart", apart, {}, "no chain of games leads from 'E' to the baseline 'A'"
    yield "nobody", frame.assign(preference=np.nan), {}, "no chain of games leads from any method"
    yield "style rows", frame, {"style": pd.DataFrame({"length": [1.0]})}, "style has 1 rows"
    hole = pd.DataFrame({"length": 1.0, "bold": np.nan}, index=frame.index)
    yield "style hole", frame, {"style": hole}, "style 'bold'"
    yield "draws", frame, {"draws": 1}, "draws must be at least 2"


@pytest.mark.parametrize(
    ("frame", "options", "message"), [x[1:] for x in refusals()], ids=[x[0] for x in refusals()]
)
def test_bad_input_is_named(frame: pd.DataFrame, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strengths(frame, baseline="A", rng=generator(), **options)


def test_counts_of_style_must_pair_up() -> None:
    one = counts(generator(), 3, 10, 1)
    with pytest.raises(ValueError, match="3 answers, but 2 of opponents"):
        style_differences(one, one[:2])


# ---- error rates


@pytest.mark.slow
def test_intervals_cover_the_truth_when_games_share_prompts() -> None:
    rng, repeats, hits, narrow = generator(7), 500, 0, 0
    mood = generator(8).normal(0.0, 1.0, 200_000)
    truth = float(100.0 * special.expit(0.4 + mood).mean())
    for _ in range(repeats):
        prompts = rng.normal(0.0, 1.0, 150)
        chance = special.expit(0.4 + np.repeat(prompts, 3))
        won = (rng.random(450) < chance).astype(float)
        frame = pd.DataFrame(
            {"prompt_id": np.repeat(np.arange(150), 3), "method": "a", "preference": won}
        )
        low, high = strengths(frame, draws=300, rng=rng).methods["a"].interval
        hits += low <= truth <= high
        each = frame.assign(prompt_id=np.arange(450))  # as if every game had its own prompt
        low, high = strengths(each, draws=300, rng=rng).methods["a"].interval
        narrow += low <= truth <= high
    print(f"clustered by prompt {hits / repeats:.3f}, games drawn alone {narrow / repeats:.3f}")
    assert 0.92 < hits / repeats < 0.98
    assert narrow < hits
