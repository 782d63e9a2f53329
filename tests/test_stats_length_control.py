"""Length-controlled win rates: published figures, known truths, laws, corners, refusals."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import optimize, special

from harness.stats.length_control import (
    LengthControlled,
    length_controlled_win_rate,
    win_rate_at_equal_length,
)
from harness.stats.length_diagnostics import diagnose
from harness.stats.length_model import bootstrap, fit_values, pseudo_values, spread
from harness.stats.length_penalty import fixed_penalty, lasso_penalty
from harness.stats.length_rows import checked_rows

Values = npt.NDArray[np.float64]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@dataclass(frozen=True)
class Published:
    """The folder of published figures, read once."""

    frames: dict[str, pd.DataFrame]
    figures: pd.DataFrame
    coefficients: pd.DataFrame
    implied_c: pd.Series
    difficulty: pd.DataFrame
    baseline_rows: pd.DataFrame
    folds: pd.DataFrame

    def rated(self, model: str, **options: object) -> LengthControlled:
        """AlpacaEval's form; without draws unless asked."""
        given: dict[str, object] = {"draws": 0, "rng": generator(), **options}
        return length_controlled_win_rate(
            self.frames[model],
            difficulty=self.difficulty,
            baseline_rows=self.baseline_rows,
            **given,
        )


@pytest.fixture(scope="module")
def published(shared: Path) -> Published:
    folder = shared / "data" / "alpaca-eval-lc"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    rows = pd.read_json(folder / "annotations_weighted.jsonl.gz", lines=True)
    # The published figures take the difficulty of the row's place, which for models with missing
    # rows is that of another instruction. To meet them the place serves as the id.
    frames = {
        str(model): pd.DataFrame(
            {
                "prompt_id": part["pos"],
                "instruction": part["iid"],
                "preference": part["pref"] - 1.0,
                "length": part["len_2"],
                "baseline_length": part["len_1"],
            }
        )
        for model, part in rows.groupby("model")
    }
    coefficients = pd.read_csv(folder / "published_coefficients.csv", index_col="model")
    coefficients.columns = pd.Index(["length", "difficulty", "bias"])
    difficulty = pd.read_csv(folder / "instruction_difficulty.csv")
    return Published(
        frames=frames,
        figures=pd.read_csv(folder / "published_leaderboard.csv", index_col="model"),
        coefficients=coefficients,
        implied_c=pd.read_csv(folder / "implied_C.csv", index_col="model")["implied_C"],
        difficulty=difficulty,
        baseline_rows=pd.read_csv(folder / "gamed_baselines_surrogate.csv"),
        folds=pd.read_csv(folder / "folds.csv"),
    )


def misses(found: dict[str, float], published: Published, within: float) -> set[str]:
    column = published.figures["length_controlled_winrate"]
    return {name for name, value in found.items() if abs(value - column[name]) > within}


def test_raw_win_rates_and_their_errors_are_the_published_ones(published: Published) -> None:
    for name in published.frames:
        found = length_controlled_win_rate(published.frames[name], draws=0, rng=generator())
        assert found.raw == pytest.approx(published.figures.loc[name, "win_rate"], abs=1e-6)
        error = published.figures.loc[name, "standard_error"]
        assert found.raw_standard_error == pytest.approx(error, abs=1e-6)


def test_the_published_coefficients_give_the_published_figures(published: Published) -> None:
    found = {
        name: win_rate_at_equal_length(
            {str(k): float(v) for k, v in published.coefficients.loc[name].items()},
            published.difficulty["instruction_difficulty"].to_numpy()[frame["instruction"]],
        )
        for name, frame in published.frames.items()
    }
    # The coefficients of NullModel are those of another run than its row on the leaderboard.
    assert misses(found, published, 0.05) == {"NullModel"}


def test_refitted_at_the_implied_c_the_figures_are_the_published_ones(published: Published) -> None:
    found = {
        name: published.rated(name, regularisation=float(c)).value
        for name, c in published.implied_c.items()
    }
    assert len(found) == 29
    assert misses(found, published, 0.02) == {"NullModel"}


def test_refitted_coefficients_are_the_published_ones(published: Published) -> None:
    for name in set(published.implied_c.index) - {"NullModel"}:
        found = published.rated(name, regularisation=float(published.implied_c[name])).coefficients
        told = published.coefficients.loc[name]
        # AlpacaEval's difference of lengths is the baseline's less the model's.
        assert found["length"] == pytest.approx(-told["length"], abs=0.02)
        assert found["bias"] == pytest.approx(told["bias"], abs=0.02)
        assert found["difficulty"] == pytest.approx(told["difficulty"], abs=0.02)


@pytest.mark.parametrize("folds", ["official", "dealt by id"])
def test_its_own_choice_of_c_meets_the_published_figures(published: Published, folds: str) -> None:
    def rated(name: str) -> LengthControlled:
        column = published.folds[f"n{len(published.frames[name])}"].dropna().astype(int)
        given = column.to_numpy() if folds == "official" else None
        return published.rated(name, regularisation="cross-validated", folds=given)

    chosen = {str(name): rated(str(name)) for name in published.implied_c.index}
    assert not misses({name: x.value for name, x in chosen.items()}, published, 0.16)
    same = [np.isclose(x.diagnostics.c, published.implied_c[name]) for name, x in chosen.items()]
    assert np.mean(same) > (0.8 if folds == "official" else 0.5)


def test_the_baseline_against_itself_is_at_50(published: Published) -> None:
    found = length_controlled_win_rate(published.frames["gpt4_1106_preview"], rng=generator())
    assert (found.value, found.interval, found.standard_error) == (50.0, (50.0, 50.0), 0.0)
    assert len(found.diagnostics.warnings) == 2


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("FuseChat-Qwen-2.5-7B-Instruct", 1.42),
        ("FuseChat-Gemma-2-9B-Instruct", 1.42),
        ("FuseChat-Llama-3.2-1B-Instruct", 1.39),
        ("NullModel", 0.81),
    ],
)
def test_the_bootstrap_finds_the_errors_that_refitting_found(
    published: Published, model: str, error: float
) -> None:
    found = published.rated(model, regularisation=float(published.implied_c[model]), draws=1000)
    assert found.standard_error == pytest.approx(error, rel=0.08)
    assert found.standard_error > 2.0 * published.figures.loc[model, "lc_standard_error"]


def test_joined_by_row_the_published_figure_of_a_model_with_gaps_is_another(
    published: Published,
) -> None:
    name = "text_davinci_001"
    by_id = published.frames[name].assign(prompt_id=published.frames[name]["instruction"])
    found = length_controlled_win_rate(
        by_id,
        difficulty=published.difficulty,
        baseline_rows=published.baseline_rows,
        regularisation=float(published.implied_c[name]),
        draws=0,
        rng=generator(),
    )
    assert found.value == pytest.approx(6.58, abs=0.05)  # published: 9.03


# ---- a judge whose bias is known


def judged(
    rng: np.random.Generator, prompts: int = 400, *, skill: float, longer: float, liking: float
) -> pd.DataFrame:
    """Wins of a model that is better by `skill` logits, longer by so many characters on average,

    before a judge who likes one standard deviation of length by `liking` logits.
    """
    baseline = np.round(rng.gamma(4.0, 300.0, prompts))
    length = np.maximum(np.round(baseline + longer + rng.normal(0.0, 400.0, prompts)), 0.0)
    chance = special.expit(skill + liking * np.tanh((length - baseline) / 400.0))
    return pd.DataFrame(
        {
            "prompt_id": [f"p{i:04d}" for i in range(prompts)],
            "preference": (rng.random(prompts) < chance).astype(float),
            "length": length,
            "baseline_length": baseline,
        }
    )


def test_a_judge_who_likes_length_orders_two_models_wrongly_until_lengths_are_equal() -> None:
    good = judged(generator(1), 805, skill=0.4, longer=-300.0, liking=2.0)
    long = judged(generator(2), 805, skill=-0.4, longer=300.0, liking=2.0)
    better, worse = (length_controlled_win_rate(x, rng=generator()) for x in (good, long))
    assert better.raw < worse.raw
    assert better.interval[0] > worse.interval[1]
    assert better.interval[0] < 100.0 * special.expit(0.4) < better.interval[1]
    assert worse.interval[0] < 100.0 * special.expit(-0.4) < worse.interval[1]
    assert better.coefficients["length"] == pytest.approx(2.0, abs=0.5)


def test_with_no_liking_for_length_the_figure_is_the_raw_one() -> None:
    found = length_controlled_win_rate(
        judged(generator(3), 2000, skill=0.3, longer=0.0, liking=0.0), rng=generator()
    )
    assert found.value == pytest.approx(found.raw, abs=0.5)
    assert not found.diagnostics.warnings


def test_difficulties_are_used_and_average_over_the_prompts() -> None:
    rng = generator(4)
    difficulty = {f"p{i:04d}": float(x) for i, x in enumerate(rng.normal(0.0, 1.5, 2000))}
    frame = judged(rng, 2000, skill=0.0, longer=0.0, liking=1.0)
    hard = np.array([difficulty[name] for name in frame["prompt_id"]])
    length = np.tanh((frame["length"] - frame["baseline_length"]) / 400.0)
    frame["preference"] = special.expit(0.5 + length + 1.2 * hard)
    found = length_controlled_win_rate(frame, difficulty=difficulty, draws=0, rng=generator())
    assert found.coefficients["difficulty"] == pytest.approx(1.2, abs=0.02)
    truth = 100.0 * special.expit(0.5 + 1.2 * hard).mean()
    assert found.value == pytest.approx(truth, abs=0.2)
    assert win_rate_at_equal_length(found.coefficients, hard) == pytest.approx(found.value)


# ---- laws


def example(lasso: bool = False, rows_each: int = 1) -> tuple[pd.DataFrame, dict[str, object]]:
    rng = generator(5)
    frame = pd.concat(
        [judged(rng, 300, skill=-0.5, longer=200.0, liking=1.5) for _ in range(rows_each)],
        ignore_index=True,
    )
    difficulty = {name: rng.normal() for name in frame["prompt_id"].unique()}
    return frame, {
        "difficulty": difficulty,
        "regularisation": 0.3 if lasso else "fixed",
        "baseline_rows": rewrites(rng, difficulty),
    }


def rewrites(rng: np.random.Generator, difficulty: dict[str, float]) -> pd.DataFrame:
    length = rng.gamma(4.0, 300.0, 120)
    return pd.DataFrame(
        {
            "prompt_id": rng.choice(list(difficulty), 120),
            "preference": rng.random(120),
            "length": length,
            "baseline_length": rng.gamma(4.0, 300.0, 120),
            "weight": 0.1,
        }
    )


def test_the_order_of_rows_changes_nothing() -> None:
    frame, options = example()
    first = length_controlled_win_rate(frame, rng=generator(), draws=50, **options)
    shuffled = frame.sample(frac=1.0, random_state=1)
    second = length_controlled_win_rate(shuffled, rng=generator(), draws=50, **options)
    assert first.value == second.value
    assert first.interval == second.interval
    assert first.per_prompt == second.per_prompt


def test_answers_given_twice_count_once() -> None:
    frame, options = example()
    once = length_controlled_win_rate(frame, rng=generator(), draws=50, **options)
    twice = pd.concat([frame, frame], ignore_index=True)
    again = length_controlled_win_rate(twice, rng=generator(), draws=50, **options)
    assert again.value == pytest.approx(once.value, abs=1e-8)
    assert again.standard_error == pytest.approx(once.standard_error, abs=1e-7)
    assert list(again.per_prompt.values()) == pytest.approx(list(once.per_prompt.values()))


def test_both_sides_exchanged_give_the_other_win_rate() -> None:
    frame, _ = example()
    other = frame.rename(columns={"length": "baseline_length", "baseline_length": "length"})
    other["preference"] = 1.0 - other["preference"]
    here, there = (
        length_controlled_win_rate(x, rng=generator(), draws=100) for x in (frame, other)
    )
    assert here.value + there.value == pytest.approx(100.0, abs=1e-5)
    assert here.standard_error == pytest.approx(there.standard_error, abs=1e-5)


@pytest.mark.parametrize("lasso", [False, True])
@pytest.mark.parametrize("rows_each", [1, 2])
def test_pseudo_values_are_the_derivative_by_a_prompts_weight(lasso: bool, rows_each: int) -> None:
    frame, options = example(rows_each=rows_each)
    rows = checked_rows(frame, options["difficulty"], options["baseline_rows"])
    penalty = lasso_penalty(0.3, 3) if lasso else fixed_penalty(3)
    count, step = len(rows.ids), 1e-4
    found = pseudo_values(rows, penalty, fit_values(rows, np.ones((1, count)), penalty))
    moved = np.concatenate([np.ones((20, count)) + s * np.eye(count)[:20] for s in (step, -step)])
    values = fit_values(rows, moved, penalty).values
    slopes = (values[:20] - values[20:]) / (2.0 * step)
    value = fit_values(rows, np.ones((1, count)), penalty).values[0]
    # Influences are centred: what they have in common is the sum of the weights.
    shift = slopes * count - (found[:20] - value)
    assert np.ptp(shift) < 1e-3 * np.ptp(found)
    assert found.mean() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("lasso", [False, True])
@pytest.mark.parametrize("rows_each", [1, 2])
def test_the_error_of_pseudo_values_is_that_of_the_bootstrap(lasso: bool, rows_each: int) -> None:
    frame, options = example(lasso, rows_each)
    drawn = length_controlled_win_rate(frame, rng=generator(), draws=2000, **options)
    quick = length_controlled_win_rate(frame, rng=generator(), draws=0, **options)
    assert quick.value == drawn.value
    assert quick.standard_error == pytest.approx(drawn.standard_error, rel=0.1)
    assert quick.interval == pytest.approx(drawn.interval, abs=0.25 * drawn.standard_error)
    assert np.mean(list(quick.per_prompt.values())) == pytest.approx(quick.value, abs=1e-9)


def test_paired_pseudo_values_have_the_error_of_a_paired_bootstrap() -> None:
    rng, penalty = generator(8), fixed_penalty(2)
    mood = rng.normal(0.0, 2.0, 400)
    drawn, pseudo = [], []
    for skill, longer in ((0.5, -100.0), (0.0, 200.0)):
        frame = judged(rng, 400, skill=0.0, longer=longer, liking=0.0)
        length = np.tanh((frame["length"] - frame["baseline_length"]) / 400.0)
        chance = special.expit(skill + mood + 1.5 * length)
        frame["preference"] = (rng.random(400) < chance).astype(float)
        rows = checked_rows(frame, None, None)
        fitted = fit_values(rows, np.ones((1, 400)), penalty)
        drawn.append(bootstrap(rows, penalty, fitted.coefficients[0], 2000, generator()))
        pseudo.append(pseudo_values(rows, penalty, fitted))
    paired = (drawn[0] - drawn[1]).std(ddof=1)
    assert (pseudo[0] - pseudo[1]).std(ddof=1) / np.sqrt(400) == pytest.approx(paired, rel=0.06)
    assert paired < 0.9 * np.hypot(drawn[0].std(), drawn[1].std())


def test_a_lasso_meets_the_objective_of_alpaca_eval() -> None:
    frame, options = example(lasso=True)
    found = length_controlled_win_rate(frame, rng=generator(), draws=0, **options)
    extra = options["baseline_rows"]
    assert isinstance(extra, pd.DataFrame)
    assert isinstance(options["difficulty"], dict)
    hard = options["difficulty"]

    def columns(rows: pd.DataFrame, bias: float) -> Values:
        d = rows["length"] - rows["baseline_length"]
        scale = [hard[name] for name in rows["prompt_id"]]
        return np.stack([np.full(len(rows), bias), np.tanh(d / d.std()), scale], axis=1)

    x = np.concatenate([columns(frame, 1.0), columns(extra, 0.0)])
    y = np.concatenate([frame["preference"], extra["preference"]])
    w = np.concatenate([np.ones(len(frame)), extra["weight"]])

    def objective(b: Values) -> float:
        losses = np.logaddexp(0.0, x @ b) - y * (x @ b)
        return float(np.abs(b).sum() + 0.3 * (w @ losses))

    best = optimize.minimize(
        objective, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}
    )
    assert objective(np.array(list(found.coefficients.values()))) <= best.fun + 1e-9
    assert list(found.coefficients.values()) == pytest.approx(best.x, abs=1e-4)


def test_a_lasso_that_is_strong_enough_leaves_nothing() -> None:
    frame, _ = example()
    found = length_controlled_win_rate(frame, regularisation=1e-4, rng=generator(), draws=10)
    assert dict(found.coefficients) == {"bias": 0.0, "length": 0.0}
    assert found.value == 50.0


def test_rewrites_by_length_and_by_standardised_difference_are_the_same() -> None:
    frame, options = example()
    given = options["baseline_rows"]
    assert isinstance(given, pd.DataFrame)
    d = given["length"] - given["baseline_length"]
    short = given.drop(columns=["length", "baseline_length"])
    short = short.assign(standardised_difference=d / d.std())
    values = [
        length_controlled_win_rate(
            frame,
            rng=generator(),
            draws=0,
            **{**options, "baseline_rows": x},
        ).value
        for x in (given, short)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-9)
    without = length_controlled_win_rate(
        frame,
        rng=generator(),
        draws=0,
        **{**options, "baseline_rows": None},
    )
    assert abs(without.value - values[0]) > 0.1


def test_two_rewrites_are_standardised_each_by_its_own_lengths() -> None:
    frame, options = example()
    given = options["baseline_rows"]
    assert isinstance(given, pd.DataFrame)
    wide = given.assign(length=given["length"] * 10, baseline_length=given["baseline_length"] * 10)
    two = pd.concat([given.assign(model="a"), wide.assign(model="b")], ignore_index=True)
    twice = pd.concat([given, given], ignore_index=True).assign(model=two["model"])
    values = [
        length_controlled_win_rate(
            frame,
            rng=generator(),
            draws=0,
            **{**options, "baseline_rows": x},
        ).value
        for x in (two, twice)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-9)


def test_equal_generators_give_equal_bits_and_others_do_not() -> None:
    frame, _ = example()
    found = [
        length_controlled_win_rate(frame, rng=generator(s), draws=50).interval for s in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]


def test_rows_without_a_preference_are_left_out_and_counted() -> None:
    frame, _ = example()
    holes = frame.copy()
    holes.loc[:9, "preference"] = np.nan
    found = length_controlled_win_rate(holes, rng=generator(), draws=0)
    assert found.value == length_controlled_win_rate(frame[10:], rng=generator(), draws=0).value
    assert (found.diagnostics.dropped_rows, found.diagnostics.prompts) == (10, 290)
    assert "p0000" not in found.per_prompt


def test_what_was_found_goes_through_another_process() -> None:
    found = length_controlled_win_rate(example()[0], draws=10, rng=generator())
    assert pickle.loads(pickle.dumps(found)) == found
    assert asdict(found)


# ---- corners


def small(preference: object, difference: object, prompts: int = 40) -> pd.DataFrame:
    frame = pd.DataFrame({"prompt_id": range(prompts), "baseline_length": 1000.0})
    return frame.assign(preference=preference, length=1000.0 + np.asarray(difference))


def alternating(prompts: int = 40) -> Values:
    return np.where(np.arange(prompts) % 3 == 0, 1.0, 0.0)


@pytest.mark.parametrize("difference", [0.0, 250.0])
def test_equal_lengths_leave_the_raw_win_rate_and_say_so(difference: float) -> None:
    found = length_controlled_win_rate(small(alternating(), difference), rng=generator())
    assert found.value == pytest.approx(found.raw, abs=1e-4)
    assert found.coefficients["length"] == pytest.approx(0.0, abs=1e-9)
    assert found.standard_error == pytest.approx(found.raw_standard_error, rel=0.1)
    assert "nothing tells what length does" in found.diagnostics.warnings[0]


@pytest.mark.parametrize("preference", [0.0, 0.5, 1.0])
def test_equal_preferences_leave_the_raw_win_rate_and_say_so(preference: float) -> None:
    found = length_controlled_win_rate(small(preference, np.arange(40) - 20.0), rng=generator())
    assert found.value == pytest.approx(100.0 * preference, abs=1e-3)
    assert np.ptp(found.interval) < 1e-3
    assert "Every preference is" in found.diagnostics.warnings[0]


def test_wins_that_length_alone_decides_have_a_figure() -> None:
    difference = np.arange(40) - 19.5
    found = length_controlled_win_rate(small(difference > 0, difference), rng=generator())
    assert found.value == pytest.approx(50.0, abs=1e-6)
    assert 0.0 < found.interval[0] < 50.0 < found.interval[1] < 100.0


def test_answers_that_are_all_shorter_are_called_extrapolated() -> None:
    frame = small(alternating(), -500.0 + 10.0 * np.arange(40))
    found = length_controlled_win_rate(frame, rng=generator(), draws=0)
    assert "Every answer is shorter" in found.diagnostics.warnings[0]


@pytest.mark.parametrize(("sign", "side"), [(1.0, "longer"), (-1.0, "shorter")])
def test_a_shift_of_more_than_a_standard_deviation_is_extrapolation(sign: float, side: str) -> None:
    frame = small(alternating(), sign * np.where(np.arange(40) < 4, -300.0, 700.0))
    found = length_controlled_win_rate(frame, rng=generator(), draws=0).diagnostics
    assert found.mean_length_difference == pytest.approx(sign * 600.0 / 303.8, abs=0.01)
    assert f"{side} than the baseline's by 2.0 standard deviations" in found.warnings[0]


@pytest.mark.parametrize(
    ("raw", "value", "large"),
    [
        (20.0, 39.0, False), (20.0, 41.0, True), (20.0, 10.5, False), (20.0, 9.5, True),
        (50.0, 62.0, False), (50.0, 63.0, True), (50.0, 38.0, False), (50.0, 37.0, True),
        (90.0, 99.0, False), (90.0, 70.0, False), (90.0, 67.0, True),
    ],
)  # fmt: skip
def test_a_correction_by_10_points_and_a_quarter_of_the_way_is_called_large(
    raw: float, value: float, large: bool
) -> None:
    rows = checked_rows(small(alternating(), np.arange(40) - 19.5), None, None)
    assert bool(diagnose(rows, value, raw, None).warnings) is large


def test_lengths_are_divided_by_the_sample_standard_deviation() -> None:
    difference = generator().normal(300.0, 50.0, 7)
    found = spread(difference, np.ones((1, 7)))
    assert found[0] == pytest.approx(difference.std(ddof=1))


def test_a_fit_that_begins_far_away_ends_in_the_same_place() -> None:
    frame, _ = example()
    rows, penalty = checked_rows(frame, None, None), fixed_penalty(2)
    near = fit_values(rows, np.ones((1, 300)), penalty)
    far = fit_values(rows, np.ones((1, 300)), penalty, np.array([12.0, -9.0]))
    assert far.coefficients == pytest.approx(near.coefficients, abs=1e-8)


def test_few_prompts_are_called_few() -> None:
    found = length_controlled_win_rate(
        small(alternating(12), np.arange(12) - 6.0, 12), rng=generator()
    )
    assert "12 prompts are too few" in found.diagnostics.warnings[0]


def refusals() -> Iterator[tuple[str, pd.DataFrame, dict[str, object], str]]:
    frame = small(alternating(), np.arange(40) - 20.0)
    hard = dict.fromkeys(range(40), 1.0)
    yield "a column", frame.drop(columns="length"), {}, "no column 'length'"
    yield "range", frame.assign(preference=1.5), {}, "prompt '0' has preference 1.5"
    yield "no length", frame.assign(length=np.nan), {}, "prompt '0' has length nan"
    nameless = frame.assign(prompt_id=frame["prompt_id"].where(frame["prompt_id"] > 1))
    yield "no id", nameless, {}, "2 rows have no prompt_id"
    yield "one prompt", frame[:1], {}, "at least 2"
    yield "difficulty", frame, {"difficulty": {**hard, 7: np.nan}}, "prompt '7' has no difficulty"
    gap = {k: v for k, v in hard.items() if k != 3}
    yield "missing id", frame, {"difficulty": gap}, "prompt '3' has no difficulty"
    double = pd.DataFrame({"prompt_id": [1, 1], "difficulty": [0.0, 1.0]})
    yield "two", frame, {"difficulty": double}, "prompt '1' has two difficulties"
    yield "name", frame, {"regularisation": "ridge"}, "'ridge'"
    yield "c", frame, {"regularisation": 0.0}, "positive"
    yield "draws", frame, {"draws": 1}, "draws"
    yield "level", frame, {"level": 1.0}, "level"
    yield "folds", frame, {"folds": [0, 1]}, "folds are read only"
    chosen = {"regularisation": "cross-validated", "folds": [0, 1]}
    yield "few folds", frame, chosen, "the 40 rows"
    yield "weightless", frame, {"baseline_rows": frame}, "no column 'weight'"
    twice = pd.concat([frame, frame], ignore_index=True)
    apart = {"regularisation": "cross-validated", "folds": [0] * 40 + [1] * 40}
    yield "apart", twice, apart, "prompt '0' lies in two folds"


@pytest.mark.parametrize(
    ("frame", "options", "message"), [x[1:] for x in refusals()], ids=[x[0] for x in refusals()]
)
def test_bad_input_is_named(frame: pd.DataFrame, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        length_controlled_win_rate(frame, rng=generator(), **options)


# ---- error rates


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "repeats"), [(200, 600), (805, 300)])
@pytest.mark.parametrize("longer", [0.0, 300.0])
def test_intervals_cover_the_truth_under_a_biased_judge(
    prompts: int, repeats: int, longer: float
) -> None:
    truth, rng = 100.0 * special.expit(-0.3), generator(prompts + int(longer))
    drawn, quick = 0, 0
    for _ in range(repeats):
        frame = judged(rng, prompts, skill=-0.3, longer=longer, liking=1.5)
        for draws in (400, 0):
            low, high = length_controlled_win_rate(frame, draws=draws, rng=rng).interval
            drawn += draws > 0 and low <= truth <= high
            quick += draws == 0 and low <= truth <= high
    print(f"{prompts} prompts, longer by {longer:.0f}: {drawn / repeats:.3f} {quick / repeats:.3f}")
    assert 0.91 < drawn / repeats < 0.985
    assert 0.91 < quick / repeats < 0.985
