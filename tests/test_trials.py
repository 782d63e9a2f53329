"""Equal tuning and equal compute: what is tried, what wins, and how far a bill reaches."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.budget import Budget, ModelSize, Payer
from harness.data.tokens import TokenPair
from harness.errors import DivergedError, GateError, RequestError
from harness.judge.choose import choose
from harness.pipeline.trials import Trial, edges, trials
from harness.registry import load_method
from harness.store.stage import Work
from harness.train.ledger import Ledger
from harness.train.loop import order

from .test_pipeline import count, keys, lay_out

BUDGET = Budget(trials=5, learning_rates=(1e-4, 1e-3))
SIZE = ModelSize(body=1000, head=200)


def test_the_first_trial_is_the_row_as_it_is() -> None:
    method = load_method("dpo")
    found = trials(method, {"beta": 0.07}, BUDGET, seed=0)
    assert found[0] == Trial({"beta": 0.07}, BUDGET.learning_rate)


@pytest.mark.parametrize("name", ["dpo", "simpo", "madpo", "alphadpo"])
def test_every_method_gets_as_many_different_trials(name: str) -> None:
    method = load_method(name)
    found = trials(method, method.defaults, BUDGET, seed=0)
    assert len(found) == 5
    assert (
        len({(json.dumps(dict(t.settings), sort_keys=True), t.learning_rate) for t in found}) == 5
    )
    for trial in found[1:]:
        assert trial.learning_rate in BUDGET.learning_rates
        assert all(trial.settings[key] in values for key, values in method.grid.items())


def test_trials_are_a_function_of_seed_and_method() -> None:
    method = load_method("madpo")
    one, same, other = (trials(method, method.defaults, BUDGET, seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_too_few_different_trials_are_refused() -> None:
    method = replace(load_method("dpo"), grid={})
    with pytest.raises(RequestError, match="3 different trials"):
        trials(method, {"beta": 0.1}, BUDGET, seed=0)


def test_a_winner_at_an_edge_is_flagged() -> None:
    method = load_method("dpo")
    low, inside = min(method.grid["beta"]), sorted(method.grid["beta"])[1]
    assert edges(Trial({"beta": low}, 3e-4), method, BUDGET) == ["beta"]
    assert edges(Trial({"beta": inside}, 3e-4), method, BUDGET) == []
    assert edges(Trial({"beta": inside}, 1e-3), method, BUDGET) == ["learning_rate"]


def test_tuning_adds_one_row_per_method_and_keeps_the_default_one() -> None:
    laid_out = lay_out("dpo,madpo", seeds=2, budget__trials=3)
    assert [(r.method.name, r.label) for r in laid_out.rows] == [
        ("dpo", ""), ("madpo", ""), ("dpo", "tuned"), ("madpo", "tuned"),
    ]  # fmt: skip
    # Two default seeds and two tuned ones; three trials, the first of which is default seed 0.
    assert count(laid_out, "train") == 2 * (2 + 2 + 3 - 1)
    assert count(laid_out, "choice") == 2


def test_tuning_changes_no_key_of_the_rows_at_their_defaults() -> None:
    assert keys(lay_out("dpo,madpo")) < keys(lay_out("dpo,madpo", budget__trials=3))


def test_a_choice_rests_on_validation_prompts_alone() -> None:
    laid_out = lay_out("dpo", budget__trials=3)
    (chosen,) = {s.key: s for s in laid_out.stages if s.verb == "choice"}.values()
    assert len(chosen.inputs) == 3
    for score in chosen.inputs.values():
        assert score.inputs["completions"].settings["splits"] == ["validation"]
    tuned = [c for c in laid_out.cells if c.row and c.row.label == "tuned"]
    assert all(c.score.inputs["completions"].settings["splits"] == ["test"] for c in tuned)


def run_choice(
    folder: Path,
    means: list[float | None],
    better: str = "higher",
    *,
    unreliable: Collection[int] = (),
    without: Collection[tuple[int, str]] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts and the choice among trials with these mean rewards; None diverged.

    The values of prompt a lie 1 below the mean, those of b 1 above it.
    """
    inputs = {}
    for i, mean in enumerate(means):
        if mean is not None:
            inputs[f"trial-{i}"] = folder / str(i)
            inputs[f"trial-{i}"].mkdir()
            rows = [
                {"prompt_id": p, "metric": m, "value": v}
                for p, d in (("a", -1.0), ("b", 1.0))
                for m, v in (("reward", mean + d), ("kl", 100.0 * i))
            ]
            rows = [row for row in rows if (i, row["prompt_id"]) not in without]
            pq.write_table(pa.Table.from_pylist(rows), inputs[f"trial-{i}"] / "scores.parquet")
            told = {"unreliable": "nonsense"} if i in unreliable else {}
            (inputs[f"trial-{i}"] / "reliability.json").write_text(json.dumps(told))
    tried = [
        {"settings": {"beta": float(i)}, "learning_rate": 10.0**-i, "edges": []}
        for i in range(len(means))
    ]
    settings = {"metric": "reward", "better": better, "trials": tried}
    (folder / "out").mkdir()
    work = Work(settings, inputs, folder / "out", folder, lambda done, total, unit: None)
    facts = dict(choose(work))
    return facts, json.loads((folder / "out" / "choice.json").read_text())


def test_the_best_mean_wins_and_the_direction_counts(tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "down").mkdir()
    assert run_choice(tmp_path / "up", [0.1, 0.7, 0.3])[1]["settings"] == {"beta": 1.0}
    lower = run_choice(tmp_path / "down", [0.2, 0.7, 0.1], "lower")[1]
    assert (lower["settings"], lower["learning_rate"]) == ({"beta": 2.0}, 0.01)


def test_a_trial_that_diverged_cannot_win_and_is_counted(tmp_path: Path) -> None:
    facts, chosen = run_choice(tmp_path, [None, 0.2, 0.2])
    assert chosen["settings"] == {"beta": 1.0}, "of equals the earlier one wins"
    assert (facts["trial"], facts["diverged"]) == (1, 1)
    assert facts["means"] == [None, pytest.approx(0.2), pytest.approx(0.2)]


def test_a_trial_whose_judge_was_not_understood_cannot_win(tmp_path: Path) -> None:
    facts, chosen = run_choice(tmp_path, [0.9, 0.2], unreliable=[0])
    assert chosen["settings"] == {"beta": 1.0}
    assert (facts["unreliable"], facts["diverged"]) == (1, 0)


def test_trials_are_compared_on_the_prompts_that_all_of_them_have(tmp_path: Path) -> None:
    # Over what each of them has, trial 0 would have 1.1 and trial 1 0.2.
    facts, chosen = run_choice(tmp_path, [0.1, 0.2], without=[(0, "a")])
    assert chosen["settings"] == {"beta": 1.0}
    assert facts["means"] == [pytest.approx(1.1), pytest.approx(1.2)]


def test_where_every_trial_diverged_so_did_the_row(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="of 2 trials 2 diverged"):
        run_choice(tmp_path, [None, None])


def ledger(equal_to: Payer | None, epochs: int = 1, micro: int = 8) -> Ledger:
    rng = np.random.default_rng(0)
    pairs = [
        TokenPair(f"{row}", (row,) * 10, (1,) * 8, (2,) * int(n - 8))
        for row, n in enumerate(rng.integers(10, 40, size=96))
    ]
    return Ledger(pairs, SIZE, False, micro, 8, epochs, 3, equal_to)


PLAIN = Payer(("policy",), False, 0)
DPO = Payer(("policy", "reference"), False, 0)
MADPO = Payer(("policy", "reference", "margin"), False, 2)


def test_equal_data_are_the_same_steps_for_every_payer() -> None:
    found = ledger(None)
    assert found.steps(PLAIN) == found.steps(DPO) == found.steps(MADPO) == order(96, 1, 8, 3)


def test_at_an_equal_bill_the_reference_method_takes_its_own_steps() -> None:
    assert ledger(DPO, epochs=2).steps(DPO) == order(96, 2, 8, 3)


@pytest.mark.parametrize("payer", [PLAIN, MADPO, Payer(("policy", "reference"), True, 0)])
def test_an_equal_bill_is_used_up_to_less_than_a_step(payer: Payer) -> None:
    found = ledger(DPO, epochs=6, micro=4)
    limit = found.bill(DPO, order(96, 6, 8, 3)).total
    steps = found.steps(payer)
    longer = order(96, 99, 8, 3)[: len(steps) + 1]
    assert found.bill(payer, steps).total <= limit < found.bill(payer, longer).total
    assert longer[:-1] == steps


def test_all_of_the_reference_methods_bill_is_everybodys_limit() -> None:
    moving = Payer(("policy", "reference"), moving_reference=True)
    found = ledger(moving, epochs=6)
    limit = found.bill(moving, order(96, 6, 8, 3))
    assert limit.extra > 0
    steps = found.steps(DPO)
    longer = order(96, 99, 8, 3)[: len(steps) + 1]
    assert found.bill(DPO, steps).total <= limit.total < found.bill(DPO, longer).total


def test_who_reads_less_trains_longer_and_who_reads_more_trains_less() -> None:
    found = ledger(DPO, epochs=6)
    assert len(found.steps(PLAIN)) > len(found.steps(DPO)) > len(found.steps(MADPO)) > 0


def test_a_bill_that_pays_for_no_step_says_what_is_lacking() -> None:
    with pytest.raises(GateError, match="does not pay for one step"):
        ledger(DPO).steps(Payer(("policy", "margin"), False, 50))


def test_equal_compute_is_in_the_keys_of_training_alone() -> None:
    before, after = lay_out("dpo,madpo"), lay_out("dpo,madpo", budget__unit="flops")
    changed = {a.verb for a, b in zip(before.stages, after.stages, strict=True) if a.key != b.key}
    assert changed == {"train", "generate", "score"}
